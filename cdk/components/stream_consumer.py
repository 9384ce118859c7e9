"""A function's place on the stream."""

from __future__ import annotations

from aws_cdk import Duration
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
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            function_name=function.function_name,
            event_source_arn=stream.stream_arn,
            # Not LATEST, which misses what arrives while the mapping is being made.
            starting_position="TRIM_HORIZON",
            batch_size=batch_size,
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
