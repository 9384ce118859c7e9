"""Alarms for what a user would otherwise notice first, and the one dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from aws_cdk import Duration, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_stepfunctions as stepfunctions
from constructs import Construct

from cdk.components.ingest import Ingest
from cdk.components.stream_consumer import StreamConsumer
from cdk.config import Environment

MINUTE = Duration.minutes(1)
# 14.4 times the 0.1 % that may fail: a pace that is an alarm within the hour (Google, The Site Reliability
# Workbook, chapter 5).
FAST_BURN_PERCENT = 98.56
FALLBACK_REASONS = ("no_quotes", "warming_up", "no_model", "model_refused", "outside_support")


class Monitoring(Construct):
    """One topic for all alarms, one dashboard of the metrics that they watch.

    The metrics in the environment's own namespace, with the dimension `service`, are the handlers'; all
    others are AWS's own. Each `watch_*` adds a row to the dashboard and the alarms of that row.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: Environment, email: str | None
    ) -> None:
        super().__init__(scope, construct_id)
        self._namespace = environment.metrics_namespace
        self.topic = sns.Topic(self, "Topic", display_name=f"tickcast {environment.name}", enforce_ssl=True)
        self.topic.add_to_resource_policy(
            # The policy that enforces TLS replaces the topic's default one, by which alarms may publish.
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        if email:
            self.topic.add_subscription(subscriptions.EmailSubscription(email))
        self._dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=f"tickcast-{environment.name}",
            default_interval=Duration.hours(3),
        )

    def watch_functions(self, functions: Sequence[lambda_.Function]) -> None:
        """Any invocation that fails: handlers answer for bad input themselves, so an error is a fault."""
        for function in functions:
            self._alarm(
                f"{function.node.id}Errors",
                function.metric_errors(period=MINUTE),
                "Invocations fail: read the function's log.",
            )
        self._row(
            "Errors of functions",
            *[function.metric_errors(period=MINUTE, label=function.node.id) for function in functions],
        )

    def watch_consumer(
        self, function: lambda_.Function, consumer: StreamConsumer, *, behind: Duration, service: str
    ) -> None:
        """A consumer that falls behind, gives up on batches, or finds records it cannot read."""
        name = function.node.id
        age = function.metric("IteratorAge", period=MINUTE, statistic="max")
        given_up = cloudwatch.Metric(
            namespace="AWS/Lambda",
            metric_name="OnFailureDestinationDeliveredEventCount",
            dimensions_map={"EventSourceMappingUUID": consumer.ref},
            statistic="sum",
            period=MINUTE,
        )
        quarantined = self._own("Quarantined", service)
        self._alarm(
            f"{name}Behind",
            age,
            "Records wait too long: the consumer is too slow, or fails and repeats.",
            over=behind.to_milliseconds(),
            minutes=3,
        )
        self._alarm(
            f"{name}GaveUp", given_up, "A batch failed to the end and lies in the bucket under aws/lambda/."
        )
        self._alarm(
            f"{name}Quarantined",
            quarantined,
            "Records could not be read; they lie in the bucket under quarantine/ with the reason.",
        )
        self._row(f"{name}: how far behind, what was given up", age, given_up, quarantined)

    def watch_predictions(self, service: str) -> None:
        """No predictions, late ones, or a model that must not serve. Silence counts: a missing figure is a
        missing prediction."""
        predictions = self._own("Predictions", service)
        latency = self._own("LatencyMs", service, statistic="p99")
        inference = self._own("InferenceMs", service, statistic="p99")
        refused = self._own("ModelRefused", service)
        challenger_refused = self._own("ChallengerRefused", service)
        missing_trades = self._own("MissingTrades", service, statistic="max")
        self._alarm(
            "NoPredictions",
            predictions,
            "No prediction for three minutes: is the exchange's stream up, does the ingest task run?",
            under=1,
            minutes=3,
            silence=cloudwatch.TreatMissingData.BREACHING,
        )
        self._alarm(
            "SlowPredictions",
            latency,
            "p99 from the instant of a forecast to its answer above two seconds.",
            over=2000,
            minutes=5,
        )
        self._alarm(
            "ModelRefused",
            refused,
            "models/current.json names a model that cannot serve; the previous one keeps serving. "
            "Why is in the function's log.",
        )
        failures, started_over = self._own("SymbolFailures", service), self._own("StartedOver", service)
        full, went_back = self._own("StoreFull", service), self._own("StoreWentBack", service)
        self._alarm(
            "SymbolFailures",
            failures,
            "Something raised on one symbol, and its records are left out; the others continue. The "
            "function's log and quarantine/predict_stream/ say what; /health names the symbol.",
        )
        self._alarm(
            "StoreFull",
            full,
            "The cache is full and refuses writes: predictions stop, nothing is lost. Take a "
            "larger aws.cache.node_type.",
        )
        self._row("One symbol's failures, states set aside", failures, started_over)
        self._row("The cache: full, went back in time", full, went_back)
        self._row(
            "Predictions a minute, outcomes given up", predictions, self._own("UnresolvedOutcomes", service)
        )
        self._row(
            "Fallbacks a minute, by reason",
            *[self._own(f"Fallbacks:{reason}", service) for reason in FALLBACK_REASONS],
        )
        self._row(
            "From the instant of a forecast to its answer, and the model alone, p99", latency, inference
        )
        self._row("Models refused", refused, challenger_refused)
        self._row("Trades missing in the ledger", missing_trades)

    def watch_audit(self, service: str) -> None:
        """Predictions that differ from their recomputation from bronze."""
        audited = self._own("Audited", service)
        differences = self._own("AuditDifferences", service)
        self._alarm(
            "AuditDifferences",
            differences,
            "A prediction differs from its recomputation from bronze: the evidence lies in the "
            "bucket under audit/differences/, and `make explain ID=…` shows it.",
        )
        self._row(
            "Predictions audited, different, inconclusive",
            audited,
            differences,
            self._own("AuditPending", service),
        )

    def watch_scores(
        self, service: str, *, symbols: Sequence[str], machine: stepfunctions.StateMachine
    ) -> None:
        """How good predictions are by symbol; drift, low availability, and scoring that stopped."""
        for symbol in symbols:
            scored, drifting, available, skill, against_line, direction, coverage, calibration, fallbacks = (
                self._own(name, service, statistic="max", symbol=symbol)
                for name in (
                    *("Scored", "Drifting", "Availability", "LiveSkill", "LiveSkillVsLinear"),
                    *("Direction", "Coverage", "CalibrationError", "FallbackShare"),
                )
            )
            self._alarm(
                f"{symbol}Drifting",
                drifting,
                f"{symbol} is no longer what the active model was trained on, or it has lost its "
                "skill there. A training is started, unless one was in the last hours.",
            )
            self._alarm(
                f"{symbol}Unavailable",
                available,
                f"At the last hour's pace {symbol} is without a fresh model prediction for longer "
                "in two days than 99.9 % allow in a month: /accuracy counts fallbacks, /health says why.",
                under=FAST_BURN_PERCENT,
                minutes=5,
            )
            self._row(f"{symbol}: live skill of the last hour", skill, against_line)
            self._row(f"{symbol}: direction, coverage, %", direction, coverage)
            self._row(f"{symbol}: answered by a model, by fallbacks, %", available, fallbacks)
            self._row(f"{symbol}: scored, drifting, calibration error", scored, drifting, calibration)
        runs = self._own("Scored", service, statistic="n", symbol=symbols[0])
        self._alarm(
            "NotScored",
            runs,
            "Predictions are not scored: read the log of score_predictions. Outcomes wait an hour.",
            under=1,
            minutes=10,
            silence=cloudwatch.TreatMissingData.BREACHING,
        )
        self._row("Scoring: runs, failures", runs, machine.metric_failed(period=MINUTE, statistic="sum"))

    def watch_api(self, api: apigateway.RestApi) -> None:
        """Responses that are errors of ours, or slow."""
        errors = api.metric_server_error(period=MINUTE)
        latency = api.metric_latency(period=MINUTE, statistic="p99")
        self._alarm("ApiServerErrors", errors, "The API answers 5xx.", minutes=2)
        self._alarm("ApiSlow", latency, "p99 of the API above one second.", over=1000, minutes=5)
        refused = api.metric_client_error(period=MINUTE)
        self._row("API: answers by kind", api.metric_count(period=MINUTE), refused, errors)
        self._row("API: latency, p99", latency)

    def watch_backfill(self, machine: stepfunctions.StateMachine) -> None:
        """Executions that end incomplete; errors of functions are retried within them."""
        failed = machine.metric_failed(period=MINUTE, statistic="sum")
        timed_out = machine.metric_timed_out(period=MINUTE, statistic="sum")
        for what, metric in (("Failed", failed), ("TimedOut", timed_out)):
            self._alarm(
                f"Backfill{what}",
                metric,
                "A backfill is incomplete: read the execution's error and events; what failed is "
                "fetched again by the next one.",
            )
        limited = self._own("RateLimited", "fetch_history")
        used_weight = self._own("UsedWeight", "fetch_history", statistic="max")
        self._row("Backfill: failures, waits for the exchange", failed, timed_out, limited)
        self._row("Backfill: the exchange's weight in use", used_weight)

    def watch_ingest(self, ingest: Ingest, *, tasks: int) -> None:
        """Fewer tasks than there should be."""
        # Each running task reports its CPU once a minute, so that samples are tasks ("Amazon ECS service
        # utilization metrics" in the ECS Developer Guide). A count of its own takes Container Insights.
        running = ingest.service.metric_cpu_utilization(
            period=MINUTE, statistic="SampleCount", label="running tasks"
        )
        self._alarm(
            "IngestTasksMissing",
            running,
            "An ingest task is not running: read the service's events and its log.",
            under=tasks,
            minutes=5,
            silence=cloudwatch.TreatMissingData.BREACHING,
        )
        self._row("Ingest tasks", running, ingest.service.metric_cpu_utilization(period=MINUTE))

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.IMetric,
        meaning: str,
        *,
        minutes: int = 1,
        over: float = 0,
        under: float | None = None,
        silence: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        """`minutes` in a row above `over`, or, if it is given, below `under` raise the alarm."""
        operators = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            metric=metric,
            threshold=over if under is None else under,
            comparison_operator=operators.GREATER_THAN_THRESHOLD
            if under is None
            else operators.LESS_THAN_THRESHOLD,
            evaluation_periods=minutes,
            treat_missing_data=silence,
            alarm_description=meaning,
        )
        action = actions.SnsAction(self.topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)

    def _own(
        self, metric_name: str, service: str, *, statistic: str = "sum", symbol: str | None = None
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name=metric_name,
            # As `score_predictions` names it: a dimension is ASCII alone (`market.symbols.ascii_name`).
            dimensions_map={"service": service} | ({"symbol": quote(symbol, safe="")} if symbol else {}),
            statistic=statistic,
            period=MINUTE,
        )

    def _row(self, title: str, *metrics: cloudwatch.IMetric) -> None:
        self._dashboard.add_widgets(
            cloudwatch.GraphWidget(title=title, left=list(metrics), width=24, height=5)
        )
