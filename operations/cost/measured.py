"""What the usage is computed from: figures that were measured here, and assumptions, each with its source.

Bytes are as billed (compressed, where they are kept so); a month is 730 hours, as in AWS's price lists.
"""

from __future__ import annotations

from typing import NamedTuple

MONTH_H = 730
MONTH_S = MONTH_H * 3600
MONTH_DAYS = MONTH_H / 24

# The wire and the hot path: docs/performance.md.
TICK_BYTES = 54.6
# Quotes of a symbol's perpetual that go along with its ticks: of recordings of BTC and ETH in 2024, 15 to 20,
# as tests/ingest_ecs/test_reference_feed.py conflates them. Each is as large as a tick.
REFERENCE_QUOTES_PER_S = 20
RECORD_BYTES = 80  # what a record has besides ticks
PUT_UNIT_BYTES = 25 * 1024
SHARD_BYTES_PER_S = 1_000_000
SHARD_RECORDS_PER_S = 1_000
EVENT_TICKS = 20  # in the event that was measured, or fewer
TICK_US = 0.4  # each further tick
EVENT_MS = 2.6  # an event of one symbol to the end of the invocation, on a whole core (2.2 to 2.6)
FURTHER_SYMBOL_MS = 2.2  # each further symbol of an event: ten take 22.5 ms
FULL_CORE_MB = 1769  # of memory come with one core (AWS Lambda Developer Guide)
ROUND_TRIP_MS = 1  # assumed: to Redis between zones
POLL_EVERY_MS = 1000  # Lambda's base rate for each shard (AWS Lambda Developer Guide)

# Two minutes of spot BTC (tests/events/recordings) as `bronze.write_file` writes them; the share of trades is
# that of benchmarks/sample.py.
BRONZE_TICK_BYTES = 18.5
# 300 receipts with four outcomes each, and as many in between, all their numbers random, as
# `receipt_archive.encode_block` writes them; CPU of a whole core to read, merge and write each.
RECEIPT_BYTES = 1600
RECEIPT_BETWEEN_BYTES = 1280
RECEIPT_MS = 0.25
RECEIPT_FILE_SECONDS = 0.1  # assumed: two requests to S3
TALLY_FILES_PER_DAY = 25  # of each symbol: its day once an hour, and the day before once
TALLY_DAY_BYTES = 245_000  # of ten bins of confidence in every hour
# Smaller objects stay in their class ("Transitioning objects using Amazon S3 Lifecycle", S3 User Guide).
LEAST_MOVED_BYTES = 128 * 1024
TRADE_SHARE = 0.21
EVENT_BYTES = 4_500_000  # of records in an event: 6 MB of payload, in base64
ARCHIVE_TICK_US = 12  # CPU of a whole core: 9.3 to write (the same two minutes), the rest to decode
ARCHIVE_FILE_SECONDS = 0.1  # assumed: a put to S3, and the invocation's own
# What one event sends to the hot store: answer, state, receipt, features (Redis' own count of net input).
EVENT_TO_STORE_BYTES = 28_100

# PostgreSQL: bytes a row are in table_sizes.py.
FULL_AT = 0.9  # RDS adds storage when a tenth is left


class Run(NamedTuple):
    """How often a function runs that the stream does not invoke, and how long: assumed, to be compared with
    the account's own figures. `per_symbol`: so often for each symbol."""

    per_day: float
    seconds: float
    per_symbol: bool = False


# By function: the nightly ones once a day (`history.schedule`), with a day of history each.
RUNS = {
    "score_predictions": Run(1440, 0.5),
    "plan_backfill": Run(1, 2),
    "fetch_history": Run(2, 180, per_symbol=True),
    "report_condition": Run(24, 3),  # or by condition.every_minutes
    "list_stale_hours": Run(2, 20),
    "load_history": Run(3, 120, per_symbol=True),
    "mark_repaired": Run(1, 2, per_symbol=True),
    "train_model": Run(1, 240),
    "evaluate_model": Run(1, 60),
    "promote_model": Run(1, 2),
}
# Where there are signals: how many are sent, of all rules, and how long one takes (a cold start and a
# receiver's answer), assumed. A rule of a minute's pause that always matches sends 1,440 a day and symbol.
SIGNALS_PER_DAY = 200
SIGNAL_SECONDS = 2
# Of a report on the condition of a symbol's data: the days of each source, the hours of two days of each, and
# one put.
REPORT_LISTS = 8
AUDIT_SECONDS = 4  # an audit, of a sample of each symbol
SERVE_SECONDS = 0.012  # an answer of the API

# Lines of logs, bytes, with CloudWatch's 26 for each event.
EMF_LINE_BYTES = 526  # of the embedded metric format
EMF_EVERY_S = 10  # by predict_stream, of all symbols (prediction_metrics.EVERY_MS)
SCORED_LINE_BYTES = 3000  # one a minute and symbol
ACCESS_LINE_BYTES = 446
OTHER_LINES_PER_DAY = 2000  # assumed: of all functions and tasks

# Flow logs of rejected traffic: what scans a public address, as records of ten minutes.
REJECTED_BYTES_PER_ADDRESS_DAY = 1_500_000

ANSWER_BYTES = 1500
IMAGES_GB = 0.5  # both images, and the one before each
LIFETIME_DAYS = 365  # how long prod has run: bronze that is never deleted grows until then

# X-Ray records the first request of each second and 5 % of the others.
TRACED_SHARE = 0.05
# Metrics of Container Insights for one service, and of API Gateway for each method.
INSIGHTS_METRICS = 24
METRICS_PER_METHOD = 5
# Of an Express execution Step Functions bills memory in steps of 64 MB.
EXPRESS_GB = 0.0625
EXPRESS_SECONDS = 1
TRANSITIONS_PER_NIGHT = 20
TRANSITIONS_PER_WINDOW = 8
MODEL_CHECK_S = 5  # a function that serves a model reads models/current.json
KMS_CACHE_S = 300  # Kinesis keeps a data key so long
