"""What a deployment ends with: where the API is, how its key is read, what a month costs."""

from __future__ import annotations

import importlib
from typing import Any

from operations.deployment.account import Account
from operations.failures import OperationFailed, OperationRefused


def lines(account: Account) -> list[str]:
    """The summary; the key itself is not in it."""
    outputs = account.outputs("app")
    return [
        f"API       {outputs['ApiUrl']}",
        f"its key   {key_command(account)}",
        f"cost      {cost(account)}",
        f"state     make doctor ENV={account.name}",
    ]


def key_command(account: Account) -> str:
    """The command that prints the API's key."""
    key_id = account.outputs("app").get("ApiKeyId")
    if key_id is None:
        return "none: requests are signed (api.authorisation: iam)"
    return (
        f"aws apigateway get-api-key --region {account.region} --api-key {key_id} --include-value "
        "--query value --output text"
    )


def cost(account: Account) -> str:
    """The monthly cost by `make cost`, or how to find it where that cannot be computed."""
    try:
        costs: Any = importlib.import_module("operations.cost")
        return str(costs.monthly(account.environment).sentence())
    except (ImportError, OperationFailed, OperationRefused, OSError, RuntimeError, ValueError):
        return f"make cost ENV={account.name}"
