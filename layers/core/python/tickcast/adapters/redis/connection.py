"""One Redis client for a process: short timeouts, health checks, IAM tokens on AWS.

A connection that died while the Lambda was frozen, or was dropped silently, is found by the health check
before it is used, and a server that hangs costs a timeout, not an invocation. ElastiCache takes IAM tokens in
place of passwords; they are signed locally, so nothing in the VPC has to fetch a secret.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import redis
from redis.backoff import ExponentialBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from tickcast.adapters.settings import RedisSettings

_TOKEN_LIFE_S = 900


class IamToken(CredentialProvider):
    """User name and a freshly signed token for every new connection (ElastiCache IAM authentication)."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str, str]:
        import botocore.session
        from botocore.auth import SigV4QueryAuth
        from botocore.awsrequest import AWSRequest

        user, region = self._settings.iam_user, self._settings.region
        query = urlencode({"Action": "connect", "User": user})
        request = AWSRequest("GET", f"http://{self._settings.cache_name}/?{query}")
        credentials = botocore.session.get_session().get_credentials()
        SigV4QueryAuth(credentials, "elasticache", region, expires=_TOKEN_LIFE_S).add_auth(request)
        return user, str(request.url).removeprefix("http://")


def connect(settings: RedisSettings, *, timeout_s: float = 1.0, retries: int = 2) -> redis.Redis:
    """A client for the environment's Redis. Nothing is sent before the first command.

    A server that hangs costs a command at most `timeout_s` for each of (1 + `retries`)² attempts: the client
    retries the connection in every attempt of the command.
    """
    options: dict[str, Any] = {}
    if settings.iam_user:
        options["credential_provider"] = IamToken(settings)
    return redis.Redis(
        host=settings.host,
        port=settings.port,
        ssl=settings.tls,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries),
        # After a failover the connection may lead to a replica: the retry opens a new one.
        retry_on_error=[redis.ReadOnlyError],
        **options,
    )
