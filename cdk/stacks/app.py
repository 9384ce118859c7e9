"""The application: functions, their places on the stream, the API; on AWS the ingest task and the alarms."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import CfnOutput, Duration, Stack
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
from cdk.components.prediction_api import STAGE, PredictionApi
from cdk.components.stream_consumer import StreamConsumer
from cdk.components.workflow import Workflow
from cdk.config import Aws, Environment
from cdk.stacks.data import AwsDataStack, DataStack


class AppStack(Stack):
    """The functions, the state machines, the API: alike on a laptop and on AWS but for what is
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
        lake, stream = data.lake, data.stream
        sizes = environment.functions
        layers = Layers(self, "Layers", folder=layers_folder, environment_name=environment.name)
        variables = {
            "BUCKET": lake.bucket.bucket_name,
            "SYMBOLS": ",".join(environment.symbols),
            "LATENESS_MS": str(environment.prediction.lateness_ms),
            "STALE_AFTER_S": str(environment.prediction.stale_after_s),
            "PRIMARY_HORIZON_S": str(environment.prediction.primary_horizon_s),
            "FEATURES_TTL_S": str(environment.prediction.features_ttl_s),
            "FEE_BP": str(environment.prediction.fee_bp),
            "MIN_CONFIDENCE": str(environment.prediction.min_confidence),
        }

        self.predict_stream = Function(
            self,
            "PredictStream",
            name="predict_stream",
            description="Kinesis to bars, features and predictions in the hot store",
            environment=environment,
            sizing=sizes.predict_stream,
            layers=layers.of("predict_stream"),
            variables=variables,
            vpc=vpc,
        )
        stream.grant_read(self.predict_stream)
        hot_store.grant_write(self.predict_stream)
        lake.grant_read(self.predict_stream, "models/*", "schemas/*")
        lake.grant_write(self.predict_stream, "quarantine/*")
        lake.grant_failed_batches(self.predict_stream)
        self.prediction_feed = StreamConsumer(
            self,
            "PredictionFeed",
            function=self.predict_stream,
            stream=stream,
            lake=lake,
            batch_size=500,
            # A tick of a minute ago predicts nothing: give up early, and go on with what is fresh.
            max_age=Duration.seconds(60),
        )

        self.archive_ticks = Function(
            self,
            "ArchiveTicks",
            name="archive_ticks",
            description="Kinesis to Avro files in the lake's bronze",
            environment=environment,
            sizing=sizes.archive_ticks,
            layers=layers.of("archive_ticks"),
            variables=variables,
        )
        stream.grant_read(self.archive_ticks)
        lake.grant_read(self.archive_ticks, "schemas/*")
        lake.grant_write(self.archive_ticks, "bronze/*", "quarantine/*")
        lake.grant_failed_batches(self.archive_ticks)
        self.archive_feed = StreamConsumer(
            self,
            "ArchiveFeed",
            function=self.archive_ticks,
            stream=stream,
            lake=lake,
            batch_size=2000,
            window=Duration.seconds(60),
        )

        self.train_model = Function(
            self,
            "TrainModel",
            name="train_model",
            description="Rows of history to a trained model with its card",
            environment=environment,
            sizing=sizes.train_model,
            layers=layers.of("train_model"),
            variables=variables | {"DATABASE_STATEMENT_TIMEOUT_S": str(sizes.train_model.timeout_s)},
            vpc=vpc,
        )
        database.grant_read(self.train_model)
        lake.grant_read(self.train_model, "models/*")
        lake.grant_write(self.train_model, "models/*")

        self.evaluate_model = Function(
            self,
            "EvaluateModel",
            name="evaluate_model",
            description="Challengers against the model in force, on rows that none has learnt from",
            environment=environment,
            sizing=sizes.evaluate_model,
            layers=layers.of("evaluate_model"),
            variables=variables | {"DATABASE_STATEMENT_TIMEOUT_S": str(sizes.evaluate_model.timeout_s)},
            vpc=vpc,
        )
        database.grant_read(self.evaluate_model)
        lake.grant_read(self.evaluate_model, "models/*")
        lake.grant_write(self.evaluate_model, "models/*/card.json", "models/*/card.md")

        self.promote_model = Function(
            self,
            "PromoteModel",
            name="promote_model",
            description="A verdict to the pointer to the model in force",
            environment=environment,
            sizing=sizes.promote_model,
            layers=layers.of("promote_model"),
            variables=variables,
        )
        lake.grant_read(self.promote_model, "models/*")
        lake.grant_write(self.promote_model, "models/current.json")

        self.serve_predictions = Function(
            self,
            "ServePredictions",
            name="serve_predictions",
            description="The API's answers from the hot store",
            environment=environment,
            sizing=sizes.serve_predictions,
            layers=layers.of("serve_predictions"),
            variables=variables,
            vpc=vpc,
        )
        hot_store.grant_read(self.serve_predictions)
        lake.grant_read(self.serve_predictions, "models/*")
        self.api = PredictionApi(self, "Api", environment=environment, function=self.serve_predictions)

        self.audit_predictions = Function(
            self,
            "AuditPredictions",
            name="audit_predictions",
            description="A sample of the predictions, made again from bronze",
            environment=environment,
            sizing=sizes.audit_predictions,
            layers=layers.of("audit_predictions"),
            variables=variables
            | {
                "AUDIT_EVERY_MINUTES": str(environment.audit.every_minutes),
                "AUDIT_SAMPLE": str(environment.audit.sample),
            },
            vpc=vpc,
            # The only function that is invoked asynchronously: by default both the rule, which delivers, and
            # Lambda, which runs it, would repeat a round.
            retry_attempts=0,
        )
        hot_store.grant_audit(self.audit_predictions)
        database.grant_read(self.audit_predictions)
        lake.grant_read(self.audit_predictions, "bronze/*", "models/*")
        lake.grant_write(self.audit_predictions, "audit/differences/*")
        events.Rule(
            self,
            "AuditTime",
            description="Time for an audit",
            schedule=events.Schedule.rate(Duration.minutes(environment.audit.every_minutes)),
            # A round that fails is an alarm already, and the next one is a few minutes off.
            targets=[targets.LambdaFunction(self.audit_predictions, retry_attempts=0)],
        )

        self.plan_backfill = Function(
            self,
            "PlanBackfill",
            name="plan_backfill",
            description="Which windows of history are to be fetched",
            environment=environment,
            sizing=sizes.plan_backfill,
            layers=layers.of("plan_backfill"),
            variables=variables,
            vpc=vpc,
        )
        lake.grant_list(self.plan_backfill)
        hot_store.grant_read(self.plan_backfill)

        # Not in the VPC: from there no way leads to the exchange.
        self.fetch_history = Function(
            self,
            "FetchHistory",
            name="fetch_history",
            description="A window of history from the exchange's REST to the lake's bronze",
            environment=environment,
            sizing=sizes.fetch_history,
            layers=layers.of("fetch_history"),
            variables={**variables, "REST_URL": environment.history.rest_url},
        )
        lake.grant_read(self.fetch_history, "bronze/source=rest/*")
        lake.grant_write(self.fetch_history, "bronze/source=rest/*")

        self.load_history = Function(
            self,
            "LoadHistory",
            name="load_history",
            description="Bronze to PostgreSQL: trades, bars, labelled feature rows",
            environment=environment,
            sizing=sizes.load_history,
            layers=layers.of("load_history"),
            variables={
                "BUCKET": lake.bucket.bucket_name,
                "KEEP_DAYS": str(environment.tables.keep_days or 0),
                "GRID_MS": str(environment.tables.grid_ms),
                "QUOTED_GRID_MS": str(environment.tables.quoted_grid_ms),
            },
            vpc=vpc,
        )
        database.grant_load(self.load_history)
        lake.grant_read(self.load_history, "bronze/*")
        lake.grant_write(self.load_history, "quarantine/*")

        self.mark_repaired = Function(
            self,
            "MarkRepaired",
            name="mark_repaired",
            description="What became of a gap, to PostgreSQL and the hot store",
            environment=environment,
            sizing=sizes.mark_repaired,
            layers=layers.of("mark_repaired"),
            variables=variables,
            vpc=vpc,
        )
        database.grant_load(self.mark_repaired)
        lake.grant_read(self.mark_repaired, "bronze/source=rest/*")
        hot_store.grant_write(self.mark_repaired)

        self.backfill = Workflow(
            self,
            "Backfill",
            environment=environment,
            name="backfill",
            definition="backfill_and_retrain",
            starts=["backfill"],
            functions={
                "PlanBackfill": self.plan_backfill,
                "FetchHistory": self.fetch_history,
                "LoadHistory": self.load_history,
                "MarkRepaired": self.mark_repaired,
                "TrainModel": self.train_model,
                "EvaluateModel": self.evaluate_model,
                "PromoteModel": self.promote_model,
            },
        )
        history = environment.history
        if history.schedule:
            training = {"train": {"days": history.train_days}} if history.train_days else {}
            events.Rule(
                self,
                "BackfillTime",
                description=f"The last {history.days} days of history, what the gap ledger misses, training",
                schedule=events.Schedule.expression(history.schedule),
                targets=[
                    targets.SfnStateMachine(
                        self.backfill.machine,
                        # A day is long: what cannot be started is tried again, for an hour. What fails once
                        # it was started is repeated by the state machine alone.
                        retry_attempts=20,
                        max_event_age=Duration.hours(1),
                        input=events.RuleTargetInput.from_object(
                            {"days": history.days, "repair": True, **training}
                        ),
                    )
                ],
            )

        drift = environment.drift
        self.score_predictions = Function(
            self,
            "ScorePredictions",
            name="score_predictions",
            description="Outcomes to PostgreSQL, accuracy to the hot store, drift to a training",
            environment=environment,
            sizing=sizes.score_predictions,
            layers=layers.of("score_predictions"),
            variables=variables
            | {
                "DRIFT_WINDOW_HOURS": str(drift.window_hours),
                "DRIFT_MIN_SCORED": str(drift.min_scored),
                "DRIFT_STABILITY_HIGH": str(drift.stability_high),
                "DRIFT_STABILITY_LOW": str(drift.stability_low),
                "DRIFT_RAISE_AFTER": str(drift.raise_after),
                "DRIFT_COOL_DOWN_HOURS": str(drift.cool_down_hours),
                "HISTORY_DAYS": str(history.days),
                "TRAIN_DAYS": str(history.train_days or 0),
            },
            vpc=vpc,
        )
        hot_store.grant_score(self.score_predictions)
        database.grant_score(self.score_predictions)
        lake.grant_read(self.score_predictions, "models/*")
        self.score = Workflow(
            self,
            "Score",
            environment=environment,
            name="score",
            definition="score",
            starts=["backfill"],
            functions={"ScorePredictions": self.score_predictions},
            is_express=True,
        )
        events.Rule(
            self,
            "ScoreTime",
            description="Time to score predictions",
            schedule=events.Schedule.rate(Duration.minutes(1)),
            # The next minute takes in what this one did not; within an execution the state machine repeats.
            targets=[targets.SfnStateMachine(self.score.machine, retry_attempts=0)],
        )

        # The emulator serves an API under its own address, not under the name AWS would give it.
        api_url = (
            f"{endpoint_url}/restapis/{self.api.api.rest_api_id}/{STAGE}/_user_request_/"
            if endpoint_url
            else self.api.api.url
        )
        CfnOutput(self, "ApiUrl", value=api_url)
        CfnOutput(self, "ApiKeyId", value=self.api.key.key_id)
        CfnOutput(self, "StreamName", value=stream.stream_name)
        CfnOutput(self, "BucketName", value=lake.bucket.bucket_name)
        CfnOutput(self, "LoadHistoryFunction", value=self.load_history.function_name)
        CfnOutput(self, "TrainModelFunction", value=self.train_model.function_name)
        CfnOutput(self, "PredictStreamFunction", value=self.predict_stream.function_name)
        CfnOutput(self, "AuditPredictionsFunction", value=self.audit_predictions.function_name)
        CfnOutput(self, "PlanBackfillFunction", value=self.plan_backfill.function_name)
        CfnOutput(self, "BackfillMachine", value=self.backfill.machine.state_machine_arn)
        CfnOutput(self, "ScoreMachine", value=self.score.machine.state_machine_arn)


class AwsAppStack(AppStack):
    """On AWS besides: the ingest task, the alarms and the dashboard."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        settings: Aws,
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
            settings=settings.ingest,
            vpc=vpc,
            variables={
                "STREAM_NAME": data.stream.stream_name,
                "BUCKET": data.lake.bucket.bucket_name,
                "SYMBOLS": ",".join(environment.symbols),
            },
            exchange_key=data.exchange_key,
        )
        data.stream.grant_write(self.ingest.task.task_role)
        data.lake.grant_write(self.ingest.task.task_role, "schemas/*")
        data.lake.grant_write(self.ingest.task.task_role, "quarantine/ingest_ecs/*")

        self.migration = Migration(
            self,
            "Migration",
            environment=environment,
            cluster=self.ingest.cluster,
            vpc=vpc,
            database=data.database,
        )
        CfnOutput(self, "MigrateCommand", value=self.migration.command)

        monitoring = Monitoring(self, "Monitoring", environment=environment, email=settings.alarm_email)
        monitoring.watch_predictions("predict_stream")
        monitoring.watch_consumer(
            self.predict_stream, self.prediction_feed, behind=Duration.seconds(10), service="predict_stream"
        )
        monitoring.watch_consumer(
            self.archive_ticks, self.archive_feed, behind=Duration.minutes(15), service="archive_ticks"
        )
        monitoring.watch_scores("score_predictions", symbols=environment.symbols, machine=self.score.machine)
        monitoring.watch_audit("audit_predictions")
        monitoring.watch_functions(
            [
                self.predict_stream,
                self.archive_ticks,
                self.train_model,
                self.evaluate_model,
                self.promote_model,
                self.serve_predictions,
                self.score_predictions,
                self.audit_predictions,
                self.plan_backfill,
                self.fetch_history,
                self.load_history,
                self.mark_repaired,
            ]
        )
        monitoring.watch_backfill(self.backfill.machine)
        monitoring.watch_api(self.api.api)
        monitoring.watch_ingest(self.ingest, tasks=settings.ingest.tasks)
        CfnOutput(self, "AlarmTopic", value=monitoring.topic.topic_arn)
