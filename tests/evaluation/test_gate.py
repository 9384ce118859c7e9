"""The gate: what is promoted, what is not, and the reasons given; on planted moves and forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from tickcast.evaluation import gate
from tickcast.evaluation.gate import (
    ALL,
    Block,
    GateDecision,
    Shadow,
    baselines,
    compare,
    decide,
    unseen_from_us,
)
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.forecast import HORIZONS_S

pytestmark = pytest.mark.slow  # all of it together

SECOND = 1_000_000
SIGNAL = 1.0  # bp: what can be foretold, beside as much noise again and again


def block(
    seconds: int,
    *,
    challenger: float = 1.0,
    champion: float | None = None,
    line: float = 0.0,
    microprice: float = 0.0,
    last_trade: float = 0.0,
    own_noise: float = 0.0,
    markets: int = 2,
    seed: int = 1,
) -> Block:
    """Rows each second. Every forecast is a share of what can be foretold: 1 is perfect, 0 is no change;
    `own_noise` is added to the challenger's at ten seconds."""
    rng = np.random.default_rng(seed)
    rows = seconds * markets
    signal = rng.normal(0, SIGNAL, (rows, 1)) * np.ones(len(HORIZONS_S))
    came = signal + rng.normal(0, 3 * SIGNAL, (rows, len(HORIZONS_S)))
    told = signal * challenger
    told[:, -1] += rng.normal(0, 1, rows) * own_noise
    shares = {"linear_imbalance": line, "microprice": microprice, "last_trade": last_trade, "no_change": 0.0}
    return Block(
        np.repeat([f"M{n}" for n in range(markets)], seconds),
        np.tile(np.arange(seconds) * SECOND, markets),
        came,
        told,
        None if champion is None else signal * champion,
        {name: signal * each for name, each in shares.items()},
    )


def codes(verdict: GateDecision) -> set[str]:
    return set(verdict.reasons)


def test_a_better_challenger_takes_over_from_an_hour_on() -> None:
    verdict = decide(block(3600, champion=0.4, line=0.5), 0)
    assert (verdict.promoted, verdict.provisional) == (True, False)
    assert codes(verdict) == {"beats_champion", "beats_baselines"}
    found = verdict.figures[ALL]["champion"]
    assert found["ci"][0] > 0
    assert verdict.seconds == 3600
    assert "better than the model in force" in verdict.sentence


@pytest.mark.parametrize("seconds", [300, 7200])
def test_a_worse_one_does_not(seconds: int) -> None:
    verdict = decide(block(seconds, challenger=0.4, champion=1.0), 0, champion_is_provisional=True)
    assert not verdict.promoted
    assert "not_above_champion" in codes(verdict)
    assert "The one in force stays" in verdict.sentence


@pytest.mark.parametrize("seconds", [300, 7200])
def test_its_equal_does_not(seconds: int) -> None:
    verdict = decide(block(seconds, champion=1.0), 0, champion_is_provisional=True)
    assert codes(verdict) == {"not_above_champion"}


def test_a_tie_changes_nothing() -> None:
    verdict = decide(block(600, challenger=1.0, champion=0.99), 0, champion_is_provisional=True)
    assert 0 < verdict.figures[ALL]["champion"]["skill"] < gate.LEAST_MARGIN
    assert codes(verdict) == {"not_above_champion"}


def test_what_is_below_the_line_says_so_even_when_it_is_let_in() -> None:
    verdict = decide(block(1800, challenger=0.5, champion=0.1, line=0.9), 0, champion_is_provisional=True)
    assert verdict.promoted and "the line through book imbalance is better by" in verdict.sentence


def test_better_by_chance_is_not_enough() -> None:
    """So little better that an hour cannot tell: the interval reaches zero."""
    verdict = decide(block(3600, challenger=0.99, champion=0.75, own_noise=0.5, markets=1, seed=3), 0)
    assert verdict.figures[ALL]["champion"]["skill"] > gate.LEAST_MARGIN
    assert codes(verdict) == {"not_clearly_above_champion"}


def test_never_below_the_line() -> None:
    verdict = decide(block(7200, challenger=0.5, champion=0.1, line=0.9), 0)
    assert not verdict.promoted
    assert "below_linear_imbalance" in codes(verdict)
    assert "line through book imbalance" in verdict.sentence


@pytest.mark.parametrize("guess", ["microprice", "last_trade"])
def test_the_other_guesses_are_to_be_beaten_too(guess: str) -> None:
    verdict = decide(block(7200, challenger=0.5, champion=0.1, **{guess: 0.9}), 0)  # type: ignore[arg-type]
    assert f"not_above_{guess}" in codes(verdict)


def test_worse_at_one_horizon_alone_is_worse() -> None:
    verdict = decide(block(7200, champion=0.5, own_noise=0.8), 0)
    assert verdict.figures[ALL]["champion"]["skill"] > 0
    assert "clearly_below_champion:10" in codes(verdict)


def test_nothing_is_said_on_two_minutes() -> None:
    assert codes(decide(block(119), 0)) == {"too_few_rows"}
    empty = block(1)
    nothing = Block(*(each[:0] for each in empty[:4]), None, {})  # type: ignore[arg-type]
    assert codes(decide(nothing, 0)) == {"too_few_rows"}


def test_a_short_block_makes_it_provisional_and_leaves_out_what_it_cannot_tell() -> None:
    weak = block(1800, challenger=0.5, champion=0.1, line=0.9, microprice=0.9)
    verdict = decide(weak, 0, champion_is_provisional=True)
    assert (verdict.promoted, verdict.provisional) == (True, True)
    assert "provisional" in verdict.sentence
    assert "not_above_last_trade" in codes(decide(block(1800, challenger=0.5, last_trade=0.9), 0))
    assert "not_above_no_change" in codes(decide(block(1800, challenger=-0.5), 0))


def test_a_short_block_does_not_replace_what_has_proven_itself() -> None:
    verdict = decide(block(3599, champion=0.1), 0, champion_is_provisional=False)
    assert codes(verdict) == {"champion_is_proven"}


def test_a_first_model_needs_no_champion() -> None:
    assert codes(decide(block(600), 0)) == {"first_model", "beats_no_change_and_last_trade"}


def test_a_simulated_market_proves_nothing() -> None:
    verdict = decide(block(7200, champion=0.2), 0, is_real=False)
    assert (verdict.promoted, verdict.provisional) == (True, True)


def test_who_has_seen_the_block_is_refused() -> None:
    seen = block(7200, champion=0.1)
    for learned_to_us, promoted in ((0, True), (1, False), (3600 * SECOND, False)):
        to_us = unseen_from_us([{"learned_to_us": 0}, {"learned_to_us": learned_to_us}])
        verdict = decide(seen, to_us)
        assert verdict.promoted is promoted
        assert ("seen_block" in codes(verdict)) is not promoted


def live(seconds: int, challenger: float, champion: float) -> Shadow:
    made = block(seconds, challenger=challenger, champion=champion, markets=1, seed=9)
    assert made.champion_bp is not None
    return Shadow(made.end_us, made.moves_bp, made.challenger_bp, made.champion_bp)


def test_what_it_did_in_the_shadow_counts_once_there_is_enough() -> None:
    won = block(7200, champion=0.4)
    better = decide(won, 0, shadow=live(3600, 1.0, 0.4))
    assert better.promoted
    assert better.shadow["seconds"] == 3600
    worse = decide(won, 0, shadow=live(3600, 0.2, 1.0))
    assert codes(worse) == {"not_above_champion_in_shadow"}
    short = decide(won, 0, shadow=live(3599, 0.2, 1.0))
    assert short.promoted
    assert "3599 s of outcomes" in short.shadow["left_out"]
    assert "left_out" in decide(won, 0).shadow


def test_an_outcome_that_lacks_a_horizon_is_no_pair() -> None:
    pairs = live(3600, 0.2, 1.0)
    pairs.moves_bp[5, 2] = np.nan
    assert "left_out" in decide(block(7200, champion=0.4), 0, shadow=pairs).shadow


def test_figures_are_paired_and_by_horizon() -> None:
    made = block(600, champion=1.0)
    for found in compare(made).values():
        assert found["champion"] == {"skill": 0.0, "ci": [0.0, 0.0]}  # the same errors on the same rows
    perfect = made._replace(challenger_bp=made.moves_bp)
    assert compare(perfect)["5"]["no_change"]["skill"] == 1
    unknown = {"last_trade": np.full_like(made.moves_bp, np.nan)}
    assert "last_trade" not in compare(made._replace(guesses_bp=unknown))[ALL]


def test_markets_that_move_together_do_not_count_twice() -> None:
    """The same market once more is no further evidence."""
    one = block(600, champion=0.8, markets=1)
    twice = Block(*(np.concatenate([each, each]) for each in one[:5]), {})  # type: ignore[arg-type]
    one = one._replace(guesses_bp={})
    assert twice.seconds == one.seconds
    assert compare(twice) == compare(one)


def mixed(challenger: tuple[float, float], champion: float = 0.3, seconds: int = 7200) -> Block:
    """Two markets, the second ten times as lively; the challenger foretells a share of each one's signal."""
    made = block(seconds, champion=champion)
    scale = np.where(made.market == "M0", 1.0, 10.0)[:, None]
    share = np.where(made.market == "M0", *challenger)[:, None]
    assert made.champion_bp is not None
    guesses = {name: scale * each for name, each in made.guesses_bp.items()}
    return made._replace(
        moves_bp=scale * made.moves_bp,
        challenger_bp=scale * share * made.challenger_bp,
        champion_bp=scale * made.champion_bp,
        guesses_bp=guesses,
    )


def test_each_market_counts_alike() -> None:
    """Ten times as large, its squares would be nearly all of the sum."""
    figures = compare(mixed((1.0, 0.0)))
    together, *markets = (figures[part]["no_change"]["skill"] for part in (ALL, "M0", "M1"))
    assert together == pytest.approx(sum(markets) / 2, abs=0.005)
    assert markets[1] == 0


def test_a_market_that_is_lost_is_not_made_up_for_by_another() -> None:
    verdict = decide(mixed((1.0, -0.1), champion=0.1), 0)
    assert verdict.figures[ALL]["champion"]["ci"][0] > 0
    assert "clearly_below_champion:M1" in codes(verdict)
    assert "in M1" in verdict.sentence


def test_a_band_ends_at_the_worst_hour_of_a_market() -> None:
    made = mixed((1.0, 1.0), seconds=8 * 3600)
    worst = (made.market == "M1") & (made.end_us >= 3600 * SECOND) & (made.end_us < 2 * 3600 * SECOND)
    made.challenger_bp[worst] = 0.0
    found = gate.bands(made)
    assert set(found) == {"M0", "M1"}
    for horizon in map(str, HORIZONS_S):
        assert found["M1"][horizon] == pytest.approx(0, abs=0.01)
        whole = compare(made)[horizon]["no_change"]["skill"]
        assert 0.03 < found["M0"][horizon] < whole + 0.05
    assert set(gate.bands(block(30))) == {"M0", "M1"}


def test_seconds_do_not_depend_on_the_grid() -> None:
    coarse = block(600)
    fine = coarse._replace(end_us=coarse.end_us // 10)
    assert (coarse.seconds, fine.seconds, block(1).seconds) == (600, 60, 0)


def test_the_guesses_are_the_obvious_ones() -> None:
    features: Floats = np.zeros((2, len(FEATURE_NAMES)))
    features[:, FEATURE_NAMES.index("imbalance")] = (0.5, -0.5)
    features[:, FEATURE_NAMES.index("microprice")] = 0.25
    features[:, FEATURE_NAMES.index("sigma_bp")] = 2.0
    guesses = baselines(features, np.array([0.1, np.nan]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert guesses["linear_imbalance"].tolist() == [[0.5, 1, 1.5, 2], [-0.5, -1, -1.5, -2]]
    assert (guesses["microprice"] == 0.5).all() and (guesses["no_change"] == 0).all()
    assert guesses["last_trade"][0].tolist() == [0.1] * 4 and np.isnan(guesses["last_trade"][1]).all()
    assert set(guesses) | {"champion"} == set(gate._WORDS)
