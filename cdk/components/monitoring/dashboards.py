"""Two dashboards: how good the predictions are for their readers, and how the system is.

Lines by symbol and by reason are searches: what is added later appears by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from cdk.components.monitoring.metrics import (
    MINUTE,
    Own,
    aws,
    of_function,
    of_machine,
    search,
)
from cdk.components.monitoring.watched import Watched

HOUR = Duration.hours(1)
WIDTH, HEIGHT = 12, 6  # two graphs side by side
PUT_UNIT_BYTES = 25 * 1024


class Business(Construct):
    """Skill at delivery, coverage, accuracy, calibration, fallbacks, age when read."""

    def __init__(self, scope: Construct, construct_id: str, *, name: str, own: Own) -> None:
        super().__init__(scope, construct_id)
        scored, predicted = "score_predictions", "predict_stream"
        _dashboard(
            self,
            f"{name}-business",
            graph("Skill at delivery, of the last hour", own.by("symbol", "LiveSkill", scored)),
            graph("Direction right, % of the moves", own.by("symbol", "Direction", scored)),
            graph("Coverage of the 80 % interval, %", own.by("symbol", "Coverage", scored)),
            graph("Calibration error of the confidence", own.by("symbol", "CalibrationError", scored)),
            graph(
                "Answered by a model, % of the last hour's seconds, symbol with the least",
                own.metric("Availability", scored, "min"),
            ),
            graph(
                "Symbols that drift, runs without an active model",
                own.metric("Drifting", scored, "max", label="drifting"),
                own.metric("NoModel", scored, label="no model"),
                own.metric("ModelRefused", predicted, label="model refused"),
            ),
            graph("Predictions kept, a minute", own.metric("Predictions", predicted)),
            graph("Fallbacks a minute, by reason", own.by("reason", "Fallbacks", predicted, "Sum")),
            graph(
                "Age of an answer when it is read, ms",
                *[
                    own.metric("AgeWhenReadMs", "serve_predictions", each, label=each)
                    for each in ("p50", "p90", "p99")
                ],
            ),
            graph(
                "From the instant of a forecast to its answer, ms",
                *[own.metric("LatencyMs", predicted, each, label=each) for each in ("p50", "p90", "p99")],
            ),
        )


class System(Construct):
    """Latency by hop, ages, errors, stores, and what drives the cost."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        own: Own,
        watched: Watched,
        alarms: Sequence[cloudwatch.IAlarm],
    ) -> None:
        super().__init__(scope, construct_id)
        _dashboard(
            self,
            f"{name}-system",
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=2 * WIDTH, height=HEIGHT),
            *_hops(own, watched),
            *_errors(own, watched),
            *_feed(own, watched),
            *_stores(watched),
            *_cost_drivers(name, watched),
        )


def graph(
    title: str, *left: cloudwatch.IMetric, right: Sequence[cloudwatch.IMetric] = ()
) -> cloudwatch.IWidget:
    return cloudwatch.GraphWidget(title=title, left=list(left), right=list(right), width=WIDTH, height=HEIGHT)


def _hops(own: Own, watched: Watched) -> list[cloudwatch.IWidget]:
    hops = {name: own.metric(name, "predict_stream", "avg") for name in ("ToKinesisMs", "ToFunctionMs")}
    inside = cloudwatch.MathExpression(
        expression="latency - kinesis - poll",
        using_metrics={
            "latency": own.metric("LatencyMs", "predict_stream", "avg"),
            "kinesis": hops["ToKinesisMs"],
            "poll": hops["ToFunctionMs"],
        },
        label="in the function, to Redis",
        period=MINUTE,
    )
    dimensions = {"StreamName": watched.stream.stream_name}
    put = aws("Kinesis", "PutRecords.Latency", dimensions, "avg", label="PutRecords")
    latency = watched.api.metric_latency(period=MINUTE, statistic="p90", label="API, p90")
    inner = watched.api.metric_integration_latency(period=MINUTE, statistic="p90", label="function, p90")
    return [
        graph("Latency by hop, ms, mean", hops["ToKinesisMs"], hops["ToFunctionMs"], inside, put),
        graph("Latency of the API, ms", latency, inner),
        graph(
            "Duration of functions, ms, p90",
            *[of_function(each, "Duration", "p90") for each in watched.functions.values()],
        ),
        graph(
            "Age of the newest record read, ms",
            *[
                of_function(watched.functions[n], "IteratorAge", "max")
                for n in ("predict_stream", "archive_ticks")
            ],
        ),
    ]


def _errors(own: Own, watched: Watched) -> list[cloudwatch.IWidget]:
    functions = watched.functions.values()
    quarantined = [
        own.metric("Quarantined", name, label=name)
        for name in ("predict_stream", "archive_ticks", "fetch_history", "load_history")
    ]
    failures = [
        own.metric("SymbolFailures", name, label=f"failures, {name}")
        for name in ("predict_stream", "score_predictions")
    ]
    machines = {"score": watched.score, "backfill": watched.backfill}
    refused = watched.api.metric_client_error(period=MINUTE, label="4xx")
    server = [
        own.metric("ServerErrors", "serve_predictions", label="5xx but of /health"),
        watched.api.metric_server_error(period=MINUTE, label="5xx"),
    ]
    return [
        graph("Errors of functions", *[of_function(each, "Errors") for each in functions]),
        graph("Throttles", *[of_function(each, "Throttles") for each in functions]),
        graph("API: answers", watched.api.metric_count(period=MINUTE, label="all"), right=[refused, *server]),
        graph(
            "Executions that failed",
            *[
                machine.metric_failed(period=MINUTE, statistic="sum", label=name)
                for name, machine in machines.items()
            ],
            of_machine(watched.score, "ExecutionsSucceeded"),
        ),
        graph(
            "Records quarantined, failures of a symbol",
            *quarantined,
            own.metric("BadFrames", "ingest_ecs", label="frames"),
            *failures,
        ),
        graph(
            "Audited predictions that differ, audits lost",
            own.metric("AuditDifferences", "audit_predictions"),
            of_function(watched.functions["audit_predictions"], "AsyncEventsDropped"),
        ),
    ]


def _feed(own: Own, watched: Watched) -> list[cloudwatch.IWidget]:
    service = {
        "ClusterName": watched.ingest.cluster.cluster_name,
        "ServiceName": watched.ingest.service.service_name,
    }
    return [
        graph(
            "Age of the newest tick and perpetual's quote, s, symbol where it is oldest",
            own.metric("LastTickAgeSeconds", "ingest_ecs", "max"),
            own.metric("ReferenceAgeSeconds", "ingest_ecs", "max"),
        ),
        graph("Trades missing in the ledger", own.metric("MissingTrades", "predict_stream", "max")),
        graph(
            "Ticks dropped, puts that failed",
            own.metric("DroppedTicks", "ingest_ecs"),
            own.metric("PutFailures", "ingest_ecs"),
        ),
        graph(
            "Ingest: tasks; CPU, memory, %",
            aws("ECS", "CPUUtilization", service, "n", label="tasks"),
            right=[
                aws("ECS", "CPUUtilization", service, "avg", label="CPU"),
                aws("ECS", "MemoryUtilization", service, "max", label="memory"),
            ],
        ),
    ]


def _stores(watched: Watched) -> list[cloudwatch.IWidget]:
    five = Duration.minutes(5)
    return [
        graph(
            "Cache: memory, engine's CPU, %; evictions",
            watched.of_cache("DatabaseMemoryUsagePercentage", "max", label="memory"),
            watched.of_cache("EngineCPUUtilization", "max", label="engine's CPU"),
            right=[watched.of_cache("Evictions", "sum")],
        ),
        graph(
            "Database: CPU, %; connections",
            watched.of_database("CPUUtilization", "max", label="CPU"),
            right=[watched.of_database("DatabaseConnections", "max", label="connections")],
        ),
        graph(
            "CPU credits",
            watched.of_database("CPUCreditBalance", "min", period=five, label="database"),
            watched.of_cache("CPUCreditBalance", "min", period=five, label="cache"),
        ),
        graph(
            "Database: free storage, bytes",
            watched.of_database("FreeStorageSpace", "min", period=five, label="free"),
        ),
    ]


def _cost_drivers(name: str, watched: Watched) -> list[cloudwatch.IWidget]:
    """By the hour. docs/cost.md says what each costs."""
    functions = list(watched.functions.values())
    durations = {
        f"ms{n}": each.metric_duration(period=HOUR, statistic="sum") for n, each in enumerate(functions)
    }
    gib = [each.memory_mb / 1024 for each in functions]
    seconds = ", ".join(f"FILL(ms{n}, 0) * {size:g}" for n, size in enumerate(gib))
    stream = {"StreamName": watched.stream.stream_name}
    records = aws("Kinesis", "IncomingRecords", stream, "sum", period=HOUR, label="records")
    size = aws("Kinesis", "IncomingBytes", stream, "sum", period=HOUR, label="bytes")
    return [
        graph(
            "Invocations an hour",
            *[each.metric_invocations(period=HOUR, label=each.node.id) for each in functions],
        ),
        graph(
            "GB-seconds of Lambda an hour",
            cloudwatch.MathExpression(
                expression=f"SUM([{seconds}]) / 1000",
                using_metrics=durations,
                label="GB-seconds",
                period=HOUR,
            ),
        ),
        graph("Records put an hour (a unit each, up to 25 KB); bytes", records, right=[size]),
        graph(
            "Log bytes an hour, by group",
            search(
                f'{{AWS/Logs,LogGroupName}} MetricName="IncomingBytes" {name.replace("-", " ")}',
                "Sum",
                "${PROP('Dim.LogGroupName')}",
                HOUR,
            ),
        ),
    ]


def _dashboard(scope: Construct, name: str, *widgets: cloudwatch.IWidget) -> None:
    dashboard = cloudwatch.Dashboard(
        scope, "Dashboard", dashboard_name=name, default_interval=Duration.hours(3)
    )
    dashboard.add_widgets(*widgets)
