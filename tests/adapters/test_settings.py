"""Settings: what a process can run by starts it, and anything else is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ingest_ecs.settings import IngestSettings
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.settings import (
    DatabaseSettings,
    HistorySettings,
    ScoreSettings,
    Settings,
    SettingsError,
    bucket_in,
    symbols_in,
)

FUNCTION = {"ENVIRONMENT": "local", "BUCKET": "bucket", "SYMBOLS": "btcusdt, ETHUSDT"}
INGEST = {"STREAM_NAME": "ticks", "SYMBOLS": "BTCUSDT", "BINANCE_API_KEY": "secret-key"}
DATABASE = {
    "DATABASE_HOST": "db.example.com",
    "DATABASE_NAME": "tickcast",
    "DATABASE_USER": "tickcast_reader",
}
KEY = "kEyThatNobodyMaySee0123456789"

Read = Callable[[Mapping[str, str]], Any]
PROCESSES: dict[str, tuple[Read, dict[str, str]]] = {
    "function": (Settings.from_environment, FUNCTION),
    "ingest": (IngestSettings.from_environment, INGEST),
    "database": (DatabaseSettings.from_environment, DATABASE),
    "history": (HistorySettings.from_environment, {}),
    "score": (ScoreSettings.from_environment, {}),
    "lake": (bucket_in, {"BUCKET": "bucket"}),
}

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
    "STALE_AFTER_S": ("function", ["1", "2.5", "5"], ["0.99", "5.01", "-5", "0"]),
    "FEE_BP": ("function", ["0", "7.5", "1e3", ".5", "10."], ["-0.1", "1000.1"]),
    "MIN_CONFIDENCE": ("function", ["0.5", "0.999"], ["0.49", "1", "55"]),
    "LINGER_MS": ("ingest", ["1", "12.5", "2000"], ["0", "-100", "2001"]),
    "ROLLOVER_S": ("ingest", ["0.5", "81000", "86399"], ["0", "-1", "86400"]),
    "DRIFT_STABILITY_HIGH": ("score", ["0.1", "100"], ["0", "-1", "101"]),
    "DRIFT_STABILITY_LOW": ("score", ["0.01", "0.25"], ["0", "-1", "0.26"]),
}
WHOLE_NUMBERS = {
    "LATENESS_MS": ("function", ["0", "100", "2000"], ["-100", "2001"]),
    "FEATURES_TTL_S": ("function", ["10", "86400"], ["0", "9", "-60", "86401"]),
    "AUDIT_EVERY_MINUTES": ("function", ["1", "15"], ["0", "16"]),
    "AUDIT_SAMPLE": ("function", ["1", "60"], ["0", "61"]),
    "REDIS_PORT": ("function", ["1", "65535"], ["0", "-1", "65536"]),
    "PRIMARY_HORIZON_S": ("function", ["1", "2", "5", "10"], ["0", "3", "-1", "02"]),
    "HEALTH_PORT": ("ingest", ["0", "65535"], ["-1", "65536"]),
    "DATABASE_PORT": ("database", ["1", "5432"], ["0", "65536"]),
    "DATABASE_STATEMENT_TIMEOUT_S": ("database", ["1", "900"], ["0", "-120", "901"]),
    "KEEP_DAYS": ("history", ["0", "30", "3650", " 7 "], ["-1", "3651"]),
    "GRID_MS": ("history", ["100", "1000", "60000"], ["0", "-100", "50", "150", "60100"]),
    "QUOTED_GRID_MS": ("history", ["100", "500"], ["0", "99", "101"]),
    "DRIFT_MIN_SCORED": ("score", ["1", "3600"], ["0", "-1"]),
    "DRIFT_RAISE_AFTER": ("score", ["1", "10080"], ["0", "10081"]),
    "DRIFT_COOL_DOWN_HOURS": ("score", ["1", "8760"], ["0", "-12", "8761"]),
    "DRIFT_WINDOW_HOURS": ("score", ["1", "168"], ["0", "169"]),
    "HISTORY_DAYS": ("score", ["1", "3650"], ["0", "-2", "3651"]),
    "TRAIN_DAYS": ("score", ["0", "3650"], ["-1", "3651"]),
}
TEXTS = {
    "ENVIRONMENT": ("function", ["prod", "t"], ["", "a b", "prod\nx", "-x"]),
    "BUCKET": ("function", ["b", "tickcast-lake.eu"], ["", "s3://lake", "a/b", "a b"]),
    "SYMBOLS": (
        "function",
        ["BTCUSDT", "a,b , c", "币安人生USDT"],
        ["", " , ", "BTC-USDT", "BTC/USDT", "B TC", "A" * 51],
    ),
    "REDIS_HOST": (
        "function",
        ["", "127.0.0.1", "::1", "cache.a1.cache.amazonaws.com"],
        ["redis://x", "h:6379", "a b", "h/0", "be:1"],
    ),
    "REDIS_TLS": ("function", ["0", "1", "true", "False", " 1 "], ["", "yes", "2", "on", "nan"]),
    "AWS_REGION": ("function", ["ap-northeast-1", "us-gov-west-1"], ["", "Tokyo", "ap-northeast", "a b"]),
    "REST_URL": (
        "function",
        ["https://data-api.binance.vision", "http://127.0.0.1:8080/", "http://[::1]:80", "https://host/prefix"],
        ["", "data-api.binance.vision", "ftp://x", "https://", "https://h:0", "https://h:99999", "https://h:x",
         "https://h/?a=b", "https://h/#a", "https://a b", "https://h/a b", "http://[::1"],
    ),
    "LOG_LEVEL": ("function", ["DEBUG", "WARN", "INFO"], ["", "LOUD", "info", "10"]),
    "STREAM_NAME": ("ingest", ["ticks", "tickcast-prod_1.x"], ["", "a/b", "arn:aws:kinesis", "ticks ticks"]),
    "PROTOCOL": ("ingest", ["sbe", "json"], ["", "SBE", "fix", "nan"]),
    "SOURCE": ("ingest", ["sbe", "json", "sim", "replay"], ["", "rest", "SIM", "binance"]),
    "STREAM_URL": (
        "ingest",
        ["wss://stream-sbe.binance.com:9443", "ws://127.0.0.1:1/"],
        ["", "https://stream-sbe.binance.com", "wss://", "wss://h?x", "stream.binance.com"],
    ),
    "DATABASE_HOST": ("database", ["127.0.0.1", "db.x.rds.amazonaws.com"], ["", "postgres://db", "db:5432"]),
    "DATABASE_NAME": ("database", ["tickcast"], ["", "a b", "db;drop"]),
    "DATABASE_USER": ("database", ["tickcast_reader"], ["", "a b", "o'hara"]),
    "DATABASE_IAM": ("database", ["0", "1", "true"], ["", "yes", "TRUE1"]),
}  # fmt: skip


def cases(of: dict[str, tuple[str, list[str], list[str]]], more: list[str]) -> list[tuple[str, str, str]]:
    return [(process, name, value) for name, (process, _, wrong) in of.items() for value in [*wrong, *more]]


@pytest.mark.parametrize(
    ("process", "name", "value"),
    [*cases(NUMBERS, NO_NUMBERS), *cases(WHOLE_NUMBERS, NO_WHOLE_NUMBERS), *cases(TEXTS, [])],
)
def test_what_no_process_can_run_by_is_refused_by_name(process: str, name: str, value: str) -> None:
    read, base = PROCESSES[process]
    with pytest.raises(SettingsError) as refused:
        read(base | {name: value})
    assert name in str(refused.value)
    assert "should be" in str(refused.value) or "is not set" in str(refused.value)
    assert not value.strip() or repr(value.strip())[1:10] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("process", "name", "value"),
    [
        (process, name, value)
        for of in (NUMBERS, WHOLE_NUMBERS, TEXTS)
        for name, (process, right, _) in of.items()
        for value in right
    ],
)
def test_what_it_can_run_by_is_taken(process: str, name: str, value: str) -> None:
    read, base = PROCESSES[process]
    read(base | {name: value})


@pytest.mark.parametrize("process", PROCESSES)
def test_a_missing_variable_is_named(process: str) -> None:
    read, base = PROCESSES[process]
    for name in base:
        with pytest.raises(SettingsError, match=f"{name} is not set"):
            read({each: value for each, value in base.items() if each != name})


def test_defaults_are_the_contract_s() -> None:
    settings = Settings.from_environment(FUNCTION)
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert (settings.lateness_us, settings.stale_after_s, settings.features_ttl_s) == (100_000, 5, 60)
    assert (settings.fee_bp, settings.min_confidence, settings.primary_horizon_s) == (10, 0.55, 2)
    assert HistorySettings.from_environment({}) == HistorySettings(0, 1000, 100)


def test_values_are_what_they_say() -> None:
    env = FUNCTION | {"REDIS_TLS": "true", "LATENESS_MS": "250", "PRIMARY_HORIZON_S": "10", "FEE_BP": "7.5"}
    settings = Settings.from_environment(env | {"REST_URL": "http://127.0.0.1:80/"})
    assert (settings.redis_tls, settings.lateness_us, settings.primary_horizon_s) == (True, 250_000, 10)
    assert (settings.fee_bp, settings.rest_url) == (7.5, "http://127.0.0.1:80")
    assert IngestSettings.from_environment(INGEST | {"LINGER_MS": "50"}).linger_s == 0.05


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(SettingsError, match="LATENESS_MS is '1000', it should be less than STALE_AFTER_S"):
        Settings.from_environment(FUNCTION | {"LATENESS_MS": "1000", "STALE_AFTER_S": "1"})
    iam = FUNCTION | {"REDIS_IAM_USER": "reader"}
    for half in ({}, {"REDIS_TLS": "1"}, {"REDIS_CACHE_NAME": "cache"}):
        with pytest.raises(SettingsError, match="REDIS_CACHE_NAME should be set and REDIS_TLS should be 1"):
            Settings.from_environment(iam | half)
    Settings.from_environment(iam | {"REDIS_TLS": "1", "REDIS_CACHE_NAME": "cache"})


def test_a_negative_number_of_days_reaches_no_load() -> None:
    with pytest.raises(SettingsError, match="KEEP_DAYS is '-1'"):
        HistorySettings(keep_days=-1, grid_ms=1000, quoted_grid_ms=100)


def test_a_function_of_the_hot_store_wants_its_host() -> None:
    with pytest.raises(SettingsError, match="REDIS_HOST is not set"):
        connect(Settings.from_environment(FUNCTION))


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("btcusdt, ETHUSDT,BTCUSDT,", ("BTCUSDT", "ETHUSDT")),
        ("币安人生usdt,这是测试币456", ("币安人生USDT", "这是测试币456")),
        ("ßusdt", ("ßUSDT",)),
    ],
)
def test_symbols(text: str, symbols: tuple[str, ...]) -> None:
    assert symbols_in(text) == symbols


def test_streams_of_symbols_beyond_ascii_are_asked_for_by_percent_encoding() -> None:
    settings = IngestSettings.from_environment(INGEST | {"SYMBOLS": "BTCUSDT,币USDT"})
    assert settings.stream_address().endswith(
        "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk/%E5%B8%81usdt@trade/%E5%B8%81usdt@bestBidAsk"
    )


def test_ingest_says_which_key_is_missing() -> None:
    for env in (
        {k: v for k, v in INGEST.items() if k != "BINANCE_API_KEY"},
        INGEST | {"BINANCE_API_KEY": " \n"},
    ):
        with pytest.raises(
            SettingsError, match="BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519"
        ):
            IngestSettings.from_environment(env)


@pytest.mark.parametrize("around", ["{}", "{}\n", "\r\n{}", " {}\t", "\u3000{}"])
def test_white_space_around_a_key_is_no_part_of_it(around: str) -> None:
    settings = IngestSettings.from_environment(INGEST | {"BINANCE_API_KEY": around.format(KEY)})
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
        IngestSettings.from_environment(INGEST | {"BINANCE_API_KEY": key})
    assert KEY[:9] not in str(refused.value)


def test_the_key_shows_in_no_dump() -> None:
    settings = IngestSettings.from_environment(INGEST)
    assert settings.api_key == "secret-key"
    assert "secret-key" not in repr(settings)


@pytest.mark.parametrize(
    ("process", "name", "scheme"), [("function", "REST_URL", "https"), ("ingest", "STREAM_URL", "wss")]
)
def test_a_secret_in_an_address_is_not_shown(process: str, name: str, scheme: str) -> None:
    read, base = PROCESSES[process]
    with pytest.raises(SettingsError, match=f"{name} is '{scheme}://") as refused:
        read(base | {name: f"{scheme}://user:{KEY}@host"})
    assert KEY not in str(refused.value)
