"""The place of the exchange's API key."""

from __future__ import annotations

from aws_cdk import Acknowledgment, RemovalPolicy, Validations
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from cdk.config import Environment


class ExchangeKey(secretsmanager.Secret):
    """An empty secret: the owner of the key puts its value, which no template or repository ever sees."""

    def __init__(self, scope: Construct, construct_id: str, *, environment: Environment) -> None:
        super().__init__(
            scope,
            construct_id,
            description="Binance API key for the SBE market data stream, as plain text",
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            if environment.keep_data
            else RemovalPolicy.DESTROY,
        )
        # The construct would generate a random password, and the ingest task would try to connect with it.
        resource = self.node.default_child
        assert isinstance(resource, secretsmanager.CfnSecret)
        resource.generate_secret_string = None
        Validations.of(self).acknowledge(
            Acknowledgment(
                id="AwsSolutions-SMG4",
                reason="Binance issues the key to a person: nothing in AWS could renew it.",
            )
        )
