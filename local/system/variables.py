"""The environment variables of processes that run on this machine without being deployed."""

from __future__ import annotations

from cdk.config import load
from cdk.variables import variables
from local.system.cloud import REGION
from local.system.servers import HOST

# Variables that a deployment adds to the configuration's: the stores' addresses, and those of the platform.
_ADDED = {
    "POWERTOOLS_SERVICE_NAME": "local",
    "REDIS_HOST": HOST,
    "REDIS_PORT": "6379",
    "REDIS_TLS": "0",
    "REDIS_IAM_USER": "",
    "REDIS_CACHE_NAME": "",
    "DATABASE_HOST": HOST,
    "DATABASE_PORT": "5432",
    "DATABASE_NAME": "postgres",
    "DATABASE_USER": "tickcast_loader",
    "DATABASE_IAM": "0",
    "AWS_REGION": REGION,
    "API_URL": f"http://{HOST}/",
    "DEAD_LETTER_QUEUE_URL": f"http://{HOST}/lost-signals",
}


def local_variables(
    *, bucket: str, stream: str = "ticks", symbols: str = "", rest_url: str = ""
) -> dict[str, str]:
    """Every variable that a process reads, as the local environment's configuration has it."""
    environment = load("local", symbols=symbols, rest_url=rest_url)
    return variables(environment, bucket=bucket, stream=stream) | _ADDED
