from __future__ import annotations

import pytest

from local.system import cloud
from local.system.emulator import EMULATORS
from local.system.processes import Processes
from local.system.state_folder import StateFolder


def test_the_users_aws_settings_are_not_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "real")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("NO_PROXY", "intranet")
    environment = cloud.environment("http://127.0.0.1:1", StateFolder("sim"))
    assert "real" not in environment.values()
    assert environment["AWS_ACCESS_KEY_ID"] == "test"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert environment["NO_PROXY"] == "intranet,127.0.0.1"


def loaded_with(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, list[str], bool]) -> list[str]:
    results = iter(
        {"objects": objects, "quarantined": quarantined, "problems": [], "complete": complete}
        for objects, quarantined, complete in answers
    )
    monkeypatch.setattr(cloud, "invoke", lambda functions, function, request: next(results))
    state = StateFolder("sim")
    processes = Processes(state.path, state.logs, {})
    emulated = cloud.Cloud(EMULATORS["ministack"], "http://127.0.0.1:1", processes, state)
    return emulated.load("load_history", {})


def test_objects_that_are_refused_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded_with(monkeypatch, (2, ["a is no tick"], False), (0, ["b is none"], True)) == [
        "a is no tick",
        "b is none",
    ]
    assert loaded_with(monkeypatch, (0, [], True)) == []  # all were loaded before


def test_a_load_of_refused_objects_alone_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cloud.FunctionFailed, match="load_history: a is no tick"):
        loaded_with(monkeypatch, (0, ["a is no tick"], True))
