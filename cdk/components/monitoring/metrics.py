"""The metrics that alarms and dashboards read.

Those of AWS's services cost nothing. Our own, in the environment's namespace, cost 0.30 dollars a month each
and are written by the handlers and by the ingest task, with the dimension `service`;
tests/infra/test_monitoring.py compares both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as stepfunctions

MINUTE = Duration.minutes(1)


@dataclass(frozen=True)
class Own:
    """Our own metrics of an environment."""

    namespace: str

    def metric(
        self, name: str, service: str, statistic: str = "sum", *, period: Duration = MINUTE, label: str = ""
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self.namespace,
            metric_name=name,
            dimensions_map={"service": service},
            statistic=statistic,
            period=period,
            label=label or None,
        )

    def by(
        self, dimension: str, name: str, service: str, statistic: str = "Average"
    ) -> cloudwatch.MathExpression:
        """A line for each value of `dimension` that there is by then: for dashboards alone, for an alarm may
        not search."""
        schema = f'{{"{self.namespace}",{dimension},service}}'
        return search(
            f'{schema} MetricName="{name}" service="{service}"', statistic, f"${{PROP('Dim.{dimension}')}}"
        )


def search(words: str, statistic: str, label: str, period: Duration = MINUTE) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{words}', '{statistic}', {period.to_seconds():.0f})",
        using_metrics={},
        label=label,
        period=period,
    )


def aws(
    namespace: str,
    name: str,
    dimensions: dict[str, str],
    statistic: str,
    *,
    period: Duration = MINUTE,
    label: str = "",
) -> cloudwatch.Metric:
    """A metric of a service of AWS."""
    return cloudwatch.Metric(
        namespace=f"AWS/{namespace}",
        metric_name=name,
        dimensions_map=dimensions,
        statistic=statistic,
        period=period,
        label=label or None,
    )


def of_function(function: lambda_.Function, name: str, statistic: str = "sum") -> cloudwatch.Metric:
    return function.metric(name, period=MINUTE, statistic=statistic, label=function.node.id)


def of_machine(machine: stepfunctions.StateMachine, name: str) -> cloudwatch.Metric:
    return machine.metric(name, period=MINUTE, statistic="sum")


def total(metrics: Sequence[cloudwatch.IMetric], label: str) -> cloudwatch.MathExpression:
    """The sum of metrics, each of which may be missing: neither services nor our own functions write zeros of
    what seldom happens."""
    return _expression("SUM", [f"FILL({{m{n}}}, 0)" for n in range(len(metrics))], metrics, label)


def highest(metrics: Sequence[cloudwatch.IMetric], label: str) -> cloudwatch.MathExpression:
    return _expression("MAX", [f"{{m{n}}}" for n in range(len(metrics))], metrics, label)


def lowest(metrics: Sequence[cloudwatch.IMetric], label: str) -> cloudwatch.MathExpression:
    return _expression("MIN", [f"{{m{n}}}" for n in range(len(metrics))], metrics, label)


def shares(metrics: Sequence[tuple[cloudwatch.IMetric, float]], label: str) -> cloudwatch.MathExpression:
    """The highest of metrics, in percent of each one's own limit."""
    terms = [f"FILL({{m{n}}}, 0) / {limit / 100:g}" for n, (_, limit) in enumerate(metrics)]
    return _expression("MAX", terms, [metric for metric, _ in metrics], label)


def _expression(
    function: str, terms: Sequence[str], metrics: Sequence[cloudwatch.IMetric], label: str
) -> cloudwatch.MathExpression:
    names = {f"m{n}": f"{function.lower()}{n}" for n in range(len(metrics))}
    return cloudwatch.MathExpression(
        expression=f"{function}([{', '.join(terms).format(**names)}])",
        using_metrics={names[f"m{n}"]: metric for n, metric in enumerate(metrics)},
        label=label,
        period=metrics[0].period if isinstance(metrics[0], cloudwatch.Metric) else MINUTE,
    )
