"""A function's place on the stream."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from cdk.components.lake import Lake

# Lambda's words for "as long as the stream keeps the record" and "without a limit but that".
UNTIL_EXPIRED = -1


class StreamConsumer(lambda_.CfnEventSourceMapping):
    """Feeds `function` from `stream` and lets a failing batch neither block the shard nor vanish.

    By default Lambda retries a failing batch whole until the stream no longer has it. Here it halves the
    batch, continues after the last record the function reports as done, gives up after `retries` or
    `max_age`, and then leaves the batch in the lake, which raises an alarm. The resource is written out
    because the L2 construct's S3 destination would grant the function the whole bucket.

    With `fan_out` the stream pushes records to a consumer of its own instead of being polled. Whether it does
    is create-only: changing it makes a second mapping, and removes the first afterwards, so that both deliver
    for a moment. The second starts at the newest record then: from the oldest one it would first go through
    all that the stream still has, and nothing would be predicted meanwhile.

    `parallelism` is how many batches of a shard are processed at once; those of one symbol stay in order.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        function: lambda_.Function,
        stream: kinesis.IStream,
        lake: Lake,
        batch_size: int,
        window: Duration | None = None,
        retries: int = UNTIL_EXPIRED,
        max_age: Duration | None = None,
        fan_out: bool = False,
        parallelism: int = 1,
    ) -> None:
        source_arn, start = stream.stream_arn, "TRIM_HORIZON"
        if fan_out:
            consumer = kinesis.StreamConsumer(
                scope, f"{construct_id}FanOut", stream=stream, stream_consumer_name=construct_id
            )
            source_arn, start = consumer.stream_consumer_arn, "LATEST"
            function.add_to_role_policy(
                iam.PolicyStatement(
                    actions=["kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"],
                    resources=[source_arn],
                )
            )
        super().__init__(
            scope,
            construct_id,
            function_name=function.function_name,
            event_source_arn=source_arn,
            starting_position=start,
            batch_size=batch_size,
            parallelization_factor=parallelism if parallelism > 1 else None,
            maximum_batching_window_in_seconds=window.to_seconds() if window else 0,
            bisect_batch_on_function_error=True,
            function_response_types=["ReportBatchItemFailures"],
            maximum_retry_attempts=retries,
            maximum_record_age_in_seconds=max_age.to_seconds() if max_age else UNTIL_EXPIRED,
            destination_config=self.DestinationConfigProperty(
                on_failure=self.OnFailureProperty(destination=lake.bucket.bucket_arn)
            ),
            # Counts what was dropped or handed to the destination; the alarm on lost batches reads it.
            metrics_config=self.MetricsConfigProperty(metrics=["EventCount"]),
        )
