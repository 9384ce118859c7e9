"""Settings: usable values start a process, and any other is refused with its name."""

from __future__ import annotations

from typing import get_args

import pytest

from cdk.config import load
from ingest_ecs.settings import NO_KEY, IngestSettings
from tests.fixtures.settings import VARIABLES, configured
from tickcast.adapters import settings as functions
from tickcast.adapters.settings import (
    AuditPredictionsSettings,
    DatabaseSettings,
    FetchHistorySettings,
    HistorySettings,
    HorizonS,
    PredictStreamSettings,
    ScorePredictionsSettings,
    ServePredictionsSettings,
    Settings,
)
from tickcast.adapters.variables import SettingsError, Symbols, names, read, value
from tickcast.model.forecast import HORIZONS_S

KEY = "kEyThatNobodyMaySee0123456789"

PROCESSES: dict[str, type[Settings]] = {
    "predict": PredictStreamSettings,
    "serve": ServePredictionsSettings,
    "audit": AuditPredictionsSettings,
    "score": ScorePredictionsSettings,
    "load": functions.LoadHistorySettings,
    "fetch": FetchHistorySettings,
    "send": functions.SendSignalsSettings,
    "ingest": IngestSettings,
}
EVERY_KIND = [
    kind
    for kind in [*vars(functions).values(), IngestSettings]
    if isinstance(kind, type) and issubclass(kind, Settings)
]

NO_NUMBERS = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "1e999",
    "soon",
    "1,5",
    "0x10",
    "1_000",
    "٣",
    "²",
    "None",
]
NO_WHOLE_NUMBERS = [*NO_NUMBERS, "1.5", "1e3", "60.0"]

# Of each variable: its process, some values that it may have, and the first beyond either end.
NUMBERS = {
    "STALE_AFTER_S": ("serve", ["1", "2.5", "5"], ["0.99", "5.01", "-5", "0"]),
    "FEE_BP": ("predict", ["0", "7.5", "1e3", ".5", "10."], ["-0.1", "1000.1"]),
    "MIN_CONFIDENCE": ("predict", ["0.5", "0.999"], ["0.49", "1", "55"]),
    "LINGER_MS": ("ingest", ["1", "12.5", "2000"], ["0", "-100", "2001"]),
    "ROLLOVER_S": ("ingest", ["0.5", "81000", "86399"], ["0", "-1", "86400"]),
    "DRIFT_STABILITY_HIGH": ("score", ["0.1", "100"], ["0", "-1", "101"]),
    "DRIFT_STABILITY_LOW": ("score", ["0.01", "0.25"], ["0", "-1", "0.26"]),
}
WHOLE_NUMBERS = {
    "PREDICT_EVERY_MS": ("predict", ["100", "250", "1000"], ["0", "99", "1001", "250.5"]),
    "LATENESS_MS": ("predict", ["0", "100", "2000"], ["-100", "2001"]),
    "FEATURES_TTL_S": ("predict", ["10", "86400"], ["0", "9", "-60", "86401"]),
    "AUDIT_EVERY_MINUTES": ("audit", ["1", "15"], ["0", "16"]),
    "CONDITION_EVERY_MINUTES": ("score", ["1", "1440"], ["0", "1441"]),
    "AUDIT_SAMPLE": ("audit", ["1", "60"], ["0", "61"]),
    "SYMBOLS_CHECK_S": ("predict", ["1", "60"], ["0", "61", "0.5"]),
    "REDIS_PORT": ("predict", ["1", "65535"], ["0", "-1", "65536"]),
    "PRIMARY_HORIZON_S": ("predict", ["1", "2", "5", "10"], ["0", "3", "-1", "02"]),
    "HEALTH_PORT": ("ingest", ["0", "65535"], ["-1", "65536"]),
    "DATABASE_PORT": ("load", ["1", "5432"], ["0", "65536"]),
    "DATABASE_STATEMENT_TIMEOUT_S": ("load", ["1", "900"], ["0", "-120", "901"]),
    "KEEP_DAYS": ("load", ["0", "30", "3650", " 7 "], ["-1", "3651"]),
    "TRADES_KEEP_DAYS": ("load", ["0", "3", "3650"], ["-1", "3651"]),
    "GRID_MS": ("load", ["100", "1000", "60000"], ["0", "-100", "50", "150", "60100"]),
    "QUOTED_GRID_MS": ("load", ["100", "500"], ["0", "99", "101"]),
    "DRIFT_MIN_SCORED": ("score", ["1", "3600"], ["0", "-1"]),
    "DRIFT_RAISE_AFTER": ("score", ["1", "10080"], ["0", "10081"]),
    "DRIFT_COOL_DOWN_HOURS": ("score", ["1", "8760"], ["0", "-12", "8761"]),
    "DRIFT_WINDOW_HOURS": ("score", ["1", "168"], ["0", "169"]),
    "RECEIPTS_KEEP_DAYS": ("serve", ["1", "3650"], ["0", "-1", "3651"]),
    "RECEIPTS_BETWEEN_KEEP_DAYS": ("score", ["0", "3650"], ["-1", "3651"]),
    "HISTORY_DAYS": ("score", ["1", "3650"], ["0", "-2", "3651"]),
    "TRAIN_DAYS": ("score", ["0", "3650"], ["-1", "3651"]),
}
TEXTS = {
    "ENVIRONMENT": ("serve", ["prod", "t"], ["", "a b", "prod\nx", "-x"]),
    "AUTHORISATION": ("serve", ["api_key", "iam"], ["", "IAM", "none", "api-key"]),
    "BUCKET": ("predict", ["b", "tickcast-lake.eu"], ["", "s3://lake", "a/b", "a b"]),
    "SYMBOLS": (
        "predict",
        ["BTCUSDT", "a,b , c", "币安人生USDT"],
        ["", " , ", "BTC-USDT", "BTC/USDT", "B TC", "A" * 51],
    ),
    "REDIS_HOST": (
        "predict",
        ["127.0.0.1", "::1", "cache.a1.cache.amazonaws.com"],
        ["", "redis://x", "h:6379", "a b", "h/0", "be:1"],
    ),
    "REDIS_TLS": ("predict", ["0", "1", "true", "False", " 1 "], ["", "yes", "2", "on", "nan"]),
    "AWS_REGION": ("predict", ["ap-northeast-1", "us-gov-west-1"], ["", "Tokyo", "ap-northeast", "a b"]),
    "REST_URL": (
        "fetch",
        ["https://data-api.binance.vision", "http://127.0.0.1:8080/", "http://[::1]:80", "https://host/prefix"],
        ["", "data-api.binance.vision", "ftp://x", "https://", "https://h:0", "https://h:99999", "https://h:x",
         "https://h/?a=b", "https://h/#a", "https://a b", "https://h/a b", "http://[::1"],
    ),
    "LOG_LEVEL": ("predict", ["DEBUG", "WARN", "INFO"], ["", "LOUD", "info", "10"]),
    "STREAM_NAME": ("ingest", ["ticks", "tickcast-prod_1.x"], ["", "a/b", "arn:aws:kinesis", "ticks ticks"]),
    "PROTOCOL": ("ingest", ["sbe", "json", "auto"], ["", "SBE", "fix", "nan"]),
    "SOURCE": ("ingest", ["sbe", "json", "sim", "replay"], ["", "rest", "SIM", "binance"]),
    "STREAM_URL": (
        "ingest",
        ["wss://stream-sbe.binance.com:9443", "ws://127.0.0.1:1/"],
        ["", "https://stream-sbe.binance.com", "wss://", "wss://h?x", "stream.binance.com"],
    ),
    "PUBLIC_STREAM_URL": (
        "ingest",
        ["wss://data-stream.binance.vision", "ws://127.0.0.1:1/json"],
        ["", "https://data-stream.binance.vision", "wss://"],
    ),
    "REFERENCE_URL": (
        "ingest",
        ["wss://fstream.binance.com/public", "ws://127.0.0.1:1/usdm/public", ""],
        ["https://fstream.binance.com", "wss://", "wss://h?x", "fstream.binance.com"],
    ),
    "DATABASE_HOST": ("load", ["127.0.0.1", "db.x.rds.amazonaws.com"], ["", "postgres://db", "db:5432"]),
    "DATABASE_NAME": ("load", ["tickcast"], ["", "a b", "db;drop"]),
    "DATABASE_USER": ("load", ["tickcast_reader"], ["", "a b", "o'hara"]),
    "REDIS_IAM_USER": ("predict", [""], ["a b", "-x", "a/b"]),
    "REDIS_CACHE_NAME": ("predict", ["", "tickcast-prod"], ["a b", "-x", "a/b"]),
    "HEALTH_HOST": ("ingest", ["127.0.0.1", "0.0.0.0"], ["localhost", "::", "10.0.0.1"]),
    "BUSY_SYMBOL": ("ingest", ["BTCUSDT", "btcusdt"], ["", "BTCUSDT,ETHUSDT", "BTC-USDT"]),
    "POWERTOOLS_SERVICE_NAME": ("predict", ["predict_stream"], ["", "a b", "a/b"]),
    "POWERTOOLS_METRICS_NAMESPACE": ("predict", ["tickcast/prod"], ["", "a b", "a" * 256]),
    "DATABASE_IAM": ("load", ["0", "1", "true"], ["", "yes", "TRUE1"]),
    "SIGNALS": (
        "send",
        ["{}", '{"destinations": [{"name": "a"}], "rules": [{"name": "b", "when": "drift", "to": "a"}]}'],
        ["", "none", "[]", '{"rules": 1}', '{"rules": [{"name": "b", "when": "drift", "to": "a"}]}'],
    ),
    "API_URL": ("send", ["https://a1.execute-api.eu-west-1.amazonaws.com/v1/"], ["", "a1.amazonaws.com/v1"]),
    "DEAD_LETTER_QUEUE_URL": ("send", ["https://sqs.eu-west-1.amazonaws.com/1/lost"], ["", "lost"]),
}  # fmt: skip


def cases(of: dict[str, tuple[str, list[str], list[str]]], more: list[str]) -> list[tuple[str, str, str]]:
    return [(process, name, value) for name, (process, _, wrong) in of.items() for value in [*wrong, *more]]


@pytest.mark.parametrize(
    ("process", "name", "text"),
    [*cases(NUMBERS, NO_NUMBERS), *cases(WHOLE_NUMBERS, NO_WHOLE_NUMBERS), *cases(TEXTS, [])],
)
def test_an_unusable_value_is_refused_by_name(process: str, name: str, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        configured(PROCESSES[process], **{name: text})
    assert name in str(refused.value)
    assert "should be" in str(refused.value)
    assert not text.strip() or repr(text.strip())[1:10] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("process", "name", "text"),
    [
        (process, name, text)
        for of in (NUMBERS, WHOLE_NUMBERS, TEXTS)
        for name, (process, right, _) in of.items()
        for text in right
    ],
)
def test_a_usable_value_is_read(process: str, name: str, text: str) -> None:
    configured(PROCESSES[process], **{name: text})


def test_every_variable_has_cases() -> None:
    read_somewhere = {name for kind in EVERY_KIND for name in names(kind)}
    assert read_somewhere == {*NUMBERS, *WHOLE_NUMBERS, *TEXTS, "BINANCE_API_KEY"}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_missing_variable_is_named_and_has_no_default(kind: type[Settings]) -> None:
    read(kind, VARIABLES)
    for name in names(kind):
        with pytest.raises(SettingsError, match=f"{name} is not set"):
            read(kind, {each: text for each, text in VARIABLES.items() if each != name})


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read(IngestSettings, {})
    assert all(f"{name} is not set" in str(refused.value) for name in names(IngestSettings)[:-1])


def test_the_horizons_are_the_model_s() -> None:
    assert get_args(HorizonS) == HORIZONS_S


def test_defaults_are_the_contract_s() -> None:
    predict, serve = configured(PredictStreamSettings), configured(ServePredictionsSettings)
    assert predict.symbols == ("BTCUSDT", "ETHUSDT")
    assert (predict.lateness_us, serve.stale_after_s, predict.features_ttl_s) == (100_000, 5, 60)
    assert (predict.fee_bp, predict.min_confidence, predict.primary_horizon_s) == (10, 0.55, 2)
    assert configured(HistorySettings) == HistorySettings(load("local").tables.keep_days or 0, 1000, 100, 3)


def test_values_are_converted() -> None:
    predict = configured(
        PredictStreamSettings, REDIS_TLS="true", LATENESS_MS="250", PRIMARY_HORIZON_S="10", FEE_BP="7.5"
    )
    assert (predict.redis.tls, predict.lateness_us, predict.primary_horizon_s) == (True, 250_000, 10)
    assert predict.fee_bp == 7.5
    assert configured(FetchHistorySettings, REST_URL="http://127.0.0.1:80/").rest_url == "http://127.0.0.1:80"
    assert configured(IngestSettings, LINGER_MS="50").linger_s == 0.05
    score = configured(ScorePredictionsSettings, DRIFT_WINDOW_HOURS="2", DRIFT_COOL_DOWN_HOURS="3").scores
    assert (score.window_s, score.policy.cool_down_s) == (7200, 10_800)
    database = configured(DatabaseSettings, DATABASE_IAM="1", POWERTOOLS_SERVICE_NAME="load_history")
    assert (database.iam, database.application, database.port) == (True, "load_history", 5432)


def test_values_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="LATENESS_MS is '1000', it should be less than STALE_AFTER_S"):
        configured(ServePredictionsSettings, LATENESS_MS="1000", STALE_AFTER_S="1")
    for half in ({}, {"REDIS_TLS": "1"}, {"REDIS_CACHE_NAME": "cache"}):
        with pytest.raises(SettingsError, match="REDIS_CACHE_NAME should be set and REDIS_TLS should be 1"):
            configured(PredictStreamSettings, REDIS_IAM_USER="reader", **half)
    whole = {"REDIS_IAM_USER": "reader", "REDIS_TLS": "1", "REDIS_CACHE_NAME": "cache"}
    configured(PredictStreamSettings, **whole)


def test_a_negative_number_of_days_reaches_no_load() -> None:
    with pytest.raises(SettingsError, match="KEEP_DAYS is '-1'"):
        HistorySettings(keep_days=-1, grid_ms=1000, quoted_grid_ms=100, trades_keep_days=3)
    with pytest.raises(SettingsError, match="TRADES_KEEP_DAYS is '-1'"):
        HistorySettings(keep_days=1, grid_ms=1000, quoted_grid_ms=100, trades_keep_days=-1)


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("btcusdt, ETHUSDT,BTCUSDT,", ("BTCUSDT", "ETHUSDT")),
        ("币安人生usdt,这是测试币456", ("币安人生USDT", "这是测试币456")),
        ("ßusdt", ("ßUSDT",)),
    ],
)
def test_symbols(text: str, symbols: tuple[str, ...]) -> None:
    assert value("SYMBOLS", text, Symbols) == symbols


def test_streams_of_symbols_beyond_ascii_are_percent_encoded() -> None:
    settings = configured(IngestSettings, SYMBOLS="BTCUSDT,币USDT")
    assert settings.stream_address().endswith(
        "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk/%E5%B8%81usdt@trade/%E5%B8%81usdt@bestBidAsk"
    )


def test_a_task_refuses_more_symbols_than_a_connection_holds() -> None:
    many = ",".join(f"S{n}USDT" for n in range(300))
    with pytest.raises(SettingsError, match=r"SYMBOLS: 300 symbols are 601 streams with an address of 10347"):
        configured(IngestSettings, SYMBOLS=many)
    short = ",".join(f"{n}" for n in range(512))  # the address would do
    with pytest.raises(SettingsError, match="512 symbols are .* one connection takes 1024 streams"):
        configured(IngestSettings, SYMBOLS=short)


def test_a_missing_exchange_key_is_named() -> None:
    without = {name: text for name, text in VARIABLES.items() if name != "BINANCE_API_KEY"}
    for env in (without, VARIABLES | {"BINANCE_API_KEY": " \n"}):
        with pytest.raises(
            SettingsError, match="BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519"
        ):
            read(IngestSettings, env)
    assert read(IngestSettings, without | {"PROTOCOL": "json"}).api_key == ""


def test_the_protocol_is_decided_by_whether_there_is_a_key() -> None:
    auto = {"PROTOCOL": "auto", "PUBLIC_STREAM_URL": "wss://mirror.example"}
    keyed = configured(IngestSettings, **auto).decided()
    assert (keyed.protocol, keyed.source, keyed.feed) == ("sbe", "sbe", "sbe")
    for key in (NO_KEY, f"{NO_KEY}\n", ""):
        keyless = configured(IngestSettings, **auto, BINANCE_API_KEY=key).decided()
        assert (keyless.protocol, keyless.source, keyless.feed) == ("json", "json", "public_json")
        assert keyless.stream_address().startswith("wss://mirror.example/stream?streams=btcusdt@trade/")
        assert keyless.stream_address().endswith("&timeUnit=MICROSECOND")
        assert keyless.api_key == ""
    assert configured(IngestSettings, PROTOCOL="sbe").decided().protocol == "sbe"


@pytest.mark.parametrize("around", ["{}", "{}\n", "\r\n{}", " {}\t", "\u3000{}"])
def test_white_space_around_a_key_is_no_part_of_it(around: str) -> None:
    settings = configured(IngestSettings, BINANCE_API_KEY=around.format(KEY))
    assert settings.api_key == KEY


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (f"{KEY[:9]} {KEY[9:]}", "white space within"),
        (f"{KEY[:9]}\n{KEY[9:]}", "white space within"),
        (f'"{KEY}"', "quotation marks"),
        (f"'{KEY}'\n", "quotation marks"),
        (f"{KEY}\x00", "printable ASCII"),
        (f"{KEY}\x7f", "printable ASCII"),
        (f"\ufeff{KEY}", "printable ASCII"),
        (f"{KEY}é", "printable ASCII"),
        (KEY * 200, "at most 4096"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"BINANCE_API_KEY .*{why}") as refused:
        configured(IngestSettings, BINANCE_API_KEY=key)
    assert KEY[:9] not in str(refused.value)


def test_no_dump_shows_the_key() -> None:
    settings = configured(IngestSettings)
    assert settings.api_key == "secret-key"
    assert "secret-key" not in repr(settings)


@pytest.mark.parametrize(
    ("process", "name", "scheme"), [("fetch", "REST_URL", "https"), ("ingest", "STREAM_URL", "wss")]
)
def test_a_secret_in_an_address_is_not_shown(process: str, name: str, scheme: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '{scheme}://") as refused:
        configured(PROCESSES[process], **{name: f"{scheme}://user:{KEY}@host"})
    assert KEY not in str(refused.value)
