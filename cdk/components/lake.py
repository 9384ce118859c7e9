"""The bucket of history and models, with grants by prefix."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk.config import Environment
from tickcast.adapters.lake.receipt_archive import Folder
from tickcast.serving.signals import PREFIX as SIGNALS

# Where Lambda puts the batches it gave up on: the service chooses the prefix, it cannot be configured.
FAILED_BATCHES = "aws/lambda/*"
SIGNAL_DAYS = 7  # that a signal can be read in the lake after it was sent


class Lake(Construct):
    """One bucket: `bronze/`, `receipts/`, `receipts_between/`, `tallies/`, `quarantine/`, `schemas/`,
    `models/`, `symbols/`, `audit/`, `condition/`, `signals/`, and `aws/lambda/` for failed batches. With
    signals its events go to EventBridge.

    The grants name single actions where the bucket's own `grant_*` would allow `s3:GetObject*` and more. They
    are for functions of other stacks: the ARN in them is this stack's export.
    """

    def __init__(self, scope: Construct, construct_id: str, *, environment: Environment) -> None:
        super().__init__(scope, construct_id)
        lake, receipts = environment.lake, environment.receipts
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            # Objects are written once, but for the model pointer: there, versions are the record of moves.
            versioned=environment.keep_data,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            if environment.keep_data
            else RemovalPolicy.DESTROY,
            # Smaller objects stay where they are: a cheaper class would bill them as if they had this size.
            transition_default_minimum_object_size=(
                s3.TransitionDefaultMinimumObjectSize.ALL_STORAGE_CLASSES_128_K
                if lake.bronze_cheaper_after_days
                else None
            ),
            lifecycle_rules=[
                *(
                    s3.LifecycleRule(id=f"expire {prefix}", prefix=prefix, expiration=Duration.days(days))
                    for prefix, days in (
                        ("bronze/", lake.bronze_days),
                        (Folder.SECONDS.prefix, receipts.keep_days),
                        # What was archived before they were switched off is deleted like the others.
                        (Folder.BETWEEN.prefix, receipts.between_keep_days or receipts.keep_days),
                        ("quarantine/", lake.quarantine_days),
                        ("aws/lambda/", lake.quarantine_days),
                        (SIGNALS, SIGNAL_DAYS if environment.signals.rules else None),
                    )
                    if days is not None
                ),
                *self._cheaper(lake.bronze_cheaper_after_days),
                s3.LifecycleRule(
                    id="leftovers",
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                    noncurrent_version_expiration=Duration.days(90) if environment.keep_data else None,
                ),
            ],
        )
        if environment.signals.rules:
            # `event_bridge_enabled` would bring a function of the CDK's own to set the same property.
            resource = self.bucket.node.default_child
            assert isinstance(resource, s3.CfnBucket)
            resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
                event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(
                    event_bridge_enabled=True
                )
            )
        self._exported_arn = Stack.of(self).export_value(self.bucket.bucket_arn)
        Validations.of(self.bucket).acknowledge(
            Acknowledgment(
                id="AwsSolutions-S1",
                reason="Only this application's roles reach the bucket; access logs would cost an object per "
                "request for what CloudTrail data events, switched on when needed, show better.",
            )
        )

    def _cheaper(self, after_days: int | None) -> list[s3.LifecycleRule]:
        if after_days is None:
            return []
        return [
            s3.LifecycleRule(
                id="cheaper bronze/",
                prefix="bronze/",
                transitions=[
                    s3.Transition(
                        storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                        transition_after=Duration.days(after_days),
                    )
                ],
            )
        ]

    def grant_read(self, reader: lambda_.Function | iam.IRole, *prefixes: str) -> None:
        """Lets `reader` read under `prefixes`, and list: without that a missing key is a 403, not a 404."""
        self._grant_objects(reader, "s3:GetObject", prefixes)
        self.grant_list(reader)

    def grant_write(self, writer: lambda_.Function | iam.IRole, *prefixes: str) -> None:
        """Lets `writer` put objects under `prefixes`; not read, list or delete them."""
        self._grant_objects(writer, "s3:PutObject", prefixes)

    def grant_failed_batches(self, function: lambda_.Function) -> None:
        """Lets the stream's poller, which uses the function's role, store the batches that it gave up on."""
        self._grant_objects(function, "s3:PutObject", [FAILED_BATCHES])
        self.grant_list(function)

    def grant_list(self, reader: lambda_.Function | iam.IRole) -> None:
        """Lets `reader` list objects, not read them."""
        iam.Grant.add_to_principal(
            grantee=reader, actions=["s3:ListBucket"], resource_arns=[self._exported_arn]
        )

    def _grant_objects(
        self, grantee: lambda_.Function | iam.IRole, action: str, prefixes: Sequence[str]
    ) -> None:
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[action],
            resource_arns=[f"{self._exported_arn}/{prefix}" for prefix in prefixes],
        )
        export = Stack.of(self).resolve(self._exported_arn)["Fn::ImportValue"]
        role = grantee.role if isinstance(grantee, lambda_.Function) else grantee
        assert role is not None
        for prefix in prefixes:
            Validations.of(role).acknowledge(
                Acknowledgment(
                    id=f"AwsSolutions-IAM5[Resource::{export}/{prefix}]",
                    reason="One action on one prefix, under which the keys are made at run time.",
                )
            )
