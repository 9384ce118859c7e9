"""The report of `make doctor`, and the smoke test of the API, on an account in moto."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from moto import mock_aws

from local.system import cloud, http_json
from operations.deployment import api_check, doctor, summary
from operations.deployment.account import DEPLOYED, MIGRATED, Account
from operations.deployment.api_check import CheckApi, api_of
from operations.deployment.doctor import State, examine
from operations.deployment.exchange_key import StoreKey
from operations.deployment.version import version
from operations.failures import OperationFailed
from tests.fixtures.account_in_moto import MODEL, CdkInMoto, account
from tickcast.adapters.registry.served_symbols import ServedSymbols, adding, change_served

HEALTHY = {
    "model": {"ok": True, "why": None},
    "feed:BTCUSDT": {"ok": True, "why": None, "source": "json"},
    "audit": {"ok": None, "why": "not seen yet"},
}


class Api:
    """An API that answers `answers`, in turn."""

    key = "key"

    def __init__(self, *healths: dict[str, Any]) -> None:
        self._healths = list(healths)
        self.without_prediction = 0

    def get(self, path: str) -> http_json.Response:
        if path == "openapi.json":
            return http_json.Response(200, {"paths": {}})
        if path.startswith("predictions/"):
            if self.without_prediction:
                self.without_prediction -= 1
                return http_json.Response(404, {"detail": "no prediction yet"})
            return http_json.Response(200, {"source": "model"})
        services = self._healths.pop(0) if len(self._healths) > 1 else self._healths[0]
        is_well = all(each["ok"] is not False for each in services.values())
        return http_json.Response(200 if is_well else 503, {"services": services})


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(doctor, "api_of", lambda account: Api(HEALTHY))
    with mock_aws():
        of = account()
        cdk = CdkInMoto(of)
        cdk.bootstrap()
        for part in ("network", "data", "app"):
            cdk.deploy(f"tickcast-dev-{part}")
        yield of


def line(report: list[State], what: str) -> State:
    (found,) = [state for state in report if state.what.startswith(what)]
    return found


def test_what_is_not_done_yet_is_said_with_what_to_do(deployed: Account) -> None:
    report = examine(deployed)
    for what in (
        "version unknown",
        "the exchange's key: the secret is empty",
        "migration: none",
        "no model:",
    ):
        state = line(report, what)
        assert not state.is_well
        assert "make deploy ENV=dev" in state.todo
    assert line(report, "stack data: CREATE_COMPLETE").is_well


def test_what_is_well_is_said_too(deployed: Account) -> None:
    StoreKey({}, ask=lambda: "").run(deployed, print)
    deployed.note(DEPLOYED, version())
    deployed.note(MIGRATED, "tickcastdevappMigrate:1")
    bucket = deployed.outputs("app")["BucketName"]
    pointer = f'{{"model_id": "{MODEL}"}}'.encode()
    deployed.client("s3").put_object(Bucket=bucket, Key="models/current.json", Body=pointer)
    report = examine(deployed)
    for what in (
        *(
            "bootstrap version 21",
            f"version {version()}",
            "the exchange's key: none; ingest takes the public",
        ),
        *("migration: tickcastdevappMigrate:1", f"model in force: {MODEL}", "alarms: none"),
        "API: healthy; source of the ticks: json",
    ):
        assert line(report, what).is_well


def change(of: Account, *symbols: str) -> None:
    s3, bucket = of.client("s3"), of.outputs("app")["BucketName"]
    change_served(s3, bucket, of.environment.symbols, adding(symbols), since="2026-01-01", by="me")


def test_symbols_changed_at_run_time_are_compared_with_the_configuration(deployed: Account) -> None:
    assert line(examine(deployed), "symbols: BTCUSDT, ETHUSDT, as configured").is_well
    change(deployed, "SOLUSDT")
    state = line(examine(deployed), "symbols: BTCUSDT, ETHUSDT, SOLUSDT, version 1")
    assert "at run time SOLUSDT added, which takes precedence" in state.what and state.is_well
    assert "the same symbols in cdk/config/dev.yaml" in state.todo
    change(deployed, *(f"S{n}USDT" for n in range(10)))
    state = line(examine(deployed), "symbols: ")
    assert not state.is_well and "aws.cache.node_type" in state.todo
    bucket = deployed.outputs("app")["BucketName"]
    deployed.client("s3").put_object(Bucket=bucket, Key="symbols/current.json", Body=b"{}")
    assert "is damaged" in line(examine(deployed), "symbols: could not be asked").todo


def test_what_cannot_be_asked_is_a_line_of_its_own(deployed: Account) -> None:
    """The ingest service: the stack in moto has none."""
    state = line(examine(deployed), "ingest: could not be asked")
    assert "tickcast-dev-app has no output IngestService" in state.todo


@pytest.mark.parametrize(
    ("running", "rollout", "what"),
    [
        (1, "COMPLETED", "ingest: 1 of 1 tasks run"),
        (
            0,
            "IN_PROGRESS",
            "ingest: 0 of 1 tasks run; the last one stopped: Task failed container health checks",
        ),
        (1, "FAILED", "ingest: 1 of 1 tasks run; the last one stopped: .*; circuit breaker"),
    ],
)
def test_tasks_that_do_not_run_are_explained(running: int, rollout: str, what: str) -> None:
    """By answers made here: moto's tasks do not fail."""

    class Ecs:
        def describe_services(self, **_: Any) -> Any:
            deployment = {"rolloutState": rollout, "rolloutStateReason": "circuit breaker"}
            events = [{"message": "unable to place a task"}]
            service = {"runningCount": running, "desiredCount": 1, "deployments": [deployment]}
            return {"services": [service | {"events": events}]}

        def list_tasks(self, **_: Any) -> Any:
            return {"taskArns": ["task"]}

        def describe_tasks(self, **_: Any) -> Any:
            return {"tasks": [{"stoppedReason": "Task failed container health checks"}]}

    of: Any = SimpleNamespace(
        client=lambda service: Ecs(), outputs=lambda part: {"ClusterArn": "c", "IngestService": "s"}
    )
    (state,) = doctor._of_ingest(of)
    assert state.is_well == (running == 1 and rollout == "COMPLETED")
    assert re.match(what, state.what)
    assert state.is_well or "unable to place a task" in state.todo


def test_without_credentials_that_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def get_caller_identity(self) -> Any:
            raise NoCredentialsError

    (state,) = examine(Account(account().environment, lambda service: Refusing()))
    assert state.what.startswith("account: credentials of an AWS account: ")


def run(api: Api, monkeypatch: pytest.MonkeyPatch, **how: Any) -> list[str]:
    monkeypatch.setattr(api_check, "api_of", lambda account: api)
    configured = ServedSymbols(symbols=account().environment.symbols)
    monkeypatch.setattr(api_check, "served", lambda account: configured)
    said: list[str] = []
    CheckApi(sleep=lambda seconds: None, **how).run(account(), said.append)
    return said


def test_the_smoke_test_waits_until_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = HEALTHY | {"feed:BTCUSDT": {"ok": False, "why": "nothing has been sent for 9 s"}}
    api = Api(cold, cold, HEALTHY)
    api.without_prediction = 1
    said = run(api, monkeypatch)
    assert said[0].startswith("not yet: feed:BTCUSDT: nothing has been sent for 9 s; /predictions/BTCUSDT")
    assert said[-3:] == [
        "BTCUSDT: answered by model",
        "ETHUSDT: answered by model",
        "source of the ticks: json",
    ]


def test_it_gives_up_with_what_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = HEALTHY | {"model": {"ok": False, "why": "no model"}}
    with pytest.raises(OperationFailed, match="model: no model after .* `make doctor ENV=dev` says more"):
        run(Api(cold), monkeypatch, patience_s=0)
    run(Api(cold), monkeypatch, patience_s=0, detached=True)  # the training has just begun


def test_the_api_is_not_asked_again_once_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    api, asked = Api(HEALTHY), list[str]()

    def get(path: str) -> http_json.Response:
        if path in asked:
            raise ConnectionResetError(path)
        asked.append(path)
        return Api.get(api, path)

    monkeypatch.setattr(api, "get", get)
    assert run(api, monkeypatch)[-1] == "source of the ticks: json"


@pytest.mark.parametrize(
    ("path", "status", "body", "problem"),
    [
        ("health", 200, None, "/health returned 200 without services"),
        ("health", 200, ["text"], "/health returned 200 without services"),
        ("health", 503, {"services": []}, "/health returned 503 without services"),
        ("health", 503, {"services": {"model": None}}, "model: None"),
        ("openapi.json", 200, None, "/openapi.json returned 200 without paths"),
        ("openapi.json", 200, {}, "/openapi.json returned 200 without paths"),
        ("openapi.json", 503, None, "/openapi.json returned 503"),
        ("predictions/BTCUSDT", 200, [], r"/predictions/BTCUSDT returned 200: \[\]"),
        ("predictions/BTCUSDT", 503, None, "/predictions/BTCUSDT returned 503: None"),
    ],
)
def test_answers_of_another_shape_are_problems(
    path: str, status: int, body: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(HEALTHY)
    answer = http_json.Response(status, body)
    monkeypatch.setattr(api, "get", lambda asked: answer if asked == path else Api.get(api, asked))
    with pytest.raises(OperationFailed, match=f"^{problem} after"):
        run(api, monkeypatch, patience_s=0)


def test_the_report_survives_a_health_of_another_shape(
    deployed: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = SimpleNamespace(get=lambda path: http_json.Response(503, {"services": {"model": None}}))
    monkeypatch.setattr(doctor, "api_of", lambda account: api)
    assert not line(examine(deployed), "API: 503; model: None").is_well


def test_an_api_without_keys_gets_signed_requests(deployed: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []

    def get(url: str, headers: dict[str, str]) -> http_json.Response:
        assert url == "https://api.example/v1/predictions/BTCUSDT?horizon=2"
        sent.append(headers)
        return http_json.Response(200, {})

    without = {name: text for name, text in deployed.outputs("app").items() if name != "ApiKeyId"}
    monkeypatch.setattr(deployed, "outputs", lambda part: without)
    monkeypatch.setattr(http_json, "get", get)
    api_of(deployed).get("predictions/BTCUSDT", horizon=2)
    assert "/ap-northeast-1/execute-api/aws4_request" in sent[0]["Authorization"]
    assert "signed" in summary.key_command(deployed)


def test_the_summary_has_the_monthly_cost_where_it_can_be_computed(
    deployed: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: Any = ModuleType("operations.cost")
    costs.monthly = lambda environment: SimpleNamespace(sentence=lambda: f"about $61 for {environment.name}")
    monkeypatch.setitem(sys.modules, "operations.cost", costs)
    assert summary.cost(deployed) == "about $61 for dev"
    monkeypatch.setitem(sys.modules, "operations.cost", None)
    assert summary.cost(deployed) == "make cost ENV=dev"


def test_the_summary_names_the_command_for_the_key_and_not_the_key(deployed: Account) -> None:
    text = "\n".join(summary.lines(deployed))
    assert "https://api.example/v1/" in text
    assert "get-api-key --region ap-northeast-1 --api-key keyid --include-value" in text
