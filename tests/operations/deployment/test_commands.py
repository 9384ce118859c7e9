"""The commands as `make` calls them: what is refused, and with which exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from botocore.config import Config

from local.commands.command import ExitStatus
from local.system import cloud
from operations.__main__ import COMMANDS, main
from operations.deployment import destroy, toolkit
from operations.deployment.account import Account
from tests.fixtures.paths import ROOT


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it keeps the credentials of earlier tests


def test_all_are_there() -> None:
    assert {"deploy", "destroy", "diff", "doctor"} <= COMMANDS.keys()


@pytest.mark.parametrize("command", ["deploy", "destroy", "diff", "doctor"])
def test_an_environment_that_is_not_in_an_account_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "local"]) == ExitStatus.USAGE
    assert "ENV is 'local'; it should be one of dev, prod" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "wrong", "known"),
    [("deploy", "local", "dev prod"), ("cost", "prodd", "dev prod"), ("rehearse", "x", "local dev prod")],
)
def test_make_offers_the_environments_of_its_target(target: str, wrong: str, known: str) -> None:
    command = ["make", "--dry-run", "--old-file=.venv/.stamp", target, f"ENV={wrong}"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f'ENV is "{wrong}"; for {target} it should be one of: {known}.' in refused.stderr


def test_prod_is_not_destroyed_by_accident(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["destroy", "prod"]) == ExitStatus.USAGE
    assert "CONFIRM=prod" in capsys.readouterr().err


def test_without_credentials_each_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "dev"]) == ExitStatus.FAILED
    assert "credentials of an AWS account" in capsys.readouterr().err
    assert main(["doctor", "dev"]) == ExitStatus.FAILED
    assert "credentials of an AWS account" in capsys.readouterr().out
    for name in ("dev", "prod"):
        assert main(["destroy", name, "--confirm", name]) == ExitStatus.FAILED
        assert "credentials of an AWS account" in capsys.readouterr().err


def test_diff_asks_for_credentials_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*_: object) -> int:
        raise AssertionError("built without credentials")

    monkeypatch.setattr(toolkit, "run", build)
    assert main(["diff", "dev"]) == ExitStatus.FAILED
    assert "credentials of an AWS account: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["deploy"], ["diff"], ["doctor"], ["destroy", "--confirm", "dev"]])
def test_an_address_that_is_not_reached_is_not_a_lack_of_credentials(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    for variable, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("operations.deployment.account._RETRIES", Config(retries={"total_max_attempts": 1}))
    assert main([name, "dev", *options]) == ExitStatus.FAILED
    said = "".join(capsys.readouterr())
    assert "AWS is not reached" in said
    assert "unset AWS_ENDPOINT_URL=http://127.0.0.1:1" in said
    assert "credentials of an AWS account" not in said


def test_a_destruction_of_prod_that_broke_off_is_repeated_as_it_was_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = []
    monkeypatch.setattr(destroy, "carry_out", lambda *given: said.append(given[-1]))
    monkeypatch.setattr(Account, "check_access", lambda self: None)
    monkeypatch.setattr(destroy, "kept", lambda account: [])
    assert main(["destroy", "prod", "--confirm", "prod"]) == ExitStatus.OK
    assert said == ["make destroy ENV=prod CONFIRM=prod"]


def test_output_that_nobody_reads_is_no_traceback() -> None:
    """As of `make cost ENV=dev | head -1`."""
    program = (
        "import sys; from operations.__main__ import *\n"
        "command = Command('x', '', print, lambda given: print('much ' * 100_000))\n"
        "sys.exit(execute(command, argparse.Namespace()))"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/layers/core/python"}
    started = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout and started.stderr
    started.stdout.close()
    with started.stderr:
        assert started.stderr.read() == ""
    assert started.wait() == ExitStatus.FAILED
