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


def total(metrics: Sequence[cloudwatch.Metric], label: str) -> cloudwatch.MathExpression:
    """The sum of metrics, each of which may be missing: neither services nor our own functions write zeros of
    what seldom happens."""
    return _over("SUM", [(each, "FILL({}, 0)") for each in metrics], label)


def highest(metrics: Sequence[cloudwatch.Metric], label: str) -> cloudwatch.MathExpression:
    return _over("MAX", [(each, "{}") for each in metrics], label)


def lowest(metrics: Sequence[cloudwatch.Metric], label: str) -> cloudwatch.MathExpression:
    return _over("MIN", [(each, "{}") for each in metrics], label)


def shares(metrics: Sequence[tuple[cloudwatch.Metric, float]], label: str) -> cloudwatch.MathExpression:
    """The highest of metrics, in percent of each one's own limit."""
    terms = [(each, f"FILL({{}}, 0) / {limit / 100:g}") for each, limit in metrics]
    return _over("MAX", terms, label)


def _over(
    function: str, terms: Sequence[tuple[cloudwatch.Metric, str]], label: str
) -> cloudwatch.MathExpression:
    """`function` of the terms, in each of which `{}` is the metric."""
    # A name means the same everywhere in a graph.
    names = [f"{function.lower()}_{each.metric_name.lower()}_{n}" for n, (each, _) in enumerate(terms)]
    inner = ", ".join(term.format(name) for name, (_, term) in zip(names, terms, strict=True))
    return cloudwatch.MathExpression(
        expression=f"{function}([{inner}])",
        using_metrics={name: each for name, (each, _) in zip(names, terms, strict=True)},
        label=label,
        period=terms[0][0].period,
    )
