"""A model that was trained elsewhere, on rows in a real PostgreSQL: checked, calibrated, evaluated, shadowed.
S3 is moto's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.filled_history import fill, market
from tests.fixtures.imported import document, linear
from tests.fixtures.market import START_US
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.adapters.registry.polling import inline
from tickcast.adapters.settings import DatabaseSettings
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.functions.evaluate_model import evaluate_model
from tickcast.functions.import_model import import_model, staged_key
from tickcast.functions.promote_model import promote_model
from tickcast.functions.refit_model import refit_model
from tickcast.functions.request import RequestError
from tickcast.model.forecast import PATH_S
from tickcast.units import SECOND_US

pytestmark = pytest.mark.integration

BTC = "BTCUSDT"
FROM_US = START_US // SECOND_US * SECOND_US
NOW = datetime.fromtimestamp(FROM_US / 1e6, UTC) + timedelta(hours=6)
LEARNED_TO = (NOW - timedelta(hours=6)).isoformat()
# By which `market` moves, in σ√t by unit of imbalance and of order flow.
GOOD = np.array([[0.6] * 4, [0.36] * 4])
WEAK = 0.1 * GOOD
Import = Callable[..., dict[str, Any]]


@pytest.fixture
def reader(
    history_database: Database, loader_settings: DatabaseSettings
) -> Iterator[psycopg.Connection[Any]]:
    fill(history_database.connection(), BTC, market(1, 600, FROM_US))
    with Database(replace(loader_settings, user="tickcast_reader")) as database:
        yield database.connection()


@pytest.fixture
def import_(s3: Any, reader: psycopg.Connection[Any]) -> Import:
    def run(model_id: str, weights: Floats, **fields: Any) -> dict[str, Any]:
        s3.put_object(Bucket=BUCKET, Key=staged_key(model_id, 0), Body=linear(weights))
        request = {
            "model_id": model_id,
            "files": 1,
            "description": document(**{"learned_to": LEARNED_TO} | fields),
        }
        return import_model(request, s3, BUCKET, NOW, reader, lambda: 0.0)

    return run


def test_an_imported_model_runs_in_shadow_before_the_gate_may_promote_it(
    s3: Any, reader: psycopg.Connection[Any], import_: Import
) -> None:
    first = import_("m1", WEAK)
    assert first["imported"] and first["in_force"] is first["challenger"] is None
    model_registry.promote(s3, BUCKET, "m1", NOW.isoformat(), by="hand")

    good = import_("m2", GOOD)
    assert (good["in_force"], good["challenger"], good["status"]) == ("m1", "m2", "kept")
    assert good["sentence"].startswith("Challenger beats the champion by 0.")
    assert good["sentence"].endswith("It runs in shadow first.")
    card = model_registry.read_card(s3, BUCKET, "m2")
    assert card.provisional and card.gate and card.gate.passed and not card.gate.promoted
    assert card.imported and card.imported.symmetric and card.imported.inputs == ["imbalance", "ofi_200ms"]
    assert card.calibration[1].interval_width < first["card"]["calibration"]["1"]["interval_width"]
    assert card.test[1].skill and card.test[1].skill > 0.1
    assert "## Imported" in s3.get_object(Bucket=BUCKET, Key="models/m2/card.md")["Body"].read().decode()
    assert not card.row_by_row
    model_registry.save_card(
        s3, BUCKET, model_registry.card_document(s3, BUCKET, "m2") | {"row_by_row": True}
    )
    watcher = ModelWatcher(s3, BUCKET, lambda: 0.0, inline)
    served = watcher.current()
    assert served and watcher.challenger and watcher.problem is watcher.challenger_problem is None
    assert (served.model_id, watcher.challenger.model_id) == ("m1", "m2")

    assert type(served.run) is OnnxModel and type(watcher.challenger.run) is not OnnxModel
    move_bp = watcher.challenger.paths([BTC] * 2, np.ones((2, len(FEATURE_NAMES))))[0]
    assert move_bp.shape == (2, len(PATH_S)) and (move_bp > 0).all()

    # Asked for again, it is imported again; no other model is replaced, nor the active one.
    assert import_("m2", GOOD)["challenger"] == "m2"
    with pytest.raises(RequestError, match="there is a model m1 already"):
        import_("m1", GOOD)
    trained = model_registry.card_document(s3, BUCKET, "m1") | {"model_id": "m0", "imported": None}
    model_registry.save_document(s3, BUCKET, b"trained here", trained)
    with pytest.raises(RequestError, match="there is a model m0 already"):
        import_("m0", GOOD)

    # A better one takes its place in shadow, and its card does not say that it runs there.
    assert import_("m4", GOOD + 0.01)["challenger"] == "m4"
    displaced = model_registry.read_card(s3, BUCKET, "m2").gate
    assert displaced and displaced.passed and "in shadow" not in displaced.sentence
    assert import_("m2", GOOD)["challenger"] == "m2"

    # One that is worse than no change changes nothing.
    bad = import_("m3", -GOOD)
    assert (bad["in_force"], bad["challenger"]) == ("m1", "m2")
    assert bad["imported"] and "not_above_no_change" in bad["reasons"]

    # The next evaluation, of any challenger, decides on the one in shadow as well.
    decision = evaluate_model({"model_id": "m3"}, s3, BUCKET, reader, [BTC], NOW)
    assert decision["promote"] == "m2"
    assert promote_model(decision, s3, BUCKET, NOW)["in_force"] == "m2"
    refit = refit_model("m2", s3, BUCKET, NOW, reader)
    assert not refit.promoted and "it was imported" in str(refit.why)


def test_what_is_wrong_with_a_model_is_the_answer(s3: Any, import_: Import) -> None:
    wrong = import_("m1", GOOD[:1])
    assert not wrong["imported"] and "has 1 columns, its description names 2 inputs" in wrong["why"]
    early = import_("m1", GOOD, learned_to=NOW.isoformat())
    assert "PostgreSQL has 0 rows with quotes that are newer than learned_to" in early["why"]
    odd = import_("m1", GOOD, colour="blue")
    assert "`colour`" in odd["why"]
    in_bp = import_("m1", 1e3 * GOOD)
    assert "are its moves in the unit that its description names?" in in_bp["why"]
    assert model_registry.cards(s3, BUCKET) == []


def test_a_request_that_is_none_is_refused(s3: Any, reader: psycopg.Connection[Any]) -> None:
    with pytest.raises(RequestError, match="model_id"):
        import_model({"files": 1, "description": {}}, s3, BUCKET, NOW, reader)
    with pytest.raises(RequestError, match="which names no model"):
        odd = {"model_id": "../current", "files": 1, "description": {}}
        import_model(odd, s3, BUCKET, NOW, reader)
    missing = {"model_id": "m1", "files": 1, "description": document(learned_to=LEARNED_TO)}
    assert "imported-0.onnx is not there" in import_model(missing, s3, BUCKET, NOW, reader)["why"]
