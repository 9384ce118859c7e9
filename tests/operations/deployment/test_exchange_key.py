"""The exchange's key: from a file, a variable or a terminal into the secret, and into no command line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from ingest_ecs.settings import NO_KEY
from local.system import cloud
from operations.deployment import exchange_key
from operations.deployment.account import Account
from operations.deployment.exchange_key import StoreKey, given_key, has_key, stored_value
from operations.deployment.toolkit import Toolkit
from operations.failures import OperationRefused
from tests.fixtures.account_in_moto import CdkInMoto, account

KEY = "Ed25519keyOfBinance" * 3


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """With the data stack, whose secret is empty."""
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        of = account()
        CdkInMoto(of).deploy("tickcast-dev-data")
        yield of


def store(of: Account, environment: dict[str, str], typed: str = "") -> list[str]:
    """What is said while the step runs."""
    said: list[str] = []
    step = StoreKey(environment, ask=lambda: typed)
    assert not step.is_done(of)
    step.run(of, said.append)
    assert step.is_done(of)
    return said


def test_the_key_comes_from_a_file_a_variable_or_a_terminal(deployed: Account, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    said = store(deployed, {"BINANCE_API_KEY_FILE": str(file)})
    assert (stored_value(deployed), has_key(deployed)) == (KEY, True)
    said += store(deployed, {"BINANCE_API_KEY": KEY[::-1]})  # another one replaces it
    assert stored_value(deployed) == KEY[::-1]
    assert KEY not in str(said)


def test_a_key_that_is_stored_is_asked_for_no_more(deployed: Account) -> None:
    store(deployed, {}, typed=KEY)
    assert stored_value(deployed) == KEY
    assert StoreKey({}).is_done(deployed)


class Running:
    """An account whose ingest service was deployed at `deployed`, and whose key was stored at `stored`. Moto
    gives a secret's date, not that of its version."""

    def __init__(self, deployed: datetime, stored: datetime) -> None:
        self.deployed, self.stored = deployed, stored

    def client(self, service: str) -> Any:
        return self

    def outputs(self, part: str) -> dict[str, str]:
        return dict.fromkeys(("ClusterArn", "IngestService", "ExchangeKeyArn"), "x")

    def describe_services(self, **_: Any) -> Any:
        return {"services": [{"deployments": [{"createdAt": self.deployed}]}]}

    def get_secret_value(self, **_: Any) -> Any:
        return {"SecretString": KEY, "CreatedDate": self.stored}

    class exceptions:  # noqa: N801 (boto3's name)
        class ResourceNotFoundException(Exception):
            pass

    def update_service(self, **_: Any) -> None:
        self.deployed = self.stored + timedelta(seconds=1)


def test_a_key_that_no_task_has_read_yet_replaces_the_task() -> None:
    """As after an interruption between storing it and replacing the task."""
    stored = datetime(2026, 1, 1, tzinfo=UTC)
    of: Any = Running(stored - timedelta(seconds=1), stored)
    assert store(of, {"BINANCE_API_KEY": KEY}) == ["the ingest task is replaced, to read it"]


def test_without_a_key_the_secret_says_so(deployed: Account) -> None:
    assert stored_value(deployed) is None
    said = store(deployed, {})
    assert (stored_value(deployed), has_key(deployed)) == (NO_KEY, False)
    assert "public JSON mirror" in said[0]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"BINANCE_API_KEY_FILE": "/nowhere/key"},
            "BINANCE_API_KEY_FILE is '/nowhere/key', which does not exist; name",
        ),
        ({"BINANCE_API_KEY_FILE": "/"}, "is '/', which cannot be read (Is a directory)"),
        ({"BINANCE_API_KEY": "none"}, "BINANCE_API_KEY holds no key"),
        ({"BINANCE_API_KEY": f"two {KEY}"}, "BINANCE_API_KEY has white space within"),
        ({"BINANCE_API_KEY": f"{KEY}é"}, "BINANCE_API_KEY"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(OperationRefused) as refused:
        given_key(environment)
    assert reason in str(refused.value)
    assert KEY not in str(refused.value)


def test_an_empty_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    with pytest.raises(OperationRefused, match="the file in BINANCE_API_KEY_FILE holds no key"):
        given_key({"BINANCE_API_KEY_FILE": str(tmp_path / "key")})


def test_it_is_typed_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: f" {KEY} ")
    assert exchange_key.ask_on_terminal() == ""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert exchange_key.ask_on_terminal() == KEY


def test_programs_that_are_called_do_not_get_it_and_work_in_the_configured_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    passed_on = Toolkit(account(), "podman").environment()
    assert KEY not in passed_on.values()
    assert (passed_on["AWS_REGION"], passed_on["CDK_DOCKER"]) == ("ap-northeast-1", "podman")
