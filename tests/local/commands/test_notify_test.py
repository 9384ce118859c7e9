"""`make notify-test` without a system: what it says of deployments and of messages."""

from __future__ import annotations

from typing import Any

import pytest

from local.commands import notify_test
from local.commands.deployment import Deployment, DeploymentNotFound


def there(**outputs: str) -> Deployment:
    return Deployment("AWS, dev", outputs, lambda service: pytest.fail(service))


@pytest.mark.parametrize(
    ("aws", "said"), [("dev", "`signals` of cdk/config/dev.yaml"), ("", "make run SIGNALS=signals.yaml")]
)
def test_a_deployment_without_signals_hears_how_to_get_some(aws: str, said: str) -> None:
    with pytest.raises(DeploymentNotFound, match=said):
        notify_test.function_of(there(), aws)
    assert notify_test.function_of(there(SendSignalsFunction="f"), aws) == "f"


@pytest.mark.parametrize(
    ("became", "said"),
    [
        ({"became": "sent", "attempts": 1}, "desk: sent"),
        ({"became": "sent", "attempts": 3}, "desk: sent at attempt 3"),
        ({"became": "failed", "why": "it answers 404"}, "[red]desk[/red]: not sent: it answers 404"),
    ],
)
def test_what_became_of_a_message(became: dict[str, Any], said: str) -> None:
    assert notify_test.sentence({"destination": "desk", "why": "", **became}) == said
