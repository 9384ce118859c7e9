"""A smoke test of the deployed API, as a user calls it: health, the OpenAPI document, a prediction of each
symbol with the key."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from local.system import cloud, http_json
from local.system.api import Api
from operations.deployment.account import Account, Say
from operations.deployment.served import difference, served
from operations.deployment.stacks import Sleep
from operations.failures import OperationFailed
from tickcast.adapters.redaction import describe

PATIENCE_S = 600.0  # until the task is there, bars are warm and the API has the key
POLL_S = 5.0


class Seen(NamedTuple):
    """One look at the API: what is not well, and what to say when all is."""

    problems: list[str]
    answers: list[str]


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
        deadline, said, found = time.monotonic() + self._patience_s, "", served(account)
        while (seen := self._look(api, found.symbols)).problems:
            if (text := "; ".join(seen.problems)) != said:
                say(f"not yet: {text}")
                said = text
            if time.monotonic() > deadline:
                raise OperationFailed(
                    f"{text} after {self._patience_s / 60:g} min: `make doctor ENV={account.name}` says more"
                )
            self._sleep(POLL_S)
        say("health, predictions and the OpenAPI document are fine")
        for answer in seen.answers:
            say(answer)
        if differs := difference(account, found):
            say(
                f"{differs}: that takes precedence over the configuration (`make symbols AWS={account.name}`)"
            )

    def _look(self, api: Api, symbols: tuple[str, ...]) -> Seen:
        """The final message uses the answers that passed: another request may fail."""
        try:
            health, openapi = api.get("health"), api.get("openapi.json")
            predictions = {symbol: api.get(f"predictions/{symbol}") for symbol in symbols}
        except (OSError, ValueError) as error:
            return Seen([f"the API does not respond: {describe(error, api.key)}"], [])
        problems = [*self._of_health(health), *_of_openapi(openapi), *_of_predictions(predictions)]
        if problems:
            return Seen(problems, [])
        answers = [f"{symbol}: {answered_by(each.body)}" for symbol, each in predictions.items()]
        return Seen([], [*answers, f"source of the ticks: {feed_source(health.body) or 'not known'}"])

    def _of_health(self, answer: http_json.Response) -> list[str]:
        services = services_of(answer.body)
        if not services:
            return [f"/health returned {answer.status} without services"]
        wrong = [f"{name}: {each.get('why')}" for name, each in services.items() if not is_well(name, each)]
        if self._detached:
            wrong = [each for each in wrong if not each.startswith("model:")]
        return [] if answer.status == 200 else wrong


def services_of(body: Any) -> dict[str, dict[str, Any]]:
    """The services in a body of `/health`; none in one that is not tickcast's, a proxy's say."""
    services = body.get("services") if isinstance(body, dict) else None
    if not isinstance(services, dict):
        return {}
    return {name: each if isinstance(each, dict) else {} for name, each in services.items()}


def is_well(name: str, service: dict[str, Any]) -> bool:
    """Whether a service of `/health` works; a background one that has not begun (null) does no harm."""
    return bool(
        service.get("ok") or (service.get("ok") is None and name in ("postgres", "archive", "audit", "score"))
    )


def _of_openapi(answer: http_json.Response) -> list[str]:
    if answer.status != 200:
        return [f"/openapi.json returned {answer.status}"]
    is_document = isinstance(answer.body, dict) and "paths" in answer.body
    return [] if is_document else ["/openapi.json returned 200 without paths"]


def _of_predictions(answers: dict[str, http_json.Response]) -> list[str]:
    wrong = []
    for symbol, (status, body) in answers.items():
        if status != 200 or not isinstance(body, dict):
            reason = body.get("detail") or body.get("message") if isinstance(body, dict) else body
            wrong.append(f"/predictions/{symbol} returned {status}: {reason}")
    return wrong


def answered_by(body: dict[str, Any]) -> str:
    """What a prediction was made by: the model, or what stands in for it and why."""
    reason = f", since {body['reason']}" if body.get("reason") else ""
    return f"answered by {body.get('source')}{reason}"


def feed_source(health: Any) -> str:
    """Where the ticks come from by the body of `/health`, empty where it is not known."""
    found = (each.get("source") for name, each in services_of(health).items() if name.startswith("feed:"))
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
