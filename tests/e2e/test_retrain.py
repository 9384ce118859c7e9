"""The whole loop on the running system: history, a challenger, the gate, and who serves follows."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from localstack_client.session import Session
from rich.console import Console

from local import backfill, http_json, models, retrain
from local.backfill import Asked, Deployment
from local.retrain import Retraining
from local.system import System
from tickcast.adapters import model_registry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def there(system: System) -> Deployment:
    return backfill.at("the system of the tests", system.cloud.endpoint_url)


@pytest.fixture
def pointer(system: System, aws: Session) -> Iterator[Callable[[], dict[str, Any]]]:
    """The pointer as it stands; afterwards the model that was in force before is so again."""
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]

    def now() -> dict[str, Any]:
        found = model_registry.in_force(s3, bucket)
        assert found is not None
        return found

    before = now()["model_id"]
    yield now
    if now()["model_id"] != before:
        model_registry.promote(s3, bucket, before, "after the test")


def eventually(look: Callable[[], Any], patience_s: float) -> Any:
    """The first true result of `look`."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing within {patience_s} s"
        time.sleep(0.2)
    return found


def served_by(system: System, model_id: str) -> Any:
    """The newest prediction, if that model made it."""
    answer = http_json.get(f"{system.api_url}predictions/BTCUSDT", {"x-api-key": system.api_key})
    return answer.status == 200 and answer.body["model_id"] == model_id and answer.body


def test_from_history_to_the_model_that_serves(
    system: System, aws: Session, there: Deployment, pointer: Callable[[], dict[str, Any]]
) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    champion = pointer()["model_id"]
    started_us = time.time_ns() // 1000
    asked = Retraining(Asked(days=1))
    report = backfill.watch(there, there.start(asked.request()), Console(file=io.StringIO()))
    assert (report.ok, report.causes) == (True, [])
    result = retrain.outcome(report)
    assert result["champion"] == champion
    assert result["rows_with_quotes"] > 10_000

    card = model_registry.read_card(s3, bucket, result["model_id"])
    assert card["parent"] == champion
    assert card["gate"]["reasons"] == result["reasons"]
    assert card["gate"]["block"]["from_us"] >= card["learned_to_us"]
    # What the stream brought is there, up to about the minute that is left to it.
    assert card["data"]["to_us"] > started_us - 180_000_000
    assert set(card["gate"]["figures"]["all"]) >= {"champion", "no_change", "last_trade", "linear_imbalance"}
    page = s3.get_object(Bucket=bucket, Key=f"models/{result['model_id']}/card.md")["Body"].read().decode()
    assert card["gate"]["sentence"] in page
    assert result["provisional"] is True  # a simulated market proves nothing

    stands = pointer()
    if result["promoted"]:
        assert (stands["model_id"], stands["previous"][0]["model_id"]) == (result["model_id"], champion)
    else:
        assert stands["model_id"] == champion
        assert stands["challenger"] in (None, {"model_id": result["model_id"]})
        models.promote(s3, bucket, result["model_id"])
    eventually(lambda: served_by(system, result["model_id"]), 15)
    assert champion in models.roll_back(s3, bucket)
    eventually(lambda: served_by(system, champion), 15)

    listed = http_json.get(f"{system.api_url}models", {"x-api-key": system.api_key}).body
    assert result["model_id"] in {model["model_id"] for model in listed["models"]}
    assert json.dumps(listed["current"])  # the pointer, whatever it has learnt to say


def test_a_model_of_another_code_is_not_put_in_force(
    system: System, aws: Session, pointer: Callable[[], dict[str, Any]]
) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    before = pointer()
    card = model_registry.read_card(s3, bucket, before["model_id"]) | {"feature_hash": "of-another-code"}
    model_registry.save(s3, bucket, "misfit", b"", card | {"model_id": "misfit"})
    with pytest.raises(model_registry.RegistryError, match="of-another-code"):
        models.promote(s3, bucket, "misfit")
    assert pointer() == before
