"""Outcomes from a real Redis in a real PostgreSQL, once each, their scores, and drift."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
import redis
from msgspec import to_builtins

from tests.fixtures import records
from tests.fixtures import tallies as planted
from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import commit, put_model
from tests.fixtures.settings import configured
from tickcast.adapters import json_text
from tickcast.adapters.lake.receipt_archive import ReceiptArchive
from tickcast.adapters.lake.signal_outbox import read_signal
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.score_store import ScoreStore, in_shadow
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, Writes
from tickcast.adapters.registry.served_symbols import ServedSymbols, hot_text
from tickcast.adapters.settings import DatabaseSettings, ScorePredictionsSettings, ScoreSettings
from tickcast.evaluation import drift
from tickcast.evaluation.challenger_scores import score_challenger
from tickcast.evaluation.drift import DriftPolicy
from tickcast.evaluation.earnings import earnings_by_horizon
from tickcast.evaluation.live_scores import SPANS, score
from tickcast.evaluation.regimes import NO_REGIMES, TERCILES
from tickcast.evaluation.steps import series
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions import score_predictions as function
from tickcast.functions.score_predictions import Result, ScorePredictions
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.records import Prediction
from tickcast.serving.signals import Signals
from tickcast.serving.state import SymbolState
from tickcast.units import DAY_US, HOUR_US, MINUTE_US

pytestmark = pytest.mark.integration

SYMBOL = "BTCUSDT"
NOON = 1_760_000_400 // 60 * 60  # s
SETTINGS = configured(ScorePredictionsSettings)
SCORES = ScoreSettings(
    DriftPolicy(min_scored=100, stability_high=0.25, stability_low=0.1, raise_after=2, cool_down_s=3600),
    window_s=700,
    history_days=2,
    train_days=7,
)
PLENTY: Callable[[], float] = lambda: 60_000.0  # noqa: E731


class Hot:
    """Writes like the hot path."""

    def __init__(self, client: redis.Redis) -> None:
        self._store = HotStore(client, SETTINGS.lateness_us)
        self._sequence = 0

    def write(self, outcomes: list[dict[str, Any]], predictions: list[Prediction] | None = None) -> None:
        """Outcomes as they are, invalid ones included."""
        writes = Writes()
        for each in sorted(outcomes, key=lambda o: (o["target_time"], o["horizon_s"])):
            entry = keys.outcome_entry(each["target_time"], each["horizon_s"])
            data = json_text.text(each).encode()
            writes.append.append((keys.outcomes(SYMBOL), keys.OUTCOMES_KEPT, entry, data))
        for prediction in predictions or []:
            writes.prediction(prediction)
        before, self._sequence = self._sequence, self._sequence + 1
        state = SymbolState(SYMBOL, BarRing(SETTINGS.lateness_us), sequence=self._sequence)
        assert commit(self._store, state, before, writes)


@pytest.fixture
def hot(redis_client: redis.Redis) -> Hot:
    return Hot(redis_client)


@pytest.fixture
def score_database(loader_settings: DatabaseSettings) -> Iterator[Database]:
    """The database with the rights of the scorer."""
    with Database(msgspec.structs.replace(loader_settings, user="tickcast_scorer")) as database:
        yield database


@pytest.fixture
def scorer(redis_client: redis.Redis, s3: Any, score_database: Database) -> Callable[..., Result]:
    """Scores at a second after NOON, after a cold start."""

    def run(
        second: int, scores: ScoreSettings = SCORES, remaining_ms: Callable[[], float] = PLENTY
    ) -> Result:
        return ScorePredictions(
            SETTINGS, scores, redis_client, s3, score_database, lambda: (NOON + second) * 1000
        )(remaining_ms)

    return run


def test_receipts_and_the_tallies_of_whole_hours_go_to_the_lake(
    hot: Hot, scorer: Callable[..., Result], s3: Any, score_database: Database
) -> None:
    made = [records.prediction((NOON + second) * 1000, horizons={}) for second in (0, 3900)]
    hot.write([at(second) for second in (0, 1, 3700)], made)
    archive, receipts = TallyArchive(lambda: s3, BUCKET), ReceiptArchive(lambda: s3, BUCKET)
    day_us = NOON * 1_000_000 // DAY_US * DAY_US
    assert scorer(3600 + 59).problems == []  # the hour's last outcomes may still come
    assert archive.newest_day_us(SYMBOL) is None
    assert scorer(3600 + 61).problems == []
    found = archive.read(SYMBOL, day_us, day_us + DAY_US)
    stored = ScoreStore(score_database.connection()).tallies(SYMBOL, 0, 2**62, HOUR_US)
    assert found.tallies["count"].sum() == 2
    assert np.array_equal(found.tallies, stored[stored["block"] == NOON // 3600])
    assert (found.first_us, found.until_us) == ((NOON + 2) * 1_000_000, (NOON + 3600) * 1_000_000)
    assert receipts.find(SYMBOL, NOON * 1000) is not None


def test_a_lake_that_is_away_stops_no_scoring(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    s3.delete_bucket(Bucket=BUCKET)
    hot.write([at(0), at(3700)], [records.prediction((NOON + second) * 1000) for second in (0, 3900)])
    result = scorer(3661)
    assert result.outcomes == 2
    assert result.failed == [SYMBOL]
    assert any("receipts of BTCUSDT are not archived" in problem for problem in result.problems)
    assert any("tallies of BTCUSDT are not archived" in problem for problem in result.problems)


def test_symbols_that_time_ran_out_for_are_first_in_the_next_run(
    redis_client: redis.Redis, s3: Any, score_database: Database
) -> None:
    """Or the last ones of many were never scored: the function would be killed before it reached them."""
    many = tuple(f"S{n}USDT" for n in range(20))
    settings = msgspec.structs.replace(SETTINGS, symbols=many)
    score = ScorePredictions(settings, SCORES, redis_client, s3, score_database, lambda: NOON * 1000)
    runs = []
    for _ in range(3):
        left_ms = iter(
            range(22_000, 0, -1000)
        ).__next__  # a second for each symbol: fifteen are left for a page
        result = score(left_ms)
        assert not result.is_complete
        runs.append([*result.hours])
    assert runs == [[*many[:9]], [*many[9:18]], [*many[18:], *many[:7]]]


def test_a_report_is_due_once_in_each_span(
    redis_client: redis.Redis, s3: Any, score_database: Database
) -> None:
    settings = configured(ScorePredictionsSettings, CONDITION_EVERY_MINUTES=60)
    hour_s, clock_s = NOON // 3600 * 3600, 0
    score = ScorePredictions(
        settings, SCORES, redis_client, s3, score_database, lambda: (hour_s + clock_s) * 1000
    )
    due = {}
    for clock_s in (600, 660, 3599, 3600, 3660, 3 * 3600 + 300):  # noqa: B007, the clock's
        due[clock_s] = score(PLENTY).as_dict(SCORES)["report_due"]
    assert [at_s for at_s, is_due in due.items() if is_due] == [600, 3600, 3 * 3600 + 300]


def at(second: int, horizon_s: int = 2, **changed: Any) -> dict[str, Any]:
    return planted.outcome(NOON + second, horizon_s, **changed)


def moved(outcomes: list[dict[str, Any]], seconds: int = 0) -> list[dict[str, Any]]:
    """`outcomes` as of NOON."""
    shift = (NOON + seconds) * 1000
    return [
        each | {"timestamp": each["timestamp"] + shift, "target_time": each["target_time"] + shift}
        for each in outcomes
    ]


def varied(seconds: int, seed: int = 1) -> list[dict[str, Any]]:
    """Outcomes of every kind: horizons, fallbacks, gaps, abstentions, late deliveries."""
    rng = np.random.default_rng(seed)
    found = []
    for horizon_s in HORIZONS_S:
        for each in moved(planted.market(seconds, seed + horizon_s, horizon_s)):
            kind = rng.integers(10)
            if kind == 0:
                each = at(each["timestamp"] // 1000 - NOON, horizon_s, expected=None)
            elif kind == 1:
                each = at(each["timestamp"] // 1000 - NOON, horizon_s, move=None)
            elif kind == 2:
                each |= {"abstains": True, "hindsight_move_bp": None}
            elif kind == 3:
                each |= {"imbalance": None, "challenger": None}
            elif kind > 6:
                each |= {"challenger": in_shadow_of(each, "m2" if kind == 7 else "m3", float(rng.normal()))}
            found.append(each)
    return found


def in_shadow_of(outcome: dict[str, Any], model_id: str, off_bp: float) -> dict[str, Any]:
    """The forecast of a challenger that is off the champion's by `off_bp`."""
    forecast = {"expected_move_bp": outcome["expected_move_bp"] + off_bp, "scale_bp": 1.0}
    return {"model_id": model_id, "half_width_bp": 2.0, "confidence": 0.6, "p_flat": 0.1} | forecast


def accuracy(client: redis.Redis) -> dict[str, Any]:
    text = client.get(f"accuracy:{SYMBOL}")
    assert text
    return dict(json.loads(text))


def held(owner: psycopg.Connection[Any], table: str = "outcomes") -> tuple[Any, ...]:
    """Rows and a checksum of them."""
    row = owner.execute(
        f"select count(*), md5(string_agg(t::text, '|' order by t::text)) from tickcast.{table} t"
    ).fetchone()
    assert row
    return tuple(row)


def counted(owner: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The tallies without sums of floats, whose last bits depend on the order of the rows."""
    return owner.execute(
        "select symbol, minute_us, horizon_s, model_id, is_model, abstains, why, bin, first_us, last_us, "
        "count, moved, rights, inside, round(squared_error::numeric, 6) from tickcast.tallies "
        "order by 2, 3, 5, 6, 7, 8"
    ).fetchall()


def test_tallies_agree_with_plain_python(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis
) -> None:
    outcomes = [
        each | {"spread_bp": float(each["timestamp"] // 120_000 % 5)}  # of each minute another
        for each in varied(900)
    ]
    hot.write(outcomes)
    result = scorer(920)
    assert (result.outcomes, result.is_complete, result.problems) == (3600, True, [])
    found = accuracy(redis_client)
    assert found["scored_ms"] == (NOON + 920) * 1000
    for span in SPANS:
        regimes = NO_REGIMES if span.name == "hour" else planted.regimes(outcomes, span.block_us)
        remainders = planted.remainders(outcomes, span.block_us)
        assert found[span.name]["horizons"] == to_builtins(
            score(planted.tallies(outcomes, span.block_us), regimes, remainders), str_keys=True
        ), span
        from_us, to_us = (found[span.name][name] * 1000 for name in ("from", "to"))
        assert found[span.name]["series"] == to_builtins(
            series(planted.steps(outcomes, span.part_us), span.part_us, span.step_us, (from_us, to_us)),
            str_keys=True,
        ), span
        assert found[span.name]["challenger"] is None
        assert found[span.name]["earnings"] == to_builtins(
            earnings_by_horizon(planted.earned(outcomes, span.block_us)), str_keys=True
        ), span
        assert found[span.name]["to"] - found[span.name]["from"] >= span.length_us // 1000
    by_spread = found["day"]["horizons"]["2"]["regimes"]["spread"]
    assert {name: each["count"] > 100 for name, each in by_spread.items()} == dict.fromkeys(TERCILES, True)
    assert 0 <= by_spread["low"]["to_bp"] < by_spread["high"]["from_bp"] <= 4
    assert found["hour"]["horizons"]["2"]["skill"]["low"] is not None
    all_of_2s, *_, worth_trading = found["hour"]["earnings"]["2"]
    assert 0 < worth_trading["trades"] < all_of_2s["trades"] and all_of_2s["net_ci"] is not None
    assert found["hour"]["first"] == NOON * 1000 + 1000
    by_model = sum(o["horizon_s"] == 1 and o["source"] == "model" for o in outcomes)
    # Expected up to ten seconds ago.
    assert found["hour"]["availability"] == pytest.approx(by_model / 910, abs=1e-4)
    assert result.hours[SYMBOL].horizons[2].count == found["hour"]["horizons"]["2"]["count"]


def test_what_was_left_of_forecasts_is_scored_by_age(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis
) -> None:
    """Of a move that was known for its first two seconds, nothing is left to know after those."""
    rng = np.random.default_rng(1)
    outcomes = []
    for second in range(900):
        known, unknown = rng.normal(size=(2, 10))
        known[2:] = 0
        for h in HORIZONS_S:
            move, expected = float((known + unknown)[:h].sum()), float(known[:h].sum())
            outcomes.append(at(second, h, move=move, expected=expected))
    hot.write(outcomes)
    assert scorer(920).problems == []
    found = {h: each["by_age"] for h, each in accuracy(redis_client)["hour"]["horizons"].items()}
    assert {h: [each["age_s"] for each in ages] for h, ages in found.items()} == {
        "1": [0],
        "2": [0, 1],
        "5": [0, 1, 2],
        "10": [0, 1, 2, 5],
    }
    assert {each["count"] for ages in found.values() for each in ages} == {900}
    skill = {(h, each["age_s"]): each["skill"]["value"] for h, ages in found.items() for each in ages}
    assert skill["2", 0] == pytest.approx(0.5, abs=0.05)
    assert skill["2", 1] == pytest.approx(0.5, abs=0.05)
    assert skill["10", 0] == pytest.approx(2 / 12, abs=0.05)
    assert skill["10", 1] == pytest.approx(1 / 10, abs=0.05)
    assert skill["10", 2] == skill["10", 5] == skill["5", 2] == 0


def test_the_challenger_is_scored_on_the_outcomes_of_the_champion(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    outcomes = varied(900)
    hot.write(outcomes)
    for challenger_id in ("m2", "m4"):
        put_model(s3, challenger=challenger_id)
        assert scorer(920).problems == []
        found = accuracy(redis_client)
        for span in SPANS:
            rows = planted.shadowed(outcomes, challenger_id, span.block_us)
            expected = to_builtins(score_challenger(challenger_id, rows), str_keys=True)
            assert found[span.name]["challenger"] == expected, span
        if challenger_id == "m2":
            of_2s = found["hour"]["challenger"]["horizons"]["2"]
            assert of_2s["count"] > 50 and of_2s["skill_vs_champion"]["high"] < 0
    of_another = {"count": 0, "skill": None, "skill_vs_champion": None}
    assert found["hour"]["challenger"]["horizons"]["2"] == of_another


def test_minutes_of_an_earlier_release_are_left_out_of_what_they_do_not_know(
    hot: Hot, scorer: Callable[..., Result], owner: psycopg.Connection[Any], redis_client: redis.Redis
) -> None:
    before, after = moved(planted.market(600)), moved(planted.market(600, 2), 1200)
    hot.write(before + after)
    scorer(1820)
    owner.execute(
        "update tickcast.tallies set squared_line = null, line_move = null, sigma_bp = null, "
        "spread_bp = null where minute_us < %s",
        ((NOON + 900) * 1_000_000,),
    )
    scorer(1820)
    found = accuracy(redis_client)["day"]["horizons"]["2"]
    alone = score(planted.tallies(after), planted.regimes(after, MINUTE_US))[2]
    assert alone.skill_vs_linear is not None
    assert (found["count"], found["skill_vs_linear"]["value"]) == (1200, alone.skill_vs_linear.value)
    assert found["regimes"]["hour"]["06-12"]["count"] == alone.count == 600


def test_every_outcome_is_stored_once(
    hot: Hot, scorer: Callable[..., Result], owner: psycopg.Connection[Any], redis_client: redis.Redis
) -> None:
    outcomes = sorted(varied(200), key=lambda o: (o["target_time"], o["horizon_s"]))
    for start in range(0, len(outcomes), 100):
        hot.write(outcomes[start : start + 100])
        scorer(220)
        assert scorer(220).outcomes == 0
    once = held(owner), counted(owner), accuracy(redis_client)["hour"]
    assert once[0][0] == len(outcomes)
    # As after a restore of the database without its positions: all is copied again, nothing is stored twice.
    owner.execute("delete from tickcast.drained")
    assert scorer(220).outcomes == len(outcomes)
    assert (held(owner), counted(owner), accuracy(redis_client)["hour"]) == once


def test_an_interrupted_run_is_continued_by_the_next(
    hot: Hot,
    scorer: Callable[..., Result],
    owner: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hot.write(varied(300))
    monkeypatch.setattr(function, "_PAGE", 100)
    with monkeypatch.context() as broken:

        def dies(*_: Any) -> None:
            raise ConnectionError("the function was killed")

        broken.setattr(ScoreStore, "set_drained", dies)
        with pytest.raises(ConnectionError):
            scorer(320)
    assert held(owner)[0] == 0
    left = iter([60_000.0, 60_000.0, 1_000.0])
    early = scorer(320, remaining_ms=lambda: next(left, 1_000.0))
    assert (early.outcomes, early.is_complete) == (300, False)
    late = scorer(320)
    assert (late.outcomes, late.is_complete) == (900, True)
    assert held(owner)[0] == 1200


def test_an_older_hour_counts_in_day_and_week_only(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis
) -> None:
    hot.write(moved(planted.market(100)))
    scorer(120)
    hot.write(moved(planted.market(50), 7200))
    scorer(7300)
    found = accuracy(redis_client)
    counts = [found[span.name]["horizons"]["2"]["count"] for span in SPANS]
    assert counts == [50, 150, 150]


def test_a_long_span_is_not_rescored_every_minute(
    hot: Hot, redis_client: redis.Redis, s3: Any, score_database: Database
) -> None:
    clock = {"s": NOON + 120}
    running = ScorePredictions(SETTINGS, SCORES, redis_client, s3, score_database, lambda: clock["s"] * 1000)
    hot.write(moved(planted.market(100, horizon_s=1)))
    running(PLENTY)
    hot.write(moved(planted.market(100, horizon_s=1), 6 * 24 * 3600))
    for minutes, counts in (
        (0, [100, 100, 200]),
        (1, [100, 100, 200]),
        (2, [200, 200, 200]),
        (9, [300, 300, 400]),
    ):
        clock["s"] = NOON + 6 * 24 * 3600 + 120 + minutes * 60
        if minutes in (2, 9):
            hot.write(moved(planted.market(100, horizon_s=1), 6 * 24 * 3600 + minutes * 60))
        running(PLENTY)
        found = accuracy(redis_client)
        assert [found[span.name]["horizons"]["1"]["count"] for span in SPANS] == counts, minutes
    assert found["week"]["to"] == found["scored_ms"]


def test_a_market_without_outcomes(scorer: Callable[..., Result], redis_client: redis.Redis) -> None:
    scorer(0)
    hour = accuracy(redis_client)["hour"]
    assert (hour["first"], hour["availability"], hour["horizons"]["1"]["count"]) == (None, None, 0)
    beat = json.loads(redis_client.get("heartbeat:score_predictions") or "{}")
    assert (beat["ok"], beat["outcomes"], beat["drifting"]) == (True, 0, [])


def test_both_models_on_the_same_instants(
    hot: Hot, scorer: Callable[..., Result], score_database: Database
) -> None:
    challenger = {"model_id": "m2", "expected_move_bp": 0.9, "scale_bp": 1.0, "half_width_bp": 2.0}
    challenger |= {"confidence": 0.6, "p_flat": 0.1}
    hot.write(
        [at(s, h, challenger=challenger) for s in (1, 2) for h in HORIZONS_S]
        + [at(3, h, challenger=challenger, model_id="m0") for h in HORIZONS_S]
        + [at(4, h, challenger=challenger, move=None) for h in HORIZONS_S]
        + [at(5, 1, challenger=challenger), at(6, 1)]
    )
    scorer(20)
    connection = score_database.connection()
    found = in_shadow(connection, "m1", "m2")
    assert found is not None
    order = np.argsort(found.timestamp_us)
    assert (found.timestamp_us[order] // 10**6 - NOON).tolist() == [1, 2, 5]
    assert found.moves_bp[order][0].tolist() == [1.0] * 4
    assert found.challenger_bp[order][1].tolist() == [0.9] * 4
    assert found.champion_bp[order][1].tolist() == [0.5] * 4
    assert np.isnan(found.champion_bp[order][2]).tolist() == [False, True, True, True]
    assert in_shadow(connection, "m1", "m3") is None


# Drift.


def with_features(seconds: int, shift: float, model_id: str = "m1", from_s: int = 0) -> list[Prediction]:
    """Predictions on rows of which one feature is shifted by so many standard deviations."""
    rows = np.random.default_rng(from_s + 1).normal(size=(seconds, len(FEATURE_NAMES)))
    rows[:, 0] += shift
    return [
        records.prediction(
            (NOON + from_s + n) * 1000,
            model_id=model_id,
            features=dict(zip(FEATURE_NAMES, row.tolist(), strict=True)),
        )
        for n, row in enumerate(rows)
    ]


def reference() -> dict[str, Any]:
    rows = np.random.default_rng(9).normal(size=(20_000, len(FEATURE_NAMES)))
    bins: dict[str, Any] = to_builtins(drift.distribution(rows, FEATURE_NAMES[:2]))
    return bins


def test_drifted_features_start_one_training(
    hot: Hot, scorer: Callable[..., Result], s3: Any, owner: psycopg.Connection[Any]
) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    hot.write(moved(planted.market(600)), with_features(600, 1.5))
    first = scorer(620)
    assert (first.predictions, first.asked_us) == (600, None)
    assert first.drift[SYMBOL].reasons == (f"feature_moved:{FEATURE_NAMES[0]}",)
    second = scorer(680)
    assert second.drift[SYMBOL].is_drifting and not second.drift["ETHUSDT"].is_drifting
    asked = second.as_dict(SCORES)
    assert asked["retrain"] is True
    assert asked["execution"]["name"] == f"drift-{NOON + 680}"
    assert asked["execution"]["input"]["train"] == {
        "days": 7,
        "reason": f"drift: BTCUSDT feature_moved:{FEATURE_NAMES[0]}",
    }
    assert (asked["execution"]["input"]["days"], asked["execution"]["input"]["repair"]) == (2, True)
    # The result may get lost: it is repeated for a while, with the same name.
    assert scorer(740).as_dict(SCORES)["execution"] == asked["execution"]
    assert scorer(680 + 601).as_dict(SCORES)["retrain"] is False
    # Once the cool-down is over, it may be asked for again.
    hot.write(moved(planted.market(600), 3600), with_features(600, 1.5, from_s=3600))
    assert scorer(680 + 3599).asked_us is None
    assert scorer(680 + 3600).as_dict(SCORES)["execution"]["name"] == f"drift-{NOON + 680 + 3600}"
    assert held(owner, "drift_trainings")[0] == 2


def test_unchanged_features_start_nothing(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    others = with_features(200, 3.0, "m0", from_s=600)  # of another model
    hot.write(moved(planted.market(600)), [*with_features(600, 0.0), *others])
    for second in (820, 880, 940):
        result = scorer(second)
        assert result.drift[SYMBOL].reasons == ()
        assert result.as_dict(SCORES)["retrain"] is False


def test_lost_skill_starts_a_training(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    put_model(s3, scaled_line={SYMBOL: {"usual_sigma": 1.0, "slopes": {str(h): 0.0 for h in HORIZONS_S}}})
    wrong = [each | {"expected_move_bp": -each["expected_move_bp"]} for each in moved(planted.market(1200))]
    hot.write(wrong)
    scorer(1220)
    result = scorer(1280)
    assert set(result.drift[SYMBOL].reasons) == {"skill_below_band", "below_linear_imbalance"}
    assert result.asked_us is not None


def test_drift_is_signalled_once_while_it_lasts(
    hot: Hot, redis_client: redis.Redis, s3: Any, score_database: Database
) -> None:
    rules = [
        {"name": "drifts", "when": "drift", "to": "desk"},
        {"name": "elsewhere", "when": "drift", "to": "desk", "symbols": ["ETHUSDT"]},
    ]
    signals = msgspec.convert({"destinations": [{"name": "desk"}], "rules": rules}, Signals)
    settings = msgspec.structs.replace(SETTINGS, signals=signals)
    put_model(s3, scaled_line={SYMBOL: {"usual_sigma": 1.0, "slopes": {str(h): 0.0 for h in HORIZONS_S}}})
    wrong = [each | {"expected_move_bp": -each["expected_move_bp"]} for each in moved(planted.market(1200))]
    hot.write(wrong)
    for second in (1220, 1280, 1340):
        clock_ms = partial(float, (NOON + second) * 1000)
        ScorePredictions(settings, SCORES, redis_client, s3, score_database, clock_ms)(PLENTY)
    [written] = s3.list_objects_v2(Bucket=BUCKET, Prefix="signals/")["Contents"]
    signal = read_signal(s3, BUCKET, written["Key"])
    assert (signal.rule, signal.symbol) == ("drifts", SYMBOL)
    assert signal.drift is not None
    assert set(signal.drift.reasons) == {"skill_below_band", "below_linear_imbalance"}


def test_less_skill_than_the_gate_measured_is_drift(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    put_model(s3, gate={"bands": {SYMBOL: {"2": 0.7}, "ETHUSDT": {"2": 0.1}}})
    hot.write(moved(planted.market(1200)))  # it knows half of the move
    assert scorer(1220).drift[SYMBOL].reasons == ("skill_below_band",)
    put_model(s3, "m2", gate={"bands": {SYMBOL: {"2": 0.4}, "ETHUSDT": {"2": 0.9}}})
    hot.write(moved(planted.market(600, model_id="m2"), 1300))
    assert scorer(1920).drift[SYMBOL].reasons == ()


def test_a_part_of_a_day_is_not_compared_with_whole_days(
    hot: Hot, scorer: Callable[..., Result], s3: Any
) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    hot.write(moved(planted.market(500)), with_features(500, 3.0))
    assert scorer(520).drift[SYMBOL].reasons == ()
    hot.write(moved(planted.market(100), 520), with_features(100, 3.0, from_s=520))
    assert scorer(640).drift[SYMBOL].reasons == (f"feature_moved:{FEATURE_NAMES[0]}",)


def test_an_unreadable_entry_stops_no_other(
    hot: Hot, scorer: Callable[..., Result], s3: Any, owner: psycopg.Connection[Any]
) -> None:
    """From an older version, or with features of other names."""
    put_model(s3, distribution={SYMBOL: reference()})
    outcomes, predictions = moved(planted.market(10)), with_features(10, 0.0)
    del outcomes[3]["basis_price"]
    outcomes[4]["move_bp"] = float("nan")  # null, as it is written
    outcomes[5]["half_width_bp"] = "wide"
    features = predictions[5].features or {}
    features["an old name"] = features.pop(FEATURE_NAMES[0])
    hot.write(outcomes, predictions)
    result = scorer(20)
    assert (result.outcomes, result.predictions, held(owner)[0]) == (7, 9, 7)
    problems = " ".join(result.problems)
    for word in (
        "basis_price",
        "without outcome_price or move_bp",
        "$.half_width_bp",
        FEATURE_NAMES[0],
    ):
        assert word in problems
    assert scorer(80).problems == []  # they are not read again


def test_an_entry_without_a_record_stops_no_other(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis
) -> None:
    hot.write(moved(planted.market(10)))
    redis_client.xadd(f"outcomes:{SYMBOL}", {"text": "{}"}, id=f"{(NOON + 60) * 1000}-0")
    result = scorer(20)
    assert result.outcomes == 10
    assert any(problem.startswith("left out outcome ") for problem in result.problems)


@pytest.mark.parametrize("part", ["_score", "_evidence"])
def test_a_problem_is_shown_without_secrets(
    scorer: Callable[..., Result],
    s3: Any,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    def raises(*_: Any) -> Any:
        raise ValueError("password=hush-hush is wrong")

    put_model(s3)
    monkeypatch.setattr(ScorePredictions, part, raises)
    scorer(20)
    why = redis_client.get("heartbeat:score_predictions") or b""
    assert b"ValueError: password=*** is wrong" in why


def test_an_error_in_the_drift_of_a_symbol_stops_no_scoring(
    hot: Hot, scorer: Callable[..., Result], s3: Any, redis_client: redis.Redis
) -> None:
    line = {"usual_sigma": 1.0, "slopes": {"1": 0.5}}  # no slope of the horizon that is scored
    put_model(s3, scaled_line={SYMBOL: line})
    hot.write(moved(planted.market(200)))
    result = scorer(260)
    assert any(problem.startswith(f"drift of {SYMBOL}: ") for problem in result.problems)
    assert result.outcomes == 200 and accuracy(redis_client)["hour"]["horizons"]
    assert set(result.drift) == set(SETTINGS.symbols)


def test_an_outage_shows_in_availability(
    hot: Hot, scorer: Callable[..., Result], redis_client: redis.Redis
) -> None:
    def available() -> list[float]:
        found = accuracy(redis_client)
        return [found[span.name]["availability"] for span in SPANS]

    hot.write(moved(planted.market(3600, horizon_s=1)))
    scorer(3601)
    assert available() == [1.0, 1.0, 1.0]
    scorer(3601 + 1800)
    assert available() == pytest.approx([0.5, 0.667, 0.667], abs=0.005)
    scorer(3601 + 7200)
    assert available() == pytest.approx([0.0, 0.333, 0.333], abs=0.005)
    hot.write(moved(planted.market(600, horizon_s=1), 10_800))  # again, but most of the hour is lost
    scorer(11_401)
    assert available()[0] == pytest.approx(600 / 3600, abs=0.02)


def in_force(s3: Any, second: int, **pointer: Any) -> None:
    """A model that is active since a second after NOON."""
    since = datetime.fromtimestamp(NOON + second, UTC).isoformat()
    document = {"model_id": "m1", "since": since, **pointer}
    s3.put_object(Bucket=BUCKET, Key="models/current.json", Body=json.dumps(document).encode())


def fallbacks(seconds: int) -> list[dict[str, Any]]:
    return [at(second, 1, expected=None, source="fallback", model_id=None) for second in range(seconds)]


def test_the_time_before_the_first_model_does_not_count_as_unavailable(
    hot: Hot, scorer: Callable[..., Result], s3: Any
) -> None:
    hot.write(fallbacks(1200))
    result = scorer(1201)
    assert result.has_no_model and not result.available
    in_force(s3, 1200)
    result = scorer(1210)  # until every process serves it
    assert not result.has_no_model and SYMBOL not in result.available
    hot.write(moved(planted.market(1200, horizon_s=1), 1200))
    result = scorer(2401)
    assert result.available[SYMBOL] == pytest.approx(1.0, abs=0.01)
    assert result.hours[SYMBOL].availability == pytest.approx(0.5, abs=0.01)  # what readers got
    assert scorer(2401 + 600).available[SYMBOL] == pytest.approx(0.65, abs=0.02)  # an outage counts


def test_symbols_are_scored_as_they_are_served_and_a_new_one_has_time_to_begin(
    redis_client: redis.Redis, scorer: Callable[..., Result], s3: Any
) -> None:
    in_force(s3, -3600)
    since = datetime.fromtimestamp(NOON, UTC).isoformat()
    served = ServedSymbols(symbols=("SOLUSDT", SYMBOL), version=1, since=since)
    redis_client.set(keys.symbols(), hot_text(served))
    result = scorer(60)
    assert result.symbols == (*result.hours,) == ("SOLUSDT", SYMBOL)
    assert result.available == {}  # neither has been answered for yet
    assert scorer(121).available == {"SOLUSDT": 0.0, SYMBOL: 0.0}


def test_a_model_that_vanished_is_unavailable(hot: Hot, scorer: Callable[..., Result]) -> None:
    hot.write(moved(planted.market(1200, horizon_s=1)))
    result = scorer(1500)  # without a pointer
    assert result.has_no_model
    assert result.available[SYMBOL] == pytest.approx(0.8, abs=0.02)


def test_a_symbol_that_is_added_may_warm_up(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    in_force(s3, -100_000)
    assert scorer(0).available[SYMBOL] == 0  # no data ever came
    hot.write(fallbacks(60))
    assert SYMBOL not in scorer(61).available
    hot.write(moved(planted.market(240, horizon_s=1), 60))
    assert scorer(301).available[SYMBOL] == pytest.approx(1.0, abs=0.02)


def test_a_later_model_excuses_nothing(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    hot.write(moved(planted.market(600, horizon_s=1)))
    in_force(s3, 3000, previous=[{"model_id": "m0"}])
    assert scorer(3720).available[SYMBOL] == pytest.approx(480 / 3600, abs=0.02)


def test_drift_of_a_new_active_model_starts_afresh(hot: Hot, scorer: Callable[..., Result], s3: Any) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    hot.write(moved(planted.market(600)), with_features(600, 1.5))
    assert scorer(620).drift[SYMBOL].streak == 1
    put_model(s3, "m2", distribution={SYMBOL: reference()})
    result = scorer(680)
    watch = result.drift[SYMBOL]
    assert (watch.model_id, watch.streak, watch.reasons) == ("m2", 0, ())  # nothing of it is scored yet


def test_drift_is_reported_where_training_is_switched_off(
    hot: Hot, scorer: Callable[..., Result], s3: Any
) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    hot.write(moved(planted.market(600)), with_features(600, 1.5))
    no_training = replace(SCORES, train_days=0)
    scorer(620, no_training)
    result = scorer(680, no_training)
    assert result.drift[SYMBOL].is_drifting
    assert result.as_dict(no_training)["retrain"] is False


def test_a_damaged_pointer_stops_no_scoring(
    hot: Hot, scorer: Callable[..., Result], s3: Any, redis_client: redis.Redis
) -> None:
    s3.put_object(Bucket=BUCKET, Key="models/current.json", Body=b"{")
    hot.write(moved(planted.market(10)))
    result = scorer(20)
    assert result.outcomes == 10
    assert "models/current.json is damaged" in result.problems[0]
    beat = json.loads(redis_client.get("heartbeat:score_predictions") or "{}")
    assert not beat["ok"] and "damaged" in beat["why"]


def test_a_damaged_card_stops_neither_scoring_nor_drift_of_skill(
    hot: Hot, scorer: Callable[..., Result], s3: Any
) -> None:
    put_model(s3, distribution={SYMBOL: reference()})
    s3.put_object(Bucket=BUCKET, Key="models/m1/card.json", Body=b"{")
    wrong = [each | {"expected_move_bp": -each["expected_move_bp"]} for each in moved(planted.market(1200))]
    hot.write(wrong, with_features(10, 0.0))
    for second in (1220, 1280):
        result = scorer(second)
        (problem,) = result.problems
        assert problem.startswith("RegistryError: ") and "features are not counted" in problem
        assert result.drift[SYMBOL].model_id == "m1"
    assert result.drift[SYMBOL].reasons == ("skill_below_band",)
    assert result.asked_us is not None


def test_the_reader_cannot_score(loader_settings: DatabaseSettings) -> None:
    with Database(msgspec.structs.replace(loader_settings, user="tickcast_reader")) as database:
        store = ScoreStore(database.connection())
        assert store.drained(SYMBOL) == ("0-0", "0-0")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store.set_drained(SYMBOL, "1-0", "1-0")
