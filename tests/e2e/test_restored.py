"""What a test that fails half-way leaves behind in the running system is gone before the next."""

from __future__ import annotations

import pytest

from local.commands.deployment import Deployment
from local.system import http_json
from local.system.system import System
from tests.fixtures.restored_system import Found
from tests.fixtures.running_system import reschedule
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.pointer import LIFTED

pytestmark = pytest.mark.integration


def test_models_schedule_ingest_and_faults_are_restored(system: System, there: Deployment) -> None:
    found, faults = Found.of(system, there), f"{system.exchange_url}/local/faults"
    model_registry.hold(there.s3, there.bucket, LIFTED)
    reschedule(system, "rate(1 hour)")
    system.start_ingest()
    fault = {"kind": "rest_status", "status": 503}
    assert http_json.send("POST", faults, fault).status == 200
    assert Found.of(system, there) != found
    found.restore(system, there)
    assert Found.of(system, there) == found
    assert len(system.ingest) == 1
    assert http_json.get(faults).body["active"] == []
