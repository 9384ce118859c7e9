"""The commands as `make` calls them: what is refused, and with which exit status."""

from __future__ import annotations

import pytest

from local.commands.command import ExitStatus
from operations.__main__ import COMMANDS, main


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


def test_prod_is_not_destroyed_by_accident(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["destroy", "prod"]) == ExitStatus.USAGE
    assert "CONFIRM=prod" in capsys.readouterr().err


def test_without_credentials_each_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "dev"]) == ExitStatus.FAILED
    assert "credentials of an AWS account" in capsys.readouterr().err
    assert main(["doctor", "dev"]) == ExitStatus.FAILED
    assert "credentials: " in capsys.readouterr().out
    assert main(["destroy", "dev", "--confirm", "dev"]) == ExitStatus.FAILED
    assert "Unable to locate credentials" in capsys.readouterr().err
