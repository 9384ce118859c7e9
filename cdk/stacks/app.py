"""The application: functions, their places on the stream, the API; on AWS the ingest task and the alarms."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Acknowledgment, CfnOutput, Duration, Stack, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from cdk.components.database import HistoryDatabase
from cdk.components.function import Function
from cdk.components.hot_store import HotStore
from cdk.components.ingest import Ingest
from cdk.components.layers import Layers
from cdk.components.migration import Migration
from cdk.components.monitoring import Monitoring
from cdk.components.monitoring.watched import Watched
from cdk.components.prediction_api import STAGE, PredictionApi
from cdk.components.signals import LostSignals, SignalRoutes
from cdk.components.stream_consumer import StreamConsumer
from cdk.components.workflow import Workflow
from cdk.config import AwsConfig, Environment
from cdk.stacks.data import AwsDataStack, DataStack
from cdk.variables import variables
from tickcast.adapters import settings
from tickcast.adapters.lake import tally_archive
from tickcast.adapters.lake.receipt_archive import Folder
from tickcast.adapters.registry.served_symbols import SERVED
from tickcast.serving.signals import OF_PREDICTIONS, PREFIX

RECEIPTS = [f"{folder.prefix}*" for folder in Folder]
TALLIES = f"{tally_archive.PREFIX}*"


class AppStack(Stack):
    """The functions, the state machines, the API: the same on a laptop and on AWS except for what is
    passed in."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        data: DataStack,
        hot_store: HotStore,
        database: HistoryDatabase,
        layers_folder: Path,
        endpoint_url: str | None = None,
        vpc: ec2.IVpc | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env={"region": environment.region},
            termination_protection=environment.keep_data,
            description="tickcast: the application",
        )
        self._config, self._vpc = environment, vpc
        self._lake, self._stream = data.lake, data.stream
        self._hot_store, self._database = hot_store, database
        self._layers = Layers(self, "Layers", folder=layers_folder, environment_name=environment.name)
        self._variables = variables(
            environment, bucket=data.lake.bucket.bucket_name, stream=data.stream.stream_name
        )
        self.functions: list[Function] = []

        self._real_time()
        self._models()
        self._serving()
        self._api_url = self._address(endpoint_url)
        self._scores()
        self._history()
        self.signals = self._signals() if environment.signals.rules else None
        self._schedules()
        self._outputs()
        if not environment.tracing:
            self._acknowledge_no_traces()

    def _function(
        self,
        name: str,
        reads: type[settings.Settings],
        description: str,
        once_within: Duration | None = None,
        **own: str,
    ) -> Function:
        """`own`: variables whose value is not the configuration's."""
        function = Function(
            self,
            name,
            description=description,
            settings=reads,
            environment=self._config,
            layers=self._layers,
            variables=self._variables | own,
            vpc=self._vpc,
            once_within=once_within,
        )
        self.functions.append(function)
        return function

    def _real_time(self) -> None:
        self.predict_stream = self._function(
            "predict_stream",
            settings.PredictStreamSettings,
            "Kinesis to bars, features and predictions in the hot store",
        )
        self._stream.grant_read(self.predict_stream)
        self._hot_store.grant(self.predict_stream, "writer")
        self._lake.grant_read(self.predict_stream, "models/*", "schemas/*", SERVED)
        self._lake.grant_write(self.predict_stream, "quarantine/*")
        self._lake.grant_failed_batches(self.predict_stream)
        self.prediction_feed = StreamConsumer(
            self,
            "PredictionFeed",
            function=self.predict_stream,
            stream=self._stream,
            lake=self._lake,
            batch_size=500,
            fan_out=self._config.stream.fan_out,
            parallelism=self._config.stream.parallelism,
            # A tick of a minute ago predicts nothing: give up early, and continue with newer ones.
            max_age=Duration.seconds(60),
        )

        self.archive_ticks = self._function(
            "archive_ticks", settings.ArchiveTicksSettings, "Kinesis to Avro files in the lake's bronze"
        )
        self._stream.grant_read(self.archive_ticks)
        self._lake.grant_read(self.archive_ticks, "schemas/*")
        self._lake.grant_write(self.archive_ticks, "bronze/*", "quarantine/*")
        self._lake.grant_failed_batches(self.archive_ticks)
        self.archive_feed = StreamConsumer(
            self,
            "ArchiveFeed",
            function=self.archive_ticks,
            stream=self._stream,
            lake=self._lake,
            # A file for each symbol and event: the more an event holds, the fewer requests S3 is paid for.
            batch_size=10_000,
            window=Duration.seconds(60),
        )

    def _models(self) -> None:
        sizes = self._config.functions
        self.train_model = self._function(
            "train_model",
            settings.TrainModelSettings,
            "Rows of history to a trained model with its card",
            DATABASE_STATEMENT_TIMEOUT_S=str(sizes.train_model.timeout_s),
        )
        self._database.grant(self.train_model, "reader")
        self._lake.grant_read(self.train_model, "models/*", SERVED)
        self._lake.grant_write(self.train_model, "models/*")

        self.evaluate_model = self._function(
            "evaluate_model",
            settings.EvaluateModelSettings,
            "Challengers against the champion, on rows that none was trained on",
            DATABASE_STATEMENT_TIMEOUT_S=str(sizes.evaluate_model.timeout_s),
        )
        self._database.grant(self.evaluate_model, "reader")
        self._lake.grant_read(self.evaluate_model, "models/*", SERVED)
        self._lake.grant_write(self.evaluate_model, "models/*/card.json", "models/*/card.md")

        self.promote_model = self._function(
            "promote_model", settings.PromoteModelSettings, "A verdict to the pointer to the active model"
        )
        self._lake.grant_read(self.promote_model, "models/*")
        self._lake.grant_write(self.promote_model, "models/current.json")

    def _serving(self) -> None:
        self.serve_predictions = self._function(
            "serve_predictions", settings.ServePredictionsSettings, "The API's responses from the hot store"
        )
        self._hot_store.grant(self.serve_predictions, "reader")
        self._lake.grant_read(self.serve_predictions, "models/*", "condition/*", *RECEIPTS, TALLIES)
        self.api = PredictionApi(self, "Api", environment=self._config, function=self.serve_predictions)

    def _scores(self) -> None:
        self.score_predictions = self._function(
            "score_predictions",
            settings.ScorePredictionsSettings,
            "Receipts to the lake, outcomes to PostgreSQL, accuracy to the hot store, drift to a training",
        )
        self._hot_store.grant(self.score_predictions, "scorer")
        self._database.grant(self.score_predictions, "scorer")
        self._lake.grant_read(self.score_predictions, "models/*", *RECEIPTS, TALLIES)
        self._lake.grant_write(self.score_predictions, *RECEIPTS, TALLIES)
        self.report_condition = self._function(
            "report_condition",
            settings.ReportConditionSettings,
            "The condition of the data by day, to the lake",
        )
        self._hot_store.grant(self.report_condition, "planner")
        self._database.grant(self.report_condition, "reader")
        self._lake.grant_read(self.report_condition, "condition/*", SERVED)
        self._lake.grant_write(self.report_condition, "condition/*")
        self.score = Workflow(
            self,
            "Score",
            environment=self._config,
            name="score",
            definition="score",
            starts=["backfill"],
            functions={
                "ScorePredictions": self.score_predictions,
                "ReportCondition": self.report_condition,
            },
            is_express=True,
        )
        self.score.start_on(
            events.Schedule.rate(Duration.minutes(1)),
            description="Time to score predictions",
            # The next minute takes in what this one did not; within an execution the state machine repeats.
            retry_attempts=0,
        )

        self.audit_predictions = self._function(
            "audit_predictions",
            settings.AuditPredictionsSettings,
            "A sample of the predictions, recomputed from bronze",
            # The only function that is invoked asynchronously: by default both the rule, which delivers, and
            # Lambda, which runs it, would repeat a round; and rounds that waited for an hour without free
            # executions would all come at its end.
            once_within=Duration.minutes(self._config.audit.every_minutes),
        )
        self._hot_store.grant(self.audit_predictions, "auditor")
        self._database.grant(self.audit_predictions, "reader")
        self._lake.grant_read(self.audit_predictions, "bronze/*", "models/*")
        self._lake.grant_write(self.audit_predictions, "audit/differences/*")
        events.Rule(
            self,
            "AuditTime",
            description="Time for an audit",
            schedule=events.Schedule.rate(Duration.minutes(self._config.audit.every_minutes)),
            # A round that fails is an alarm already, and the next one is a few minutes off.
            targets=[targets.LambdaFunction(self.audit_predictions, retry_attempts=0)],
        )

    def _history(self) -> None:
        self.plan_backfill = self._function(
            "plan_backfill", settings.PlanBackfillSettings, "Which windows of history are to be fetched"
        )
        self._lake.grant_read(self.plan_backfill, SERVED)
        self._hot_store.grant(self.plan_backfill, "planner")

        self.fetch_history = self._function(
            "fetch_history",
            settings.FetchHistorySettings,
            "A window of history from the exchange's REST to the lake's bronze",
        )
        self._lake.grant_read(self.fetch_history, "bronze/source=rest/*")
        self._lake.grant_write(self.fetch_history, "bronze/source=rest/*", "quarantine/fetch_history/*")

        self.load_history = self._function(
            "load_history",
            settings.LoadHistorySettings,
            "Bronze to PostgreSQL: trades, bars, labelled feature rows",
        )
        self._database.grant(self.load_history, "loader")
        self._lake.grant_read(self.load_history, "bronze/*")
        self._lake.grant_write(self.load_history, "quarantine/*")

        self.list_stale_hours = self._function(
            "list_stale_hours",
            settings.ListStaleHoursSettings,
            "Which hours of history have to be derived from the lake",
        )
        self._database.grant(self.list_stale_hours, "reader")
        self._lake.grant_list(self.list_stale_hours)

        self.mark_repaired = self._function(
            "mark_repaired",
            settings.MarkRepairedSettings,
            "What became of a gap, to PostgreSQL and the hot store",
        )
        self._database.grant(self.mark_repaired, "repairer")
        self._lake.grant_read(self.mark_repaired, "bronze/source=rest/*")
        self._hot_store.grant(self.mark_repaired, "repairer")

        self.backfill = Workflow(
            self,
            "Backfill",
            environment=self._config,
            name="backfill",
            definition="backfill_and_retrain",
            starts=["backfill"],
            functions={
                "PlanBackfill": self.plan_backfill,
                "FetchHistory": self.fetch_history,
                "ListStaleHours": self.list_stale_hours,
                "LoadHistory": self.load_history,
                "MarkRepaired": self.mark_repaired,
                "TrainModel": self.train_model,
                "EvaluateModel": self.evaluate_model,
                "PromoteModel": self.promote_model,
            },
        )
        self._backfill_schedule()

    def _backfill_schedule(self) -> None:
        history = self._config.history
        if not history.schedule:
            return
        training = {"train": {"days": history.train_days}} if history.train_days else {}
        self.backfill.start_on(
            events.Schedule.expression(history.schedule),
            description=f"The last {history.days} days of history, what the gap ledger misses, training",
            # A day is long: what cannot be started is tried again, for an hour. What fails once it was
            # started is repeated by the state machine alone.
            retry_attempts=20,
            max_event_age=Duration.hours(1),
            request={"days": history.days, "repair": True, **training},
        )

    def _schedules(self) -> None:
        """What the rules have in common: each is made after the policy of the role with which it starts a
        state machine."""
        for rule in self.node.children:
            if not isinstance(rule, events.Rule):
                continue
            for workflow in (self.score, self.backfill):
                if role := workflow.machine.node.try_find_child("EventsRole"):
                    rule.node.add_dependency(role)
            Validations.of(rule).acknowledge(
                Acknowledgment(
                    id="Serverless-EventBusDLQ",
                    reason="What could not be started is taken over by the next start of the schedule: there "
                    "is nothing in its event to keep.",
                )
            )

    def _acknowledge_no_traces(self) -> None:
        for rule in ("LambdaTracing", "APIGWXrayEnabled", "StepFunctionStateMachineXray"):
            Validations.of(self).acknowledge(
                Acknowledgment(
                    id=f"Serverless-{rule}",
                    reason="A trace of what runs every second costs more than the functions; `tracing` of "
                    "the configuration switches it on.",
                )
            )

    def _address(self, endpoint_url: str | None) -> str:
        """The API's. The emulator serves it under its own address, not under the name AWS would give it."""
        if endpoint_url:
            return f"{endpoint_url}/restapis/{self.api.api.rest_api_id}/{STAGE}/_user_request_/"
        return self.api.api.url

    def _signals(self) -> SignalRoutes:
        """Only where there are rules: whoever matches them writes to the lake, and the bucket's event invokes
        the function that sends, outside the VPC."""
        signals = self._config.signals
        lost = LostSignals(self, "LostSignals")
        send_signals = self._function(
            "send_signals",
            settings.SendSignalsSettings,
            "Signals from the lake and alarms to webhooks, Slack and Telegram",
            API_URL=self._api_url,
            DEAD_LETTER_QUEUE_URL=lost.queue_url,
        )
        if signals.of(*OF_PREDICTIONS):
            self._lake.grant_write(self.predict_stream, f"{PREFIX}*")
        if signals.of("drift"):
            self._lake.grant_write(self.score_predictions, f"{PREFIX}*")
        CfnOutput(self, "SendSignalsFunction", value=send_signals.function_name)
        CfnOutput(self, "LostSignalsQueue", value=lost.queue_url)
        return SignalRoutes(
            self,
            "Signals",
            environment=self._config,
            function=send_signals,
            lake=self._lake,
            lost=lost,
        )

    def _outputs(self) -> None:
        CfnOutput(self, "ApiUrl", value=self._api_url)
        if self.api.key:
            CfnOutput(self, "ApiKeyId", value=self.api.key.key_id)
        if self.api.callers:
            CfnOutput(self, "ApiCallPolicy", value=self.api.callers.managed_policy_arn)
        # What `make symbols` compares with and asks.
        CfnOutput(self, "Symbols", value=self._variables["SYMBOLS"])
        CfnOutput(self, "RestUrl", value=self._variables["REST_URL"])
        CfnOutput(self, "StreamName", value=self._stream.stream_name)
        CfnOutput(self, "BucketName", value=self._lake.bucket.bucket_name)
        CfnOutput(self, "LoadHistoryFunction", value=self.load_history.function_name)
        CfnOutput(self, "TrainModelFunction", value=self.train_model.function_name)
        CfnOutput(self, "PredictStreamFunction", value=self.predict_stream.function_name)
        CfnOutput(self, "AuditPredictionsFunction", value=self.audit_predictions.function_name)
        CfnOutput(self, "ReportConditionFunction", value=self.report_condition.function_name)
        CfnOutput(self, "PlanBackfillFunction", value=self.plan_backfill.function_name)
        CfnOutput(self, "BackfillMachine", value=self.backfill.machine.state_machine_arn)
        CfnOutput(self, "ScoreMachine", value=self.score.machine.state_machine_arn)


class AwsAppStack(AppStack):
    """On AWS also the ingest task, the migration task, the alarms and the dashboard."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        config: AwsConfig,
        data: AwsDataStack,
        vpc: ec2.IVpc,
        layers_folder: Path,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            data=data,
            hot_store=data.cache,
            database=data.database,
            layers_folder=layers_folder,
            vpc=vpc,
        )
        self.ingest = Ingest(
            self,
            "Ingest",
            environment=environment,
            config=config,
            vpc=vpc,
            variables=self._variables,
            exchange_key=data.exchange_key,
        )
        data.stream.grant_write(self.ingest.task.task_role)
        data.lake.grant_read(self.ingest.task.task_role, SERVED)
        data.lake.grant_write(self.ingest.task.task_role, "schemas/*")
        data.lake.grant_write(self.ingest.task.task_role, "quarantine/ingest_ecs/*")

        self.migration = Migration(
            self,
            "Migration",
            environment=environment,
            cluster=self.ingest.cluster,
            architecture=config.ingest.architecture,
            vpc=vpc,
            database=data.database,
        )
        self._operations_outputs()
        self._monitoring(config, data)

    def _operations_outputs(self) -> None:
        """What `make deploy` and `make doctor` work with (`operations.deployment`)."""
        CfnOutput(self, "ClusterArn", value=self.ingest.cluster.cluster_arn)
        CfnOutput(self, "IngestService", value=self.ingest.service.service_name)
        CfnOutput(self, "MigrateCommand", value=self.migration.command)
        CfnOutput(self, "MigrationTask", value=self.migration.task_definition_arn)
        CfnOutput(self, "MigrationSubnets", value=self.migration.subnets)
        CfnOutput(self, "MigrationSecurityGroup", value=self.migration.security_group_id)
        CfnOutput(self, "MigrationLogGroup", value=self.migration.log_group_name)

    def _monitoring(self, config: AwsConfig, data: AwsDataStack) -> None:
        monitoring = Monitoring(
            self,
            "Monitoring",
            environment=self._config,
            watched=Watched(
                config=config,
                functions={function.name: function for function in self.functions},
                feeds=[self.prediction_feed, self.archive_feed],
                stream=data.stream,
                ingest=self.ingest,
                api=self.api.api,
                score=self.score.machine,
                backfill=self.backfill.machine,
                cache=data.cache,
                database=data.database,
                lost_signals=self.signals.lost if self.signals else None,
            ),
            migration=self.migration,
        )
        if self.signals:
            self.signals.add_alarms(self._config.signals.of("alarm"), monitoring.alarms.all)
        CfnOutput(self, "AlarmTopic", value=monitoring.topic.topic_arn)
