"""Alarms for what a user would otherwise notice first.

None is of one symbol: an alarm may not search for metrics, and one over a Metrics Insights query costs 0.10
dollars for every metric it reads. So the handlers write what alarms watch of all symbols together
(docs/adr/0034-alarms-over-all-symbols.md). Each alarm has its row in docs/runbook.md.
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from cdk.components.monitoring.metrics import MINUTE, Own, aws, of_function, of_machine, shares, total
from cdk.components.monitoring.watched import Watched

FIVE_MINUTES, HOUR = Duration.minutes(5), Duration.hours(1)
# 14.4 times the 0.1 % that may fail: a pace that is an alarm within the hour (Google, The Site Reliability
# Workbook, chapter 5).
FAST_BURN_PERCENT = 98.56
WITHOUT_MODEL_HOURS = 6
# Ages of records (ms) that are too much: predictions are of now; the archive collects for a minute, and has a
# day before Kinesis forgets.
BEHIND_MS = {"predict_stream": 10_000, "archive_ticks": 900_000}
# What nothing repeats, or what a state machine repeats only a few times.
REAL_TIME = ("predict_stream", "archive_ticks", "score_predictions", "audit_predictions")
GIB = 2**30
# RDS enlarges a volume of which less than 10 % are free: below this it did not, or is at its limit.
LEAST_FREE_SHARE = 0.08
CONNECTIONS = 60  # a t4g.micro takes some 80, and the functions need a few
LEAST_CREDITS = 10  # minutes of a whole core

_SILENCE = cloudwatch.TreatMissingData
_OPERATORS = cloudwatch.ComparisonOperator


class Alarms(Construct):
    """All alarms; each notifies `topic` when it is raised and when it is over.

    Those on how full and how busy things are come with `config.capacity_alarms`.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, watched: Watched, own: Own, topic: sns.Topic
    ) -> None:
        super().__init__(scope, construct_id)
        self._watched, self._own, self._topic = watched, own, topic
        self.all: list[cloudwatch.Alarm] = []
        self._predictions()
        self._scores()
        self._records()
        self._ingest()
        self._functions()
        self._signals()
        self._stores()
        if watched.config.capacity_alarms:
            self._latency()
            self._capacity()
            self._credits()

    def _predictions(self) -> None:
        """Silence counts: a missing figure is a missing prediction."""
        self._raise_under(
            "NoPredictions",
            self._own.metric("Predictions", "predict_stream"),
            1,
            "No prediction for three minutes: is the exchange's stream up, does the ingest task run?",
            periods=3,
            silence=_SILENCE.BREACHING,
        )
        self._raise_under(
            "Unavailable",
            self._own.metric("Availability", "score_predictions", "min"),
            FAST_BURN_PERCENT,
            "A symbol is without a fresh model prediction so often that the month's 0.1 % is spent in two "
            "days. Which one: /accuracy of each. Why: fallbacks by reason on the dashboard.",
            periods=5,
            # Before the first model there is no figure, and after the last one none any more: the alarm stays
            # as it is.
            silence=_SILENCE.IGNORE,
        )
        self._raise_over(
            "NoModel",
            self._own.metric("NoModel", "score_predictions", period=HOUR),
            0,
            f"No model has been active for {WITHOUT_MODEL_HOURS} hours: every answer is a fallback. Train "
            "one (make retrain).",
            periods=WITHOUT_MODEL_HOURS,
        )
        self._raise_over(
            "ModelRefused",
            self._own.metric("ModelRefused", "predict_stream"),
            0,
            "models/current.json names a model that cannot serve; the previous one keeps serving. Why is in "
            "the function's log.",
        )
        self._raise_over(
            "SymbolFailures",
            self._sum("SymbolFailures", "predict_stream", "score_predictions"),
            0,
            "Something raised on one symbol, and its records or scores are left out; the others continue. "
            "The log says what; /health names the symbol.",
        )

    def _scores(self) -> None:
        self._raise_over(
            "Drifting",
            self._own.metric("Drifting", "score_predictions", "max"),
            0,
            "A symbol is no longer what the active model was trained on, or the model has lost its skill "
            "there: /health names it. A training is started, unless one was in the last hours.",
        )
        self._raise_over(
            "AuditDifferences",
            self._own.metric("AuditDifferences", "audit_predictions"),
            0,
            "A prediction differs from its recomputation from bronze: the evidence lies in the bucket under "
            "audit/differences/, and `make explain ID=…` shows it.",
        )
        self._raise_under(
            "NotScored",
            of_machine(self._watched.score, "ExecutionsSucceeded"),
            1,
            "Predictions are not scored: read the log of score_predictions. Outcomes wait an hour.",
            periods=10,
            silence=_SILENCE.BREACHING,
        )
        ended = [
            of_machine(self._watched.backfill, name)
            for name in ("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted")
        ]
        self._raise_over(
            "BackfillFailed",
            total(ended, "executions that did not succeed"),
            0,
            "History or a training is incomplete: read the execution's error and events. What failed is "
            "fetched again by the next one.",
        )

    def _records(self) -> None:
        functions = self._watched.functions
        self._raise_over(
            "ConsumersBehind",
            shares(
                [
                    (of_function(functions[name], "IteratorAge", "max"), limit)
                    for name, limit in BEHIND_MS.items()
                ],
                "age of records, % of its limit",
            ),
            100,
            "Records wait too long: predict_stream above 10 s or archive_ticks above 15 minutes is too slow, "
            "or fails and repeats.",
            periods=3,
        )
        given_up = [
            aws("Lambda", name, {"EventSourceMappingUUID": feed.ref}, "sum")
            for feed in self._watched.feeds
            for name in ("OnFailureDestinationDeliveredEventCount", "DroppedEventCount")
        ]
        self._raise_over(
            "BatchesGivenUp",
            total(given_up, "records given up"),
            0,
            "A batch failed after all retries. It is in the bucket under aws/lambda/, unless it was dropped.",
        )
        quarantined = [
            self._own.metric("Quarantined", name)
            for name in ("predict_stream", "archive_ticks", "fetch_history", "load_history")
        ]
        self._raise_over(
            "Quarantined",
            total([*quarantined, self._own.metric("BadFrames", "ingest_ecs")], "records quarantined"),
            0,
            "Records could not be read; they are in the bucket under quarantine/ with the reason.",
        )

    def _ingest(self) -> None:
        ingest, tasks = self._watched.ingest, self._watched.config.ingest.tasks
        self._raise_over(
            "DroppedTicks",
            self._own.metric("DroppedTicks", "ingest_ecs"),
            0,
            "Ingest could not put ticks for so long that its memory was full. The trades are fetched from "
            "REST by the nightly backfill; the quotes are lost.",
        )
        if tasks:
            service = {
                "ClusterName": ingest.cluster.cluster_name,
                "ServiceName": ingest.service.service_name,
            }
            self._raise_under(
                "IngestTasksMissing",
                # Every task reports once a minute. Container Insights has a metric of its own for this, which
                # costs.
                aws("ECS", "CPUUtilization", service, "n"),
                tasks,
                "An ingest task is not running: read the service's events and its log.",
                periods=5,
                silence=_SILENCE.BREACHING,
            )

    def _functions(self) -> None:
        functions = self._watched.functions
        self._raise_over(
            "FunctionErrors",
            total([of_function(functions[name], "Errors") for name in REAL_TIME], "invocations that failed"),
            0,
            "Invocations fail: the dashboard shows of which function; read its log.",
        )
        self._raise_over(
            "FunctionsThrottled",
            # Of the account, whose concurrency all functions share: per function would be twelve metrics.
            aws("Lambda", "Throttles", {}, "sum"),
            0,
            "Lambda refuses invocations: the account's concurrency is used up. A fresh account has 10.",
            periods=3,
        )
        # A throttled request is a 500 of the gateway. Its own 5XXError counts /health's 503 too, which is an
        # answer, and which an open dashboard asks for every few seconds.
        serve = functions["serve_predictions"]
        self._raise_over(
            "ApiServerErrors",
            total(
                [
                    self._own.metric("ServerErrors", "serve_predictions"),
                    of_function(serve, "Errors"),
                    of_function(serve, "Throttles"),
                ],
                "5xx but of /health",
            ),
            0,
            "The API answers 5xx, not counting /health.",
            periods=2,
        )
        lost = [
            aws("Events", "FailedInvocations", {"RuleName": rule.rule_name}, "sum")
            for rule in self._watched.rules
        ]
        dropped = of_function(functions["audit_predictions"], "AsyncEventsDropped")
        self._raise_over(
            "ScheduledWorkLost",
            total([*lost, dropped], "events lost"),
            0,
            "EventBridge could not start scheduled work, or Lambda dropped its event: an audit, the scores "
            "of a minute, or the nightly backfill did not run.",
        )

    def _signals(self) -> None:
        if queue := self._watched.lost_signals:
            self._raise_over(
                "SignalsLost",
                aws("SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": queue.queue_name}, "max"),
                0,
                "A signal reached nobody: it is in the queue (the output LostSignalsQueue) with the reason. "
                "The alarm is over once the queue is empty.",
            )

    def _stores(self) -> None:
        config = self._watched.config
        self._raise_under(
            "DatabaseStorage",
            self._watched.of_database("FreeStorageSpace", "min", period=FIVE_MINUTES),
            round(LEAST_FREE_SHARE * config.database.storage_gb * GIB),
            "The database is nearly full, and did not grow: raise aws.database.storage_limit_gb, or keep "
            "fewer days (tables.keep_days).",
            periods=6,
        )
        self._raise_over(
            "CacheMemory",
            self._watched.of_cache("DatabaseMemoryUsagePercentage", "max"),
            80,
            "The cache is nearly full. Full, it refuses writes, and predictions stop: take a larger "
            "aws.cache.node_type.",
            periods=5,
        )

    def _latency(self) -> None:
        self._raise_over(
            "SlowPredictions",
            self._own.metric("LatencyMs", "predict_stream", "p99"),
            2000,
            "p99 from the instant of a forecast to its answer above two seconds.",
            periods=5,
        )
        self._raise_over(
            "ApiSlow",
            self._watched.api.metric_latency(period=MINUTE, statistic="p99"),
            1000,
            "p99 of the API above one second.",
            periods=5,
        )
        self._raise_over(
            "PutFailures",
            self._own.metric("PutFailures", "ingest_ecs"),
            10,
            "Kinesis refuses or does not answer: ingest tries again, until its memory is full.",
            periods=3,
        )

    def _capacity(self) -> None:
        watched = self._watched
        self._raise_over(
            "DatabaseConnections",
            watched.of_database("DatabaseConnections", "max"),
            CONNECTIONS,
            "The database has nearly as many connections as a small instance takes.",
            periods=5,
        )
        self._raise_over(
            "CacheEngineCpu",
            watched.of_cache("EngineCPUUtilization", "max"),
            80,
            "The cache's one thread is busy: answers and predictions begin to wait for it.",
            periods=5,
        )
        self._raise_over(
            "CacheEvictions",
            watched.of_cache("Evictions", "sum"),
            0,
            "The cache evicts, which its parameters forbid: states and receipts are lost.",
        )

    def _credits(self) -> None:
        """Of instances that have them; a new one begins with none."""
        watched, an_hour = self._watched, 12
        if watched.config.database.instance_type.startswith("t"):
            self._raise_under(
                "DatabaseCredits",
                watched.of_database("CPUCreditBalance", "min", period=FIVE_MINUTES),
                LEAST_CREDITS,
                "The database has used up its CPU credits: it costs more now, or is slow.",
                periods=an_hour,
            )
        if watched.config.cache.node_type.startswith("cache.t"):
            self._raise_under(
                "CacheCredits",
                watched.of_cache("CPUCreditBalance", "min", period=FIVE_MINUTES),
                LEAST_CREDITS,
                "A node of the cache has used up its CPU credits, and will be slow.",
                periods=an_hour,
            )

    def _sum(self, name: str, *services: str) -> cloudwatch.IMetric:
        return total([self._own.metric(name, service) for service in services], name)

    def _raise_over(
        self, name: str, metric: cloudwatch.IMetric, limit: float, meaning: str, periods: int = 1
    ) -> None:
        operator = _OPERATORS.GREATER_THAN_THRESHOLD
        self._add(name, metric, limit, meaning, periods, operator, _SILENCE.NOT_BREACHING)

    def _raise_under(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        limit: float,
        meaning: str,
        periods: int,
        silence: cloudwatch.TreatMissingData = _SILENCE.NOT_BREACHING,
    ) -> None:
        self._add(name, metric, limit, meaning, periods, _OPERATORS.LESS_THAN_THRESHOLD, silence)

    def _add(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        limit: float,
        meaning: str,
        periods: int,
        operator: cloudwatch.ComparisonOperator,
        silence: cloudwatch.TreatMissingData,
    ) -> None:
        """So many periods of the metric in a row beyond `limit` raise the alarm."""
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=limit,
            comparison_operator=operator,
            evaluation_periods=periods,
            treat_missing_data=silence,
            alarm_description=meaning,
        )
        action = actions.SnsAction(self._topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)
        if silence == _SILENCE.BREACHING:
            # Or it would be raised while the first deployment is still starting what it watches.
            alarm.node.add_dependency(self._watched.ingest.service, *self._watched.feeds)
        self.all.append(alarm)
