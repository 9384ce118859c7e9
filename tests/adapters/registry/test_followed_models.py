"""The active model and its challenger, polled by the pointer in S3 (moto's) while predictions continue."""

from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import CARD, Clock, put_model, save_model, ticks_in
from tests.fixtures.kinesis_events import batch_event
from tests.fixtures.records import known
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.pointer import POINTER
from tickcast.functions.predict_stream import PredictStream, Result
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.records import Prediction


@pytest.fixture
def models(predict: PredictStream) -> ModelWatcher:
    return predict.models


class Market:
    """Ticks without end, given to the function piece by piece."""

    def __init__(self, predict: PredictStream, clock: Clock) -> None:
        self._predict, self._clock = predict, clock
        self._pieces, self._at = ticks_in(60), 0

    def __call__(self, seconds: int = 5) -> Result:
        """The next seconds in one event; the clock advances as far."""
        pieces = self._pieces[self._at : self._at + seconds * 10]
        result = self._predict(batch_event(self._at, *pieces))
        self._at += len(pieces)
        self._clock.ms += seconds * 1000
        return result

    def second_by_second(self, seconds: int) -> list[Prediction]:
        """The next seconds in one event each, and so with one prediction each."""
        return [prediction for _ in range(seconds) for prediction in self(1).predictions]


@pytest.fixture
def market(predict: PredictStream, clock: Clock) -> Market:
    return Market(predict, clock)


def model_ids(result: Result) -> set[str | None]:
    return {prediction.model_id for prediction in result.predictions}


def test_a_moved_pointer_is_picked_up_within_five_seconds(market: Market, s3: Any) -> None:
    put_model(s3, "m1")
    assert model_ids(market(15)) == {"m1"}
    put_model(s3, "m2", provisional=False)
    seconds_until = next(n for n in range(1, 20) if model_ids(market(1)) == {"m2"})
    assert seconds_until <= 5
    assert market(1).predictions[-1].provisional is False


def test_both_calibrations_of_a_card_are_served(s3: Any) -> None:
    masked = {str(h): {"direction_slope": 0.5, "interval_width": 9.0} for h in HORIZONS_S}
    put_model(s3, "m1", masked_calibration=masked)
    model = ModelWatcher(s3, BUCKET, lambda: 0.0).current()
    assert model is not None and model.masked_calibrations is not None
    assert {c.interval_width for c in model.masked_calibrations.values()} == {9.0}
    assert {c.interval_width for c in model.calibrations.values()} == {1.0}


def test_a_promoted_challenger_is_as_provisional_as_the_gate_decided(market: Market, s3: Any) -> None:
    """Its card was read when it ran in shadow, before the decision."""
    save_model(s3, "m2", provisional=True)
    put_model(s3, "m1", challenger="m2")
    assert market(15).predictions[-1].provisional is True
    model_registry.promote(s3, BUCKET, "m2", "then", provisional=False)
    newest = [market(1) for _ in range(6)][-1].predictions[-1]
    assert (newest.model_id, newest.provisional) == ("m2", False)


def test_nothing_is_polled_while_a_prediction_waits(market: Market, s3: Any) -> None:
    """While events come, the pointer is read after the writing: the event in which a poll is due still
    predicts with the model that was active before."""
    put_model(s3, "m1")
    market(15), market(1)
    put_model(s3, "m2")
    assert [model_ids(market(1)) for _ in range(4)] == [{"m1"}, {"m1"}, {"m1"}, {"m2"}]


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ({"feature_hash": "of-another-code"}, "of-another-code"),
        ({"path_s": [1, 2, 5, 10]}, "forecasts the instants 1, 2, 5, 10 s"),
        ({"calibration": {"1": CARD["calibration"]["1"]}}, r"no calibration for horizons [2, 5, 10]"),
        ({"calibration": {"1": {"slope": 1}}}, "calibration"),
        ({"support": {"rainfall": [0, 1]}}, "rainfall"),
        ({"support": {"spread": 5}}, "Expected `array`, got `int` - at `$.support[...]`"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_the_one_before_kept(
    market: Market, models: ModelWatcher, s3: Any, card: dict[str, Any], why: str
) -> None:
    put_model(s3, "m1")
    assert not market(15).model_refused
    put_model(s3, "m2", **card)
    market()
    refused = market()
    assert (model_ids(refused), refused.predictions[-1].source) == ({"m1"}, "model")
    assert refused.model_refused and models.is_refused
    assert any(why in problem for problem in refused.problems)
    put_model(s3, "m3")
    market()
    mended = market()
    assert (model_ids(mended), mended.model_refused, models.problem) == ({"m3"}, False, None)


@pytest.mark.parametrize(
    ("key", "body", "why"),
    [
        (POINTER, b"{not json", "JsonError"),
        (POINTER, b"[]", "it is [], it should be a JSON object"),
        (POINTER, b'{"model_id": "m9"}', "models/m9/card.json is not there"),
        ("models/m2/card.json", b"[]", "the card is '[]', it should be a JSON object"),
        ("models/m2/card.json", b'{"line": {"1": NaN}}', "line.1 is nan"),
        ("models/m2/model.onnx", b"garbage", "not a model onnxruntime can load"),
    ],
)
def test_damaged_objects_are_refused(
    market: Market, models: ModelWatcher, s3: Any, key: str, body: bytes, why: str
) -> None:
    put_model(s3, "m1")
    market(15)
    put_model(s3, "m2")
    s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    market()
    assert model_ids(market()) == {"m1"}
    assert models.is_refused and why in str(models.problem)


def test_a_first_model_that_does_not_fit_has_its_own_reason(market: Market, s3: Any) -> None:
    put_model(s3, "m1", feature_hash="of-another-code")
    result = market(15)
    assert result.predictions[-1].reason == "model_refused"
    assert result.model_refused


def test_an_unreachable_s3_is_a_problem_not_a_refusal(
    market: Market, models: ModelWatcher, s3: Any, clock: Clock
) -> None:
    once = Config(retries={"total_max_attempts": 1})
    nowhere = boto3.client("s3", endpoint_url="http://127.0.0.1:1", region_name="us-east-1", config=once)
    good, models._s3 = models._s3, nowhere
    put_model(s3, "m1")
    result = market(15)
    assert (result.predictions[-1].reason, result.model_refused) == ("no_model", False)
    assert any("EndpointConnectionError" in problem for problem in result.problems)
    models._s3 = good
    market()
    assert market().predictions[-1].model_id == "m1"
    assert models.problem is None
    models._s3 = nowhere
    market()
    assert market().predictions[-1].source == "model"


def test_a_challenger_runs_in_shadow(market: Market, s3: Any) -> None:
    save_model(
        s3, "m2", calibration={str(h): {"direction_slope": 9.0, "interval_width": 2.0} for h in HORIZONS_S}
    )
    put_model(s3, "m1", challenger="m2")
    predictions = market.second_by_second(15)
    assert predictions[0].challenger is None  # warming up
    newest = predictions[-1]
    assert (newest.model_id, known(newest.challenger).model_id) == ("m1", "m2")
    for horizon_s, champion in newest.horizons.items():
        challenger = known(newest.challenger).horizons[horizon_s]
        assert challenger.expected_move_bp == champion.expected_move_bp  # the same network
        assert challenger.confidence > champion.confidence
    resolved = [o for o in market().outcomes if o.source == "model"]
    assert {known(o.challenger).model_id for o in resolved} == {"m2"}
    assert all(isinstance(known(o.challenger).inside, bool) for o in resolved)


def test_a_promoted_challenger_continues_with_its_calibration(market: Market, s3: Any) -> None:
    save_model(s3, "m2")
    put_model(s3, "m1", challenger="m2")
    market.second_by_second(25)
    put_model(s3, "m2")
    market(), market()  # the pointer is read again in one of these, after its prediction
    promoted = market().predictions[-1]
    assert (promoted.model_id, promoted.challenger) == ("m2", None)
    assert promoted.calibrator[1].outcomes > 10
    put_model(s3, "m1")
    market()
    returned = next(p for p in market().predictions if p.model_id == "m1")
    assert returned.calibrator[10].outcomes == 0  # from its card again


def test_a_challenger_keeps_its_calibration_through_fallbacks(
    market: Market, predict: PredictStream, s3: Any
) -> None:
    """A fallback of the active model, outside its support, and one while the challenger cannot be loaded."""
    save_model(s3, "m2")
    put_model(s3, "m1", challenger="m2")
    before = market.second_by_second(20)[-1]
    assert known(before.challenger).model_id == "m2"
    state = predict.store.load(["BTCUSDT"])[0]["BTCUSDT"]
    outcomes = {horizon_s: each.outcomes for horizon_s, each in state.pending.calibrators["m2"].items()}
    assert outcomes[1] > 5
    champion = predict.models.current()
    object.__setattr__(champion, "support", {"sigma_bp": (900.0, 1000.0)})
    fallback = market(2).predictions[-1]
    assert (fallback.source, fallback.horizons) == ("fallback", {})
    object.__setattr__(champion, "support", {})
    active = predict.models._active
    predict.models._active = predict.models._polled = replace(
        active, challenger=None, challenger_problem="challenger: out of reach"
    )
    assert market(2).predictions[-1].challenger is None
    predict.models._active = predict.models._polled = active
    market(1)
    state = predict.store.load(["BTCUSDT"])[0]["BTCUSDT"]
    assert set(state.pending.calibrators) == {"m1", "m2"}
    assert all(state.pending.calibrators["m2"][h].outcomes >= count for h, count in outcomes.items())


@pytest.mark.parametrize(
    "card", [{"feature_hash": "of-another-code"}, {"provisional": None, "calibration": []}, None]
)
def test_a_challenger_that_cannot_be_loaded_does_not_affect_the_champion(
    market: Market, s3: Any, card: dict[str, Any] | None
) -> None:
    if card:
        save_model(s3, "m2", **card)
    put_model(s3, "m1", challenger="m2")
    result = market(15)
    newest = result.predictions[-1]
    assert (newest.source, newest.model_id, newest.challenger) == ("model", "m1", None)
    assert (result.challenger_refused, result.model_refused) == (True, False)
    assert any(problem.startswith("challenger:") for problem in result.problems)


def test_a_challenger_that_fails_does_not_affect_the_champion(
    market: Market, models: ModelWatcher, s3: Any
) -> None:
    save_model(s3, "m2")
    put_model(s3, "m1", challenger="m2")
    market(15)
    assert models.challenger

    def fail(rows: Any) -> Any:
        raise RuntimeError("out of memory")

    object.__setattr__(models.challenger, "run", fail)
    result = market(1)
    assert (result.predictions[-1].source, result.predictions[-1].challenger) == ("model", None)
    assert result.challenger_refused
    assert "challenger m2: RuntimeError: out of memory" in result.problems


def test_the_support_on_the_card_is_respected(market: Market, s3: Any) -> None:
    put_model(s3, "m1", support={"sigma_bp": [900, 1000], "imbalance": [-1, 1]})
    newest = market(15).predictions[-1]
    assert (newest.reason, newest.outside, newest.model_id) == (
        "outside_support",
        ["sigma_bp"],
        "m1",
    )
