"""A smoke test of the deployed API, as a user calls it: health, the OpenAPI document, a prediction of each
symbol with the key."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from local.system import cloud, http_json
from local.system.api import Api
from operations.deployment.account import Account, Say
from operations.deployment.stacks import Sleep
from operations.failures import OperationFailed
from tickcast.adapters.redaction import describe

PATIENCE_S = 600.0  # until the task is there, bars are warm and the API has the key
POLL_S = 5.0


class CheckApi:
    """Ask until all is well. `detached`: a model may be missing, for its training still runs."""

    name = "smoke test of the API"

    def __init__(
        self, detached: bool = False, patience_s: float = PATIENCE_S, sleep: Sleep = time.sleep
    ) -> None:
        self._detached = detached
        self._patience_s = patience_s
        self._sleep = sleep

    def is_done(self, account: Account) -> bool:
        return False

    def run(self, account: Account, say: Say) -> None:
        api = api_of(account)
        deadline, said = time.monotonic() + self._patience_s, ""
        while problems := self._problems(api, account.environment.symbols):
            if (text := "; ".join(problems)) != said:
                say(f"not yet: {text}")
                said = text
            if time.monotonic() > deadline:
                raise OperationFailed(
                    f"{text} after {self._patience_s / 60:g} min: `make doctor ENV={account.name}` says more"
                )
            self._sleep(POLL_S)
        say("health, predictions and the OpenAPI document are well")
        for symbol in account.environment.symbols:
            say(f"{symbol}: {answered_by(api, symbol)}")
        say(f"source of the ticks: {feed_source(api) or 'not known'}")

    def _problems(self, api: Api, symbols: tuple[str, ...]) -> list[str]:
        """What is not well, in words."""
        try:
            return [*self._of_health(api), *_of_openapi(api), *_of_predictions(api, symbols)]
        except (OSError, ValueError) as error:
            return [f"the API does not respond: {describe(error, api.key)}"]

    def _of_health(self, api: Api) -> list[str]:
        status, body = api.get("health")
        services: dict[str, Any] = body.get("services", {}) if isinstance(body, dict) else {}
        wrong = [f"{name}: {each['why']}" for name, each in services.items() if not is_well(name, each)]
        if self._detached:
            wrong = [each for each in wrong if not each.startswith("model:")]
        if status == 200 or (services and not wrong):
            return []
        return wrong or [f"/health returned {status}"]


def is_well(name: str, service: dict[str, Any]) -> bool:
    """Whether a service of `/health` works; a background one that has not begun (null) does no harm."""
    return bool(
        service["ok"] or (service["ok"] is None and name in ("postgres", "archive", "audit", "score"))
    )


def _of_openapi(api: Api) -> list[str]:
    status, body = api.get("openapi.json")
    return [] if status == 200 and "paths" in body else [f"/openapi.json returned {status}"]


def _of_predictions(api: Api, symbols: tuple[str, ...]) -> list[str]:
    wrong = []
    for symbol in symbols:
        status, body = api.get(f"predictions/{symbol}")
        if status != 200:
            reason = body.get("detail") or body.get("message") if isinstance(body, dict) else body
            wrong.append(f"/predictions/{symbol} returned {status}: {reason}")
    return wrong


def answered_by(api: Api, symbol: str) -> str:
    """What a prediction was made by: the model, or what stands in for it and why."""
    body = api.get(f"predictions/{symbol}").body
    reason = f", since {body['reason']}" if body.get("reason") else ""
    return f"answered by {body.get('source')}{reason}"


def feed_source(api: Api) -> str:
    """Where the ticks come from by `/health`, empty where it is not known."""
    services = api.get("health").body.get("services", {})
    found = (each.get("source") for name, each in services.items() if name.startswith("feed:"))
    return str(next((source for source in found if source), ""))


@dataclass(frozen=True)
class SignedApi(Api):
    """An API without keys (`api.authorisation: iam`): requests are signed with the caller's credentials."""

    credentials: Any = field(default=None, repr=False)
    region: str = ""

    def get(self, path: str, **query: int) -> http_json.Response:
        address = self._address(path, query)
        request = AWSRequest("GET", address)
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)
        return http_json.get(address, dict(request.headers.items()))


def api_of(account: Account) -> Api:
    """A client of the deployed API: with its key, which is read from API Gateway, or signing where it has
    none."""
    outputs = account.outputs("app")
    if "ApiKeyId" not in outputs:
        return SignedApi(
            outputs["ApiUrl"], credentials=boto3.Session().get_credentials(), region=account.region
        )
    key = cloud.api_key_of(account.client("apigateway"), outputs["ApiKeyId"])
    return Api(outputs["ApiUrl"], key)
