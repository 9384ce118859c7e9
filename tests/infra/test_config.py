"""The environments' configuration: mistakes are errors that say what to do."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import aws_cdk
import pytest

from app import compose
from cdk.config import (
    CACHE_MB_PER_SYMBOL,
    CACHE_NODE_MB,
    SCORING_S,
    ApiConfig,
    CacheConfig,
    ConfigError,
    Environment,
    KnownLimits,
    load,
    parse,
    zone_prefix,
)
from layers.catalog import BUILT
from tickcast.functions import archive_receipts


def test_an_unknown_environment_names_the_known() -> None:
    with pytest.raises(ValueError, match="no environment 'staging': one of dev, local, prod"):
        load("staging")


def test_defaults() -> None:
    environment = Environment(name="dev")
    assert environment.region == "ap-northeast-1"
    assert environment.functions.predict_stream.reserved_concurrency is None
    assert load("local").aws is None
    assert load("prod").aws is not None


@pytest.mark.parametrize("symbols", [1, 2, 10, 100])
def test_limits_fit_a_poller_of_every_symbol(symbols: int) -> None:
    polls_per_s = max(symbols, 10)
    limits = ApiConfig().for_symbols(symbols)
    assert limits.key_requests_per_day > polls_per_s * 86_400
    assert polls_per_s < limits.key_requests_per_s <= limits.key_burst
    assert limits.key_requests_per_s < limits.requests_per_s
    assert limits.key_burst < limits.burst


def test_a_configured_limit_is_kept() -> None:
    limits = ApiConfig(key_requests_per_day=7, key_requests_per_s=3, key_burst=4, requests_per_s=5, burst=6)
    assert limits.for_symbols(50) == KnownLimits(5, 6, 3, 4, 7)


def test_missing_layers_stop_a_deployment_and_say_how_to_build_them(tmp_path: Path) -> None:
    app = aws_cdk.App(
        context={"env": "local", "layers_dir": str(tmp_path / "nowhere")}, outdir=str(tmp_path / "out")
    )
    compose(app)
    [stack] = [each for each in app.synth().stacks if each.stack_name == "tickcast-local-app"]
    errors = [str(each.entry.data) for each in stack.messages if each.level.name == "ERROR"]
    assert len(errors) == len(BUILT)
    assert all(re.fullmatch(r"no layer at .+: run `make layers ENV=local` first", each) for each in errors)


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"prediction": {"lateness_ms": value}}, "lateness_ms") for value in (0, -100, 2001, 1.5, "100", True)),
    ({"prediction": {"lateness_ms": math.nan}}, "lateness_ms"),
    *(({"prediction": {"predict_every_ms": value}}, "predict_every_ms") for value in (0, 99, 1001, 250.5)),
    *(({"prediction": {"stale_after_s": value}}, "stale_after_s") for value in (0, 6, 3600, math.inf)),
    *(({"prediction": {"primary_horizon_s": value}}, "primary_horizon_s") for value in (0, 3, "2")),
    *(({"prediction": {"features_ttl_s": value}}, "features_ttl_s") for value in (0, 9, 86_401)),
    *(({"prediction": {"fee_bp": value}}, "fee_bp") for value in (-1, 1001, math.nan, math.inf)),
    *(({"prediction": {"min_confidence": value}}, "min_confidence") for value in (0.4, 1, math.nan)),
    *(({"tables": {"keep_days": value}}, "keep_days") for value in (-1, 0, 3651, 1.5, math.nan)),
    *(({"tables": {"grid_ms": value}}, "grid_ms") for value in (0, 50, 150, 60_100, -100)),
    *(({"drift": {"stability_high": value}}, "stability_high") for value in (0, -1, math.nan, math.inf)),
    ({"prediction": {"lateness_ms": 1000, "stale_after_s": 1}}, "lateness_ms is 1000"),
    ({"drift": {"stability_low": 0.3, "stability_high": 0.2}}, "stability_low is 0.3"),
    *(({"drift": {"window_hours": value}}, "window_hours") for value in (0, 169)),
    *(({"history": {"rest_url": value}}, "rest_url") for value in ("", "ftp://x", "data-api.binance.vision")),
    *(({"history": {"days": value}}, "days") for value in (-1, 0, 3651)),
    *(({"history": {"schedule": value}}, "schedule") for value in ("", "daily", "cron()")),
    *(({"aws": {"ingest": {"linger_ms": value}}}, "linger_ms") for value in (0, -1, 2001)),
    *(({"aws": {"ingest": {"stream_url": value}}}, "stream_url") for value in ("", "https://x", "wss://u:p@h")),
    *(
        ({"aws": {"ingest": {"reference_url": value}}}, "reference_url")
        for value in ("", None, "https://x/public", "wss://u:p@h", "wss://h/a?b", "wss://h/a b")
    ),
    *(({"aws": {"ingest": {"reference": value}}}, "reference") for value in ("", "no", 1, None)),
    *(({"aws": {"alarm_email": value}}, "alarm_email") for value in ("", "me", "me@x")),
    *(({"aws": {"cache": {"node_type": value}}}, "node_type") for value in ("", "t4g.micro")),
    *(({"symbols": value}, "symbols") for value in ([], [""], ["btcusdt"], ["BTC-USDT"], ["E\u0301"])),
    *(({"region": value}, "region") for value in ("", "Tokyo")),
    ({"log_level": "LOUD"}, "log_level"),
    ({"stream": {"shard": 2}}, "shard"),
    *(({"stream": {"parallelism": value}}, "parallelism") for value in (0, 11, 1.5)),
    *(({"stream": {"fan_out": value}}, "fan_out") for value in (1, "yes", None)),
    ({"aws": {"cache": {"node_type": "cache.x9.huge"}}}, "cache.x9.huge.*whose memory is not known"),
    ({"aws": {"network": {"zone_ids": ["apne1-az1"]}}}, "zone_ids"),
    ({"aws": {"network": {"zone_ids": ["ap-northeast-1a", "ap-northeast-1c"]}}}, "zone_ids"),
    ({"aws": {"network": {"zone_ids": ["apne1-az1", "apne1-az1"]}}}, "twice apne1-az1"),
    ({"aws": {"network": {"zone_ids": ["apne1-az1", "apne1-az3"]}}}, "apne1-az3 has no Fargate"),
    ({"aws": {"network": {"zone_ids": ["use1-az1", "use1-az2"]}}}, "use1-az1 is not of ap-northeast-1"),
    *(({"aws": {"ingest": {"architecture": value}}}, "architecture") for value in ("arm", None)),
    ({"api": {"authorisation": "none"}}, "authorisation"),
    ({"lake": {"bronze_days": 100, "bronze_cheaper_after_days": 30}}, "bronze_days 100.*90 days at least"),
    ({"stream": {"shards": 4}, "aws": {}}, "12 functions may run at once.*API needs 2.*quota is 10"),
    ({"stream": {"parallelism": 10}, "aws": {}}, "15 functions may run at once.*concurrent_executions"),
    ({"stream": {"shards": None}, "aws": {}}, "12 functions may run at once"),
    ({"aws": {"concurrent_executions": 9}}, "concurrent_executions"),
    *(
        (
            {"functions": {"score_predictions": {"memory_mb": 512, "timeout_s": value}}},
            rf"functions\.score_predictions\.timeout_s is {value}.*no receipts would be archived",
        )
        for value in (1, SCORING_S)
    ),
    ({"tables": {"keep_days": 6}}, r"tables\.keep_days is 6, and history\.train_days 7"),
    *(
        (
            {
                "aws": {"concurrent_executions": quota},
                "functions": {
                    "predict_stream": {"memory_mb": 512, "timeout_s": 9, "reserved_concurrency": 5}
                },
            },
            f"reserved_concurrency is 5 in all, and of the account's {quota} Lambda keeps 100",
        )
        for quota in (10, 104)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "name"), WRONG, ids=str)
def test_an_unusable_value_is_an_error(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        parse({"name": "dev"} | values)


def test_as_many_days_may_be_kept_as_trained_on() -> None:
    for train_days in (7, None):
        history = {"train_days": train_days}
        assert parse({"name": "dev", "tables": {"keep_days": 7}, "history": history}).tables.keep_days == 7
    assert parse({"name": "dev", "tables": {"keep_days": 1}, "history": {"train_days": None}})


def test_scoring_is_left_what_archiving_leaves_it() -> None:
    assert archive_receipts.ENOUGH_MS == 1000 * SCORING_S


@pytest.mark.parametrize(
    ("region", "prefix"),
    [
        *(("ap-northeast-1", "apne1"), ("us-east-1", "use1"), ("eu-central-1", "euc1")),
        *(("ap-southeast-2", "apse2"), ("us-gov-west-1", "usgw1"), ("il-central-1", "ilc1")),
    ],
)
def test_ids_of_zones_begin_with_the_regions_short_name(region: str, prefix: str) -> None:
    assert zone_prefix(region) == prefix
    zone_ids = [f"{prefix}-az1", f"{prefix}-az2"]
    parse({"name": "dev", "region": region, "aws": {"network": {"zone_ids": zone_ids}}})


def test_symbols_of_any_script() -> None:
    assert load("local", symbols="币安人生USDT, ßUSDT").symbols == ("币安人生USDT", "ßUSDT")


A_CONNECTION_S = 230  # symbols with such names whose streams one connection takes


def on_aws(symbols: int, **cache: object) -> Environment:
    names = [f"S{n}USDT" for n in range(symbols)]
    return parse({"name": "dev", "symbols": names, "aws": {"cache": cache}})


@pytest.mark.parametrize("node_type", CACHE_NODE_MB)
def test_more_symbols_than_the_cache_holds_are_an_error(node_type: str) -> None:
    most = on_aws(1, node_type=node_type).aws.cache.usable_mb // CACHE_MB_PER_SYMBOL  # type: ignore[union-attr]
    assert most >= 5
    on_aws(min(most, A_CONNECTION_S), node_type=node_type)
    with pytest.raises(ValueError) as raised:
        on_aws(most + 1, node_type=node_type)
    needed = f"{most + 1} symbols need {(most + 1) * CACHE_MB_PER_SYMBOL} MB of the cache"
    assert needed in str(raised.value) and node_type in str(raised.value)


def test_more_symbols_than_a_connection_holds_are_an_error() -> None:
    """The exchange would refuse the address at the handshake, and the deployment would be rolled back."""
    on_aws(A_CONNECTION_S, node_type="cache.r7g.xlarge")
    with pytest.raises(ValueError, match=r"symbols: 300 symbols are 601 streams .* divide the symbols"):
        on_aws(300, node_type="cache.r7g.xlarge")


def test_symbols_of_the_context_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match="40 symbols need"):
        load("dev", symbols=",".join(f"S{n}USDT" for n in range(40)))
    assert len(load("local", symbols=",".join(f"S{n}USDT" for n in range(40))).symbols) == 40


@pytest.mark.parametrize(
    ("node_type", "usable_mb"),
    [("cache.t4g.micro", 256), ("cache.t4g.small", 981), ("cache.t4g.medium", 2373)],
)
def test_small_nodes_keep_more_for_failover(node_type: str, usable_mb: int) -> None:
    assert CacheConfig(node_type=node_type).usable_mb == usable_mb


def test_alarms_are_signalled_in_an_account_alone() -> None:
    rule = {"name": "raised", "when": "alarm", "to": "desk"}
    signals = {"destinations": [{"name": "desk"}], "rules": [rule]}
    assert parse({"name": "dev", "aws": {}, "signals": signals}).signals.rules
    with pytest.raises(ConfigError, match="rule raised is of alarms, which there are in an account alone"):
        parse({"name": "local", "signals": signals})


def test_signals_of_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    section = "destinations: [{name: desk}]\nrules: [{name: a, when: drift, to: desk}]\n"
    for text in (section, "signals:\n" + "".join(f"  {line}\n" for line in section.splitlines())):
        path.write_text(text, "utf-8")
        assert [rule.name for rule in load("local", signals=str(path)).signals.rules] == ["a"]
    path.write_text("rules: [", "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: line 1, column 9: not valid YAML"):
        load("local", signals=str(path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load("local", signals=str(tmp_path / "none.yaml"))
