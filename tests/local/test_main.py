"""The exit statuses of the command line, and the messages of commands that cannot start."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from local.__main__ import execute, main
from local.commands.command import Command, ExitStatus
from local.system import state_folder


@pytest.fixture(autouse=True)
def no_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_folder, "LOCAL", tmp_path)
    monkeypatch.delenv("KEY", raising=False)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("gaps", 1, "no system is running in this checkout"),
        ("gaps --url http://127.0.0.1:9/", 1, "http://127.0.0.1:9/health does not respond"),
        ("models", 1, "no system is running in this checkout"),
        ("promote m1", 1, "no system is running in this checkout"),
        ("rollback", 1, "no system is running in this checkout"),
        ("rollback --aws stage", 2, "AWS is 'stage'"),
        ("explain BTCUSDT-1723161253000", 1, "no system is running in this checkout"),
        ("explain x", 2, "ID is 'x'"),
        ("export", 2, "which time?"),
        ("export --from 2024-08-01 --to 2024-08-02", 1, "no system is running in this checkout"),
        ("backfill", 2, "which history?"),
        ("retrain --days -1", 2, "DAYS is -1"),
        ("drills --only earthquake", 2, "no drill earthquake"),
        ("smoke --seconds 0", 2, "SECONDS is 0"),
        ("run --feed replay", 2, "FEED=replay needs recordings"),
        ("evaluate --session missing.gz", 2, "missing.gz: No such file or directory"),
    ],
)
def test_exit_status_and_message(
    arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == status
    assert f"tickcast: {message}" in capsys.readouterr().err


def test_a_system_that_stops_while_it_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    def watch(given: Namespace) -> ExitStatus:
        boto3.client(
            "stepfunctions",
            endpoint_url="http://127.0.0.1:9",
            region_name="ap-northeast-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",
            config=Config(retries={"total_max_attempts": 1}),
        ).list_state_machines()
        return ExitStatus.OK

    assert execute(Command("retrain", "", lambda parser: None, watch), Namespace()) is ExitStatus.FAILED
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9" in said
    assert "the system there has stopped" in said
