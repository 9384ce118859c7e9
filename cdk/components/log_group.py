"""A log group."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct


class LogGroup(logs.LogGroup):
    """Its lines are deleted after `retention`, a name of `aws_logs.RetentionDays`, and it with its stack."""

    def __init__(
        self, scope: Construct, construct_id: str, *, retention: str, log_group_name: str | None = None
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            log_group_name=log_group_name,
            retention=logs.RetentionDays[retention],
            removal_policy=RemovalPolicy.DESTROY,
        )
