"""The gate: what is promoted, what is not, and the reasons; on planted moves and forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tickcast.evaluation import gate
from tickcast.evaluation.gate import (
    ALL,
    CHAMPION,
    WORDS,
    Block,
    GateDecision,
    Shadow,
    compare,
    decide,
    prove,
    sentence,
    sentence_of_proof,
)
from tickcast.model.card import GateSkill
from tickcast.model.forecast import HORIZONS_S

pytestmark = pytest.mark.slow  # all of it together

SECOND = 1_000_000
SIGNAL = 1.0  # bp: the part that can be predicted


HOUR, DAY = 3600, 86_400


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
    step: int = 1,
) -> Block:
    """Rows each `step` seconds. Every forecast is a share of the signal: 1 is perfect, 0 is no change;
    `own_noise` is added to the challenger's at ten seconds."""
    rng = np.random.default_rng(seed)
    rows = seconds // step * markets
    signal = rng.normal(0, SIGNAL, (rows, 1)) * np.ones(len(HORIZONS_S))
    outcomes = signal + rng.normal(0, 3 * SIGNAL, (rows, len(HORIZONS_S)))
    expected = signal * challenger
    expected[:, -1] += rng.normal(0, 1, rows) * own_noise
    shares = {"linear_imbalance": line, "microprice": microprice, "last_trade": last_trade, "no_change": 0.0}
    return Block(
        np.repeat([f"M{n}" for n in range(markets)], seconds // step),
        np.tile(np.arange(seconds // step) * step * SECOND, markets),
        outcomes,
        expected,
        None if champion is None else signal * champion,
        {name: signal * each for name, each in shares.items()},
    )


def codes(decision: GateDecision) -> set[str]:
    return set(decision.reasons)


def long(seconds: int, **more: Any) -> Block:
    return block(seconds, step=20, **more)


def test_a_better_challenger_is_promoted_and_provisional_before_several_days() -> None:
    decision = decide(long(DAY, champion=0.4, line=0.5), 0)
    assert (decision.promoted, decision.provisional) == (True, True)
    assert codes(decision) == {"beats_champion", "beats_baselines"}
    assert decision.unproven == ("too_short_to_prove",)
    assert decision.figures[ALL]["champion"].ci[0] > 0
    assert decision.seconds == DAY
    assert "Challenger beats the champion by" in sentence(decision)
    assert "provisional: 72 h of a real market are needed to prove it" in sentence(decision)
    days = decide(long(3 * DAY, champion=0.4, line=0.5), 0)
    assert (days.promoted, days.provisional, days.unproven) == (True, False, ())


@pytest.mark.parametrize("seconds", [300, 7200, DAY])
def test_a_worse_challenger_is_refused(seconds: int) -> None:
    decision = decide(
        block(seconds, challenger=0.4, champion=1.0, step=1 + seconds // 7200),
        0,
        champion_is_provisional=True,
    )
    assert not decision.promoted
    assert "not_above_champion" in codes(decision)
    assert "Champion kept: the challenger does not beat the champion on" in sentence(decision)


@pytest.mark.parametrize("seconds", [300, 7200])
def test_an_equal_challenger_is_refused(seconds: int) -> None:
    decision = decide(block(seconds, champion=1.0), 0, champion_is_provisional=True)
    assert codes(decision) == {"not_above_champion"}


def test_a_tie_keeps_the_champion() -> None:
    decision = decide(block(600, challenger=1.0, champion=0.99), 0, champion_is_provisional=True)
    assert 0 < decision.figures[ALL]["champion"].skill < gate.LEAST_MARGIN
    assert codes(decision) == {"not_above_champion"}


def test_a_promoted_model_below_the_line_is_reported_as_such() -> None:
    decision = decide(block(7200, challenger=0.5, champion=0.1, line=0.9), 0, champion_is_provisional=True)
    assert decision.promoted and "the line through book imbalance is better by" in sentence(decision)
    assert "below_linear_imbalance" in decision.unproven


def test_an_interval_that_reaches_zero_is_not_enough() -> None:
    """So little better that an hour cannot tell: the interval reaches zero."""
    made = block(3600, challenger=0.99, champion=0.75, own_noise=0.5, markets=1, seed=3)
    decision = decide(made, 0, champion_is_provisional=True)
    assert decision.figures[ALL]["champion"].skill > gate.LEAST_MARGIN
    assert codes(decision) == {"not_clearly_above_champion"}


def test_what_beats_no_change_clearly_is_admitted_where_nothing_is_in_force() -> None:
    """However much the baselines are better, and however long the rows: more data never leaves less."""
    for seconds in (1800, 7200, DAY, 4 * DAY):
        made = block(
            seconds, challenger=0.3, line=1.0, microprice=1.0, last_trade=1.0, step=1 + seconds // 7200
        )
        decision = decide(made, 0)
        assert (decision.promoted, decision.provisional) == (True, True)
        assert codes(decision) == {"first_model", "beats_no_change"}
        assert "it is worse than the line through book imbalance" in sentence(decision)
    assert codes(decide(block(7200, challenger=-0.5), 0)) == {"not_above_no_change"}
    unsure = decide(block(300, challenger=0.8, own_noise=1.5), 0)
    assert unsure.figures[ALL]["no_change"].skill > gate.LEAST_MARGIN
    assert codes(unsure) == {"not_clearly_above_no_change"}


def test_a_provisional_champion_without_skill_is_as_good_as_none() -> None:
    """The challenger need not be clearly better than it, only better, and clearly better than no change."""
    made = block(1200, challenger=0.5, own_noise=0.9, champion=0.0, seed=5)
    assert made.champion_bp is not None
    noise = np.random.default_rng(6).normal(0, 0.3, made.champion_bp.shape)
    decision = decide(made._replace(champion_bp=noise), 0, champion_is_provisional=True)
    assert decision.promoted
    assert "not_above_champion" in codes(
        decide(block(1200, challenger=0.3, champion=0.6), 0, champion_is_provisional=True)
    )


def test_a_proven_champion_is_replaced_by_what_stands_against_all_baselines() -> None:
    weak: dict[str, Any] = {"challenger": 0.5, "champion": 0.1}
    assert decide(long(DAY, **weak), 0).promoted
    below = decide(long(DAY, **weak, line=0.9), 0)
    assert "below_linear_imbalance" in codes(below)
    assert "line through book imbalance" in sentence(below)
    for baseline in ("microprice", "last_trade"):
        assert f"not_above_{baseline}" in codes(decide(long(DAY, **weak, **{baseline: 0.9}), 0))


def test_a_challenger_clearly_worse_at_one_horizon_is_refused() -> None:
    decision = decide(block(7200, champion=0.5, own_noise=0.9), 0, champion_is_provisional=True)
    assert decision.figures[ALL]["champion"].skill > 0
    assert "clearly_below_champion:10" in codes(decision)


def test_comparisons_are_corrected_for_their_number() -> None:
    """Of many comparisons the least probable one has to be less probable than one alone."""
    parts = {part: {"champion": GateSkill(skill=-0.01, ci=(-0.02, 0.0), p=0.9)} for part in "abcdefghi"}
    for p, found in ((0.02, []), (0.004, ["clearly_below_champion:j"])):
        one = {"j": {"champion": GateSkill(skill=-0.1, ci=(-0.2, -0.001), p=p)}}
        assert gate._clearly_below({**parts, **one}, ("champion",)) == found
    alone = {"j": {"champion": GateSkill(skill=-0.1, ci=(-0.2, -0.001), p=0.02)}}
    assert gate._clearly_below(alone, ("champion",)) == ["clearly_below_champion:j"]
    both = {part: {"champion": GateSkill(skill=-0.1, ci=(-0.2, -0.1), p=0.003)} for part in "jk"}
    assert len(gate._clearly_below({**parts, **both}, ("champion",))) == 2


def test_less_than_two_minutes_are_inconclusive() -> None:
    assert codes(decide(block(119), 0)) == {"too_few_rows"}
    bp = np.empty((0, len(HORIZONS_S)))
    nothing = Block(np.empty(0, str), np.empty(0, np.int64), bp, bp, None, {})
    assert codes(decide(nothing, 0)) == {"too_few_rows"}
    assert prove(nothing, 0).reasons == ("too_few_rows",)


def test_less_than_half_a_day_does_not_replace_a_proven_champion() -> None:
    assert codes(decide(long(DAY // 2 - 20, champion=0.1), 0)) == {"champion_is_proven"}
    assert decide(long(DAY // 2, champion=0.1), 0).promoted


def test_the_champion_is_proven_on_several_days() -> None:
    days = prove(long(3 * DAY, line=0.9), 0)
    assert (days.promoted, days.reasons) == (True, ("proven",))
    assert sentence_of_proof(days).startswith("The champion is proven on 72.0 h of rows")
    for made, is_real, why in (
        (long(3 * DAY - 20, line=0.9), True, "too_short_to_prove"),
        (long(3 * DAY), False, "simulated_market"),
        (long(3 * DAY, challenger=0.6, line=1.0), True, "below_linear_imbalance"),
        (long(3 * DAY, challenger=0.6, microprice=0.8), True, "not_above_microprice"),
        (long(3 * DAY, own_noise=1.2), True, "clearly_below_no_change:10"),
    ):
        found = prove(made, 0, is_real=is_real)
        assert why in found.reasons and not found.promoted
        assert sentence_of_proof(found).startswith("The champion is provisional: ")
    assert prove(long(3 * DAY), 1).reasons == ("seen_block",)


def test_a_line_that_is_better_by_next_to_nothing_is_matched() -> None:
    made = long(3 * DAY, challenger=0.9, line=1.0)
    assert -gate.LOSS_MARGIN < compare(made)[ALL]["linear_imbalance"].skill < 0
    assert prove(made, 0).promoted


def test_on_a_simulated_market_a_model_stays_provisional() -> None:
    decision = decide(long(4 * DAY, champion=0.2), 0, is_real=False)
    assert (decision.promoted, decision.provisional) == (True, True)
    assert "a simulated market proves nothing" in sentence(decision)


def test_a_model_trained_on_the_block_is_refused() -> None:
    seen = long(DAY, champion=0.1)
    for learned_to_us, promoted in ((0, True), (1, False), (HOUR * SECOND, False)):
        decision = decide(seen, learned_to_us)
        assert decision.promoted is promoted
        assert ("seen_block" in codes(decision)) is not promoted


def live(seconds: int, challenger: float, champion: float) -> Shadow:
    made = block(seconds, challenger=challenger, champion=champion, markets=1, seed=9)
    assert made.champion_bp is not None
    return Shadow(made.end_us, made.moves_bp, made.challenger_bp, made.champion_bp)


def test_outcomes_in_shadow_count_once_there_are_enough() -> None:
    won = long(DAY, champion=0.4)
    better = decide(won, 0, shadow=live(3600, 1.0, 0.4))
    assert better.promoted
    assert better.shadow.seconds == 3600
    worse = decide(won, 0, shadow=live(3600, 0.2, 1.0))
    assert codes(worse) == {"not_above_champion_in_shadow"}
    short = decide(won, 0, shadow=live(3599, 0.2, 1.0))
    assert short.promoted
    assert "3599 s of outcomes" in str(short.shadow.left_out)
    assert decide(won, 0).shadow.left_out


def test_an_outcome_without_all_horizons_is_left_out() -> None:
    pairs = live(3600, 0.2, 1.0)
    pairs.moves_bp[5, 2] = np.nan
    assert decide(long(DAY, champion=0.4), 0, shadow=pairs).shadow.left_out


def test_figures_are_paired_and_by_horizon() -> None:
    made = block(600, champion=1.0)
    for found in compare(made).values():
        assert found["champion"] == GateSkill(
            skill=0.0, ci=(0.0, 0.0), p=1.0
        )  # the same errors on the same rows
    perfect = made._replace(challenger_bp=made.moves_bp)
    assert compare(perfect)["5"]["no_change"].skill == 1
    unknown = {"last_trade": np.full_like(made.moves_bp, np.nan)}
    assert "last_trade" not in compare(made._replace(baselines_bp=unknown))[ALL]


def test_markets_that_move_together_do_not_count_twice() -> None:
    """The same market once more is no further evidence."""
    one = block(600, champion=0.8, markets=1)._replace(baselines_bp={})
    columns = [np.concatenate([each, each]) for each in one[:5] if each is not None]
    repeated: dict[str, Any] = dict(zip(Block._fields, columns, strict=False))
    twice = one._replace(**repeated)
    assert twice.seconds == one.seconds
    assert compare(twice) == compare(one)


def mixed(challenger: tuple[float, float], champion: float = 0.3, seconds: int = 7200) -> Block:
    """Two markets, the second ten times as lively; the challenger predicts a share of each one's signal."""
    made = block(seconds, champion=champion)
    scale = np.where(made.market == "M0", 1.0, 10.0)[:, None]
    share = np.where(made.market == "M0", *challenger)[:, None]
    assert made.champion_bp is not None
    baselines_bp = {name: scale * each for name, each in made.baselines_bp.items()}
    return made._replace(
        moves_bp=scale * made.moves_bp,
        challenger_bp=scale * share * made.challenger_bp,
        champion_bp=scale * made.champion_bp,
        baselines_bp=baselines_bp,
    )


def test_each_market_has_the_same_weight() -> None:
    """Ten times as large, its squares would be nearly all of the sum."""
    figures = compare(mixed((1.0, 0.0)))
    together, *markets = (figures[part]["no_change"].skill for part in (ALL, "M0", "M1"))
    assert together == pytest.approx(sum(markets) / 2, abs=0.005)
    assert markets[1] == 0


def test_one_market_does_not_make_up_for_another() -> None:
    decision = decide(mixed((1.0, -0.1), champion=0.1), 0, champion_is_provisional=True)
    assert decision.figures[ALL]["champion"].ci[0] > 0
    assert "clearly_below_champion:M1" in codes(decision)
    assert "in M1" in sentence(decision)


def test_a_band_ends_at_the_worst_hour_of_a_market() -> None:
    made = mixed((1.0, 1.0), seconds=8 * 3600)
    worst = (made.market == "M1") & (made.end_us >= 3600 * SECOND) & (made.end_us < 2 * 3600 * SECOND)
    made.challenger_bp[worst] = 0.0
    found = gate.bands(made)
    assert set(found) == {"M0", "M1"}
    for horizon in map(str, HORIZONS_S):
        assert found["M1"][int(horizon)] == pytest.approx(0, abs=0.01)
        whole = compare(made)[horizon]["no_change"].skill
        assert 0.03 < found["M0"][int(horizon)] < whole + 0.05
    assert set(gate.bands(block(30))) == {"M0", "M1"}


def test_seconds_do_not_depend_on_the_grid() -> None:
    coarse = block(600)
    fine = coarse._replace(end_us=coarse.end_us // 10)
    assert (coarse.seconds, fine.seconds, block(1).seconds) == (600, 60, 0)
    thinned = coarse.end_us[(coarse.end_us < 300 * SECOND) | (coarse.end_us % (10 * SECOND) == 0)]
    assert coarse._replace(end_us=thinned).seconds == pytest.approx(600, abs=20)
    interrupted = np.where(coarse.end_us < 300 * SECOND, coarse.end_us, coarse.end_us + DAY * SECOND)
    assert coarse._replace(end_us=interrupted).seconds == pytest.approx(600, abs=2)


def test_each_opponent_has_a_name_for_people() -> None:
    assert WORDS.keys() == {*block(1).baselines_bp, CHAMPION}


def test_an_inconclusive_decision_says_so() -> None:
    assert sentence(decide(block(119), 0)).startswith(
        "Not promoted: inconclusive, 120 s are needed (on 119 s"
    )
    assert sentence(decide(block(119, champion=0.5), 0)).startswith("Champion kept: inconclusive")
