from __future__ import annotations

import pytest

from local.system import cloud
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
