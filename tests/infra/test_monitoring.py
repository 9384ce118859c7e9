"""Alarms and dashboards: they read what is written, all of it and nothing else, at a known price."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from operations.rehearsal.synthesis import Synthesised
from tests.fixtures import emitted_metrics
from tests.fixtures.emitted_metrics import Emitted
from tests.fixtures.paths import ROOT

# An alarm's name in a logical id, without what the CDK adds.
ALARM_ID = re.compile("MonitoringAlarms(.+)[0-9A-F]{8}")
SEARCH = re.compile(r"SEARCH\('\{\"?([\w/]+)\"?,([\w,]+)\} (.*)', '(\w+)', \d+\)")
TERM = re.compile(r'(\w+)="(\w+)"')

# What watching may come to: alarms; our own metrics for one symbol, in an ordinary hour and in one in which
# everything fails (a metric is billed by the hours in which it has a value).
MOST_ALARMS = {"dev": 20, "prod": 40}
MOST_METRICS, MOST_ORDINARY_METRICS = 32, 15

MOST_METRICS_OF_AN_ALARM = 10  # CloudWatch User Guide, "Alarm data queries"

AWS_METRICS = {
    "AWS/Lambda": {
        *("Invocations", "Errors", "Throttles", "Duration", "IteratorAge", "AsyncEventsDropped"),
        *("OnFailureDestinationDeliveredEventCount", "DroppedEventCount"),
    },
    "AWS/Kinesis": {"PutRecords.Latency", "IncomingRecords", "IncomingBytes"},
    "AWS/States": {"ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"},
    "AWS/Events": {"FailedInvocations"},
    "AWS/ApiGateway": {"Count", "4XXError", "5XXError", "Latency", "IntegrationLatency"},
    "AWS/ECS": {"CPUUtilization", "MemoryUtilization"},
    "AWS/RDS": {"CPUUtilization", "CPUCreditBalance", "DatabaseConnections", "FreeStorageSpace"},
    "AWS/ElastiCache": {
        *("DatabaseMemoryUsagePercentage", "EngineCPUUtilization", "CPUCreditBalance", "Evictions"),
    },
    "AWS/Logs": {"IncomingBytes"},
}


class Read(NamedTuple):
    """A metric as something reads it: a search names dimensions without all their values."""

    namespace: str
    name: str
    dimensions: frozenset[str]
    service: str | None


def as_read(metric: Emitted, namespace: str) -> Read:
    dimensions = dict(metric.dimensions)
    return Read(namespace, metric.name, frozenset(dimensions), dimensions["service"])


def alarms(synthesised: Synthesised) -> dict[str, dict[str, Any]]:
    """The properties of the alarms, by their names."""
    found = {}
    for logical_id, properties in synthesised.resources("AWS::CloudWatch::Alarm"):
        name = ALARM_ID.fullmatch(logical_id)
        assert name, logical_id
        found[name[1]] = properties
    return found


def plain(value: Any) -> str:
    """A property as text, with names in place of references."""
    match value:
        case {"Ref": name}:
            return str(name)
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{name}.{attribute}"
        case {"Fn::ImportValue": name}:
            return str(name)
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(plain, parts))
    return str(value)


def read_by_alarm(alarm: dict[str, Any]) -> Iterator[Read]:
    metrics = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", ()) if "MetricStat" in query]
    for metric in metrics or [alarm]:
        values = {each["Name"]: each["Value"] for each in metric.get("Dimensions", ())}
        yield Read(metric["Namespace"], metric["MetricName"], frozenset(values), values.get("service"))


def widgets(synthesised: Synthesised) -> Iterator[dict[str, Any]]:
    for _, dashboard in synthesised.resources("AWS::CloudWatch::Dashboard"):
        yield from json.loads(plain(dashboard["DashboardBody"]))["widgets"]


def read_by_widget(widget: dict[str, Any]) -> Iterator[Read]:
    for line in widget["properties"].get("metrics", ()):
        if isinstance(line[0], dict):
            found = SEARCH.fullmatch(line[0]["expression"])
            if found:
                terms = dict(TERM.findall(found[3]))
                dimensions = frozenset(found[2].split(","))
                yield Read(found[1], terms["MetricName"], dimensions, terms.get("service"))
            continue
        namespace, name, *pairs = [each for each in line if not isinstance(each, dict)]
        values = dict(zip(pairs[::2], pairs[1::2], strict=True))
        yield Read(namespace, name, frozenset(values), values.get("service"))


def all_read(synthesised: Synthesised) -> set[Read]:
    by_alarms = {read for alarm in alarms(synthesised).values() for read in read_by_alarm(alarm)}
    return by_alarms | {read for widget in widgets(synthesised) for read in read_by_widget(widget)}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> tuple[set[Emitted], set[Emitted]]:
    """What is written for one symbol in an ordinary hour, and in one in which everything fails besides."""
    symbols = {"BTCUSDT": {"last_tick_age_s": 0.2, "quiet": False}}
    ordinary = emitted_metrics.of_functions(monkeypatch, all_is_well=True)
    ordinary |= emitted_metrics.of_ingest(monkeypatch, symbols).keys()
    failing = emitted_metrics.of_functions(monkeypatch, all_is_well=False)
    failing |= emitted_metrics.of_ingest(
        monkeypatch, symbols, 60.0, put_failures=1, dropped_ticks=1, bad_frames=1
    ).keys()
    return ordinary, ordinary | failing


def test_what_is_written_is_read_and_what_is_read_is_written(
    environments: dict[str, Synthesised], written: tuple[set[Emitted], set[Emitted]]
) -> None:
    on_aws = environments["prod"]  # dev has no dashboards
    own = f"tickcast/{on_aws.name}"
    expected = {as_read(metric, own) for metric in written[1]}
    found = {read for read in all_read(on_aws) if not read.namespace.startswith("AWS/")}
    capacity = {Read(own, "PutFailures", frozenset({"service"}), "ingest_ecs")}
    assert found == expected
    assert capacity <= found


def test_no_metric_is_written_that_the_test_above_does_not_see(
    written: tuple[set[Emitted], set[Emitted]],
) -> None:
    folders = ("lambdas", "ingest_ecs", "layers/core/python/tickcast")
    sources = [path.read_text("utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    named = {
        name
        for source in sources
        for pattern in (r'(?:add_metric|\.count)\(\s*"([A-Z]\w+)"', r'"([A-Z]\w+)": \(MetricUnit')
        for name in re.findall(pattern, source)
    }
    assert named == {metric.name for metric in written[1]}


def test_services_metrics_have_the_names_of_the_documentation(on_aws: Synthesised) -> None:
    for read in all_read(on_aws):
        if read.namespace.startswith("AWS/"):
            assert read.name in AWS_METRICS[read.namespace]


def test_watching_costs_what_it_may(
    environments: dict[str, Synthesised],
    written: tuple[set[Emitted], set[Emitted]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ordinary, most = written
    assert len(ordinary) <= MOST_ORDINARY_METRICS
    assert len(most) <= MOST_METRICS
    lines = [f"our own metrics of one symbol: {len(ordinary)} in an ordinary hour, {len(most)} at most"]
    for name, limit in MOST_ALARMS.items():
        found = alarms(environments[name])
        metrics = sum(len(list(read_by_alarm(alarm))) for alarm in found.values())
        lines.append(f"{name}: {len(found)} alarms over {metrics} metrics")
        assert len(found) <= limit
    with capsys.disabled():
        print("", *lines, sep="\n")


def test_every_alarm_notifies_somebody(on_aws: Synthesised) -> None:
    for name, alarm in alarms(on_aws).items():
        assert alarm["AlarmActions"] and alarm["OKActions"] and alarm["AlarmDescription"], name


def test_dev_has_alarms_on_what_fails_and_prod_on_what_is_full_too(
    environments: dict[str, Synthesised],
) -> None:
    dev, prod = (set(alarms(environments[name])) for name in ("dev", "prod"))
    assert dev < prod
    assert {"CacheMemory", "DatabaseStorage", "FunctionsThrottled", "DroppedTicks", "BatchesGivenUp"} <= dev
    full = {"CacheEvictions", "CacheCredits", "CacheEngineCpu", "DatabaseConnections", "DatabaseCredits"}
    assert prod - dev == full | {"PutFailures", "SlowPredictions", "ApiSlow"}


def test_the_runbook_has_every_alarm_and_no_other(environments: dict[str, Synthesised]) -> None:
    """And the one that there is with signals alone (tests/infra/test_signals.py)."""
    text = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    rules = {
        logical_id
        for logical_id, rule in environments["prod"].resources("AWS::Events::Rule")
        if "EventPattern" in rule
    }
    [migration] = rules
    assert re.fullmatch("MonitoringMigrationFailed[0-9A-F]{8}", migration)
    assert described == set(alarms(environments["prod"])) | {"MigrationFailed", "SignalsLost"}
    for row in rows:
        assert len(row) == 6 and all(cell.strip() for cell in row[1:5]), row  # meaning, look at, do


def test_an_alarm_is_of_all_symbols_and_one_that_cloudwatch_accepts(on_aws: Synthesised) -> None:
    for name, alarm in alarms(on_aws).items():
        assert "symbol" not in {each for read in read_by_alarm(alarm) for each in read.dimensions}, name
        queries = alarm.get("Metrics", ())
        statistics = [query["MetricStat"] for query in queries if "MetricStat" in query]
        assert len(statistics) <= MOST_METRICS_OF_AN_ALARM, name
        assert len({each["Period"] for each in statistics}) <= 1, name
        for query in queries:  # a search would be refused
            assert "SEARCH" not in query.get("Expression", ""), name
        period_s = statistics[0]["Period"] if statistics else alarm["Period"]
        most_s = 7 * 86_400 if period_s >= 3600 else 86_400
        assert period_s * alarm["EvaluationPeriods"] <= most_s, name


def test_neither_alarms_nor_dashboards_name_a_symbol(on_aws: Synthesised) -> None:
    for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"):
        text = json.dumps(list(on_aws.resources(kind)))
        assert not re.search("BTCUSDT|ETHUSDT", text)


def test_silence_is_an_alarm_where_it_means_that_something_stopped(on_aws: Synthesised) -> None:
    silent = {name for name, alarm in alarms(on_aws).items() if alarm["TreatMissingData"] == "breaching"}
    assert silent == {"NoPredictions", "IngestTasksMissing", "NotScored"}
    # Raised on missing data, they would be raised by every first deployment, were they created earlier.
    resources = on_aws.templates["app"]["Resources"]
    services = {name for name, _ in on_aws.resources("AWS::ECS::Service")}
    for logical_id, _ in on_aws.resources("AWS::CloudWatch::Alarm"):
        if ALARM_ID.fullmatch(logical_id)[1] in silent:  # type: ignore[index]
            assert services & set(resources[logical_id]["DependsOn"]), logical_id


def test_an_open_dashboard_cannot_raise_the_alarm_on_errors_of_the_api(on_aws: Synthesised) -> None:
    """It polls /health, whose 503 the gateway counts among its 5XXError."""
    read = {each.name for each in read_by_alarm(alarms(on_aws)["ApiServerErrors"])}
    assert read == {"ServerErrors", "Errors", "Throttles"}


def test_the_alarm_on_availability_keeps_its_state_while_there_is_no_figure(on_aws: Synthesised) -> None:
    """Before the first model and after the last there is none; NoModel is raised some hours later."""
    found = alarms(on_aws)
    assert found["Unavailable"]["TreatMissingData"] == "ignore"
    model = found["NoModel"]
    assert (model["Period"], model["EvaluationPeriods"]) == (3600, 6)
    assert model["TreatMissingData"] == "notBreaching"


def test_running_tasks_are_counted_without_container_insights(on_aws: Synthesised) -> None:
    alarm = alarms(on_aws)["IngestTasksMissing"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/ECS", "CPUUtilization")
    assert alarm["Statistic"] == "SampleCount"
    assert alarm["Threshold"] == (2 if on_aws.name == "prod" else 1)


def test_every_node_of_the_cache_is_watched(on_aws: Synthesised) -> None:
    nodes = on_aws.one("AWS::ElastiCache::ReplicationGroup")["NumCacheClusters"]
    queries = [each for each in alarms(on_aws)["CacheMemory"]["Metrics"] if "MetricStat" in each]
    named = {plain(each["MetricStat"]["Metric"]["Dimensions"][0]["Value"])[-4:] for each in queries}
    assert named == {f"-{number:03}" for number in range(1, nodes + 1)}


def test_dashboards_are_left_out_where_the_configuration_says_so(
    environments: dict[str, Synthesised],
) -> None:
    assert not list(environments["dev"].resources("AWS::CloudWatch::Dashboard"))


def test_two_dashboards_show_all_that_has_an_alarm(environments: dict[str, Synthesised]) -> None:
    on_aws = environments["prod"]
    names = {each["DashboardName"] for _, each in on_aws.resources("AWS::CloudWatch::Dashboard")}
    assert names == {f"tickcast-{on_aws.name}-business", f"tickcast-{on_aws.name}-system"}
    shown = {(read.namespace, read.name) for widget in widgets(on_aws) for read in read_by_widget(widget)}
    for name, alarm in alarms(on_aws).items():
        for read in read_by_alarm(alarm):
            # How many were given up, or could not be started, is only interesting as an alarm.
            if name not in ("BatchesGivenUp", "ScheduledWorkLost", "BackfillFailed"):
                assert (read.namespace, read.name) in shown, name


def test_what_is_added_later_appears_on_the_dashboard_by_itself(
    environments: dict[str, Synthesised],
) -> None:
    on_aws = environments["prod"]
    found = {
        (read.name, *sorted(read.dimensions))
        for widget in widgets(on_aws)
        for read in read_by_widget(widget)
        if {"symbol", "reason"} & read.dimensions
    }
    by_symbol = ("LiveSkill", "Direction", "Coverage", "CalibrationError")
    assert found == {(name, "service", "symbol") for name in by_symbol} | {("Fallbacks", "reason", "service")}


def test_a_failed_migration_is_reported(on_aws: Synthesised) -> None:
    [rule] = [rule for _, rule in on_aws.resources("AWS::Events::Rule") if "EventPattern" in rule]
    detail = rule["EventPattern"]["detail"]
    [task] = [
        task
        for _, task in on_aws.resources("AWS::ECS::TaskDefinition")
        if task["ContainerDefinitions"][0]["Name"] == "Migrate"
    ]
    assert [plain(each) for each in detail["group"]] == [f"family:{task['Family']}"]
    [target] = rule["Targets"]
    assert target["Arn"]["Ref"] in dict(on_aws.resources("AWS::SNS::Topic"))
