"""Secrets are removed from texts in every form in which libraries write them."""

from __future__ import annotations

import io
import json
import math
import re
import urllib.parse
from typing import Any

import psycopg
import pytest
import redis
from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import EndpointConnectionError
from websockets.exceptions import InvalidHeader

from tickcast.adapters import redaction
from tickcast.adapters.redaction import HIDDEN, describe, redact
from tickcast.adapters.telemetry import Metrics, log_line

REGEX: Any = re  # the module with its private parser
KEY = "kEyThatNobodyMaySee/+0123456789"
SIGNED = (
    "https://bucket.s3.amazonaws.com/key?X-Amz-Credential=ASIAABCDEFGHIJKLMNOP%2F20260101"
    "&X-Amz-Security-Token=FwoGZXIvYXdzEJr&X-Amz-Signature=abc123def456"
)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"invalid header {KEY}\\n",
        repr(f"{KEY}\n"),
        json.dumps({"headers": [KEY + "\n"]}),
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.quote_plus(KEY),
    ],
)
def test_a_known_secret_is_found_in_every_form(text: str) -> None:
    cleaned = redact(f"before {text} after", KEY + "\n")
    assert cleaned.startswith("before ") and cleaned.endswith(" after")
    assert "NobodyMaySee" not in cleaned


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "sessionTokenOfNobody")
    monkeypatch.setenv("STREAM_NAME", "ticks-of-everybody")
    text = redact(f"{KEY} sessionTokenOfNobody ticks-of-everybody")
    assert text == f"{HIDDEN} {HIDDEN} ticks-of-everybody"


@pytest.mark.parametrize(
    ("text", "secrets", "kept"),
    [
        ("redis://user:pass123@cache:6379/0", ["pass123"], ["cache:6379"]),
        ("postgresql://tickcast:pass123@db/x failed", ["pass123"], ["db/x failed"]),
        ("connection to host=db password='pa ss' port=1 failed", ["pa ss"], ["host=db", "port=1"]),
        ('{"password": "pass123", "user": "u"}', ["pass123"], ['"user": "u"']),
        (SIGNED, ["ASIAABCDEF", "FwoGZ", "abc123"], ["bucket.s3.amazonaws.com"]),
        ("invalid X-MBX-APIKEY header: abcdefgh", ["abcdefgh"], ["invalid X-MBX-APIKEY"]),
        ("Authorization: AWS4-HMAC-SHA256 Signature=abc", ["HMAC"], []),
        ("the access key AKIAABCDEFGHIJKLMNOP is unknown", ["AKIAABCD"], ["is unknown"]),
        ("wss://stream/stream?streams=btcusdt@trade/btcusdt@bestBidAsk", [], ["btcusdt@trade"]),
    ],
)
def test_texts_in_the_form_of_a_secret_are_removed(text: str, secrets: list[str], kept: list[str]) -> None:
    cleaned = redact(text)
    assert not [secret for secret in secrets if secret in cleaned]
    assert all(part in cleaned for part in kept), cleaned


def can_match_nothing(parts: Any) -> bool:
    return not parts.getwidth()[0]


def costly(parts: Any) -> list[str]:
    """Unbounded repeats followed by something that can fail."""
    found = []
    for at, (kind, value) in enumerate(parts):
        rest = parts[at + 1 :]
        name = str(kind)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, inner = value
            if most == REGEX._constants.MAXREPEAT and not can_match_nothing(rest):
                found.append(f"{kind} of {inner}")
            found += costly(inner)
        elif name == "SUBPATTERN":
            found += costly(value[-1])
        elif name == "BRANCH":
            found += [each for branch in value[1] for each in costly(branch)]
    return found


def test_no_pattern_takes_time_by_the_square_of_the_text() -> None:
    def of(pattern: str) -> list[str]:
        return costly(REGEX._parser.parse(pattern))

    assert of(r"(\b[a-z][a-z.-]*://)x") and not of(r"(a{0,9}b)x+")
    assert [found for pattern, _ in redaction._PATTERNS for found in of(pattern.pattern)] == []


@pytest.mark.parametrize(
    "unit", ["a-", "-password", "?a", ";key", "://", "password='\\\\", "cookie ", "password \t", "AKIA"]
)
def test_a_long_text_is_cut_before_it_is_searched(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    searched = []

    class Spy:
        def sub(self, replacement: str, text: str) -> str:
            searched.append(len(text))
            return text

    patterns = [(Spy(), HIDDEN), *redaction._PATTERNS]
    monkeypatch.setattr(redaction, "_PATTERNS", patterns)
    text = f"{KEY} failed: " + unit * 100_000
    cleaned = redact(text, KEY)
    assert searched[0] <= redaction._LONGEST + 50
    assert cleaned.startswith(f"{HIDDEN} failed: ") and cleaned.endswith("characters)")


@pytest.mark.parametrize(
    "secret",
    ["redis://user:{}@cache", "password='{} {}'", '{{"password": "{}", "a": 1}}', "?X-Amz-Signature={}&a=b"],
)
@pytest.mark.parametrize("kept", [5, 20, 60, 90])
def test_a_secret_at_the_cut_is_hidden(secret: str, kept: int) -> None:
    filler = "word " * ((redaction._LONGEST - kept) // 5)
    text = filler + " " * (redaction._LONGEST - kept - len(filler)) + secret.format("hush" * 10, "hush" * 10)
    cleaned = redact(text + " end" * 1000)
    assert cleaned.startswith("word word") and "hush" not in cleaned


@pytest.mark.parametrize(
    "error",
    [
        InvalidHeader("X-MBX-APIKEY", f"{KEY}\n"),
        EndpointConnectionError(endpoint_url=SIGNED.replace("abc123def456", KEY)),
        psycopg.OperationalError(f'connection to "password={KEY}" failed'),
        redis.ConnectionError(f"Error connecting to redis://:{KEY}@cache:6379"),
        ValueError(f"Invalid header value {(KEY + chr(10)).encode()!r}"),
    ],
)
def test_an_error_of_a_library_is_described_without_secrets(error: Exception) -> None:
    text = describe(error, KEY)
    assert text.startswith(type(error).__name__)
    assert "NobodyMaySee" not in text
    assert "\n" not in text and len(text) < 600


def test_a_log_line_is_json_and_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    stream = io.StringIO()
    logger = Logger(service="redacted", stream=stream, json_serializer=log_line)
    try:
        raise ValueError(f"the key {KEY} is wrong")
    except ValueError:
        logger.exception("failed", extra={"skill": math.nan, "why": [f"{KEY}\n"], "error": ValueError(KEY)})

    def refuse(word: str) -> Any:
        raise AssertionError(word)

    (line,) = stream.getvalue().splitlines()
    record = json.loads(line, parse_constant=refuse)
    assert (record["message"], record["skill"]) == ("failed", None)
    assert "ValueError" in record["exception"]
    assert "NobodyMaySee" not in line


def test_a_metric_that_is_no_number_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "tickcast/test")
    metrics = Metrics(service="finite")
    for name, value in (("Skill", math.nan), ("Latency", math.inf), ("Count", 2.0)):
        metrics.add_metric(name, MetricUnit.Count, value)
    metrics.flush_metrics()
    line = json.loads(capsys.readouterr().out)
    assert line["Count"] == [2.0]
    assert not line.keys() & {"Skill", "Latency"}


def test_an_error_s_text_can_be_encoded() -> None:
    """Libraries put into it what they were given, such as half a surrogate pair of damaged JSON."""
    text = redaction.describe(ValueError("symbol \ud800 is wrong"))
    assert text == "ValueError: symbol ? is wrong"
    assert text.encode()
