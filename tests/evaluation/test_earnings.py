"""What acting on forecasts would have earned, of hand-made trades and of planted markets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fixtures.holdouts import SPREAD_BP
from tickcast.evaluation.backtest import BacktestRows
from tickcast.evaluation.backtest_figures import earnings_at_delivery
from tickcast.evaluation.earnings import (
    EARNED,
    THRESHOLDS_BP,
    Acted,
    Earnings,
    earned,
    earnings,
    earnings_by_horizon,
)
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S

FEE_BP = 0.1


def acted(expected_bp: Floats, moves_bp: Floats, spread_bp: float = 0.2) -> Acted:
    return Acted(
        expected_bp,
        moves_bp,
        abstains=np.zeros(len(expected_bp), bool),
        worth_trading=np.abs(expected_bp) > spread_bp + 2 * FEE_BP,
        spread_paid_bp=np.full(len(expected_bp), spread_bp),
    )


def of(expected_bp: Floats, moves_bp: Floats, in_block: int = 20, fee_bp: float = FEE_BP) -> list[Earnings]:
    """The figures of forecasts, so many in each block of time."""
    block = np.arange(len(expected_bp)) // in_block
    return earnings(earned(block, 2, acted(expected_bp, moves_bp), fee_bp))


def market(seed: int, rows: int = 1000, known: float = 0.0, drift_bp: float = 0.0) -> tuple[Floats, Floats]:
    """Forecasts of so much of the move, and the moves."""
    signal, noise = np.random.default_rng(seed).normal(size=(2, rows))
    return signal, known * signal + noise + drift_bp


def test_by_hand() -> None:
    expected = np.array([0.3, -0.6, 2.0, 0.9, 0.0])
    moves = np.array([1.0, 1.0, 3.0, -1.0, 7.0])
    abstains = np.array([False, False, False, True, False])
    rows = earned(np.zeros(5, np.int64), 2, acted(expected, moves)._replace(abstains=abstains), FEE_BP)
    found = earnings(rows)
    assert [each.threshold_bp for each in found] == [*THRESHOLDS_BP, None]
    assert [each.trades for each in found] == [3, 3, 2, 1, 1, 0, 2]
    all_of_them = found[0]
    assert all_of_them.gross_bp == 1.0  # (1 - 1 + 3) / 3
    assert (all_of_them.spread_bp, all_of_them.fees_bp) == (0.2, 0.2)
    assert all_of_them.net_bp == 0.6
    assert all_of_them.break_even_fee_bp == 0.4  # 1.0 less 0.2, halved
    assert (all_of_them.net_ci, all_of_them.shuffled_p) == (None, None)  # of one block of time
    assert (found[4].net_bp, found[-1].gross_bp) == (2.6, 1.0)
    assert found[5].net_bp is found[5].break_even_fee_bp is None


def test_a_threshold_is_reached_by_the_move_that_equals_it() -> None:
    for number, threshold_bp in enumerate(THRESHOLDS_BP[1:], 1):
        moves = np.ones(2)
        found = of(np.array([threshold_bp, -np.nextafter(threshold_bp, 0)]), moves)
        assert [found[number - 1].trades, found[number].trades] == [2, 1]


def test_the_interval_of_the_net_result_covers_the_truth() -> None:
    """Of forecasts that know the move but for as much noise: each earns E|signal| = √(2/π) gross."""
    truth = np.sqrt(2 / np.pi) - 0.2 - 2 * FEE_BP
    found = [of(*market(seed, known=1.0))[0] for seed in range(60)]
    intervals = [each.net_ci for each in found if each.net_ci]
    assert len(intervals) == 60
    assert sum(low < truth < high for low, high in intervals) >= 0.85 * 60
    assert all(each.shuffled_p == pytest.approx(1 / 501, abs=1e-4) for each in found)


def test_chance_passes_the_shuffle_test_as_often_as_it_should() -> None:
    p = np.array([of(*market(seed))[0].shuffled_p for seed in range(200)], float)
    assert 0.02 <= (p <= 0.05).mean() <= 0.09
    assert 0.4 <= p.mean() <= 0.6


def test_the_shuffle_test_agrees_with_shuffling_the_outcomes() -> None:
    """Weak forecasts: the share of 500 permutations of the moves that earn as much."""
    pairs = []
    for seed in range(12):
        expected, moves = market(seed, known=0.03)
        rng, gross = np.random.default_rng(seed), (np.sign(expected) * moves).sum()
        shuffled = [(np.sign(expected) * rng.permutation(moves)).sum() for _ in range(500)]
        pairs.append((of(expected, moves)[0].shuffled_p, np.mean(np.array(shuffled) >= gross)))
    ours, theirs = np.array(pairs, float).T
    assert np.abs(ours - theirs).max() < 0.1


def test_always_buying_in_a_rising_market_is_no_forecast() -> None:
    _, moves = market(1, drift_bp=1.0)
    found = of(np.ones(len(moves)), moves)[0]
    assert found.gross_bp is not None and found.gross_bp > 0.9
    assert found.net_ci is not None and found.net_ci[0] > 0  # it did earn that
    assert found.shuffled_p is not None and found.shuffled_p > 0.05  # by the drift alone


def test_a_fee_takes_itself_twice_from_each_trade_and_changes_nothing_else() -> None:
    signal, moves = market(2, known=1.0)
    free, dear = (of(signal, moves, fee_bp=fee_bp)[0] for fee_bp in (0.0, 10.0))
    assert dear.net_bp == pytest.approx((free.net_bp or 0) - 20)
    assert (dear.net_ci or [])[0] == pytest.approx((free.net_ci or [])[0] - 20, abs=1e-3)
    assert (free.break_even_fee_bp, free.shuffled_p) == (dear.break_even_fee_bp, dear.shuffled_p)


def test_shorter_blocks_are_drawn_and_shuffled_together() -> None:
    """An instant's errors repeat for a second: instants alone would make both too sure."""
    signal, moves = (np.repeat(each, 20) for each in market(3, rows=200, known=0.15))
    rows = earned(np.arange(len(moves)), 2, acted(signal, moves), FEE_BP)
    alone, together = (earnings(rows, count)[0] for count in (1, 40))
    widths = [high - low for low, high in (each.net_ci or [0, 0] for each in (alone, together))]
    assert widths[1] > 2 * widths[0]
    assert (alone.shuffled_p or 0) < (together.shuffled_p or 0)
    assert earnings(rows, 500)[0].net_ci is None  # eight blocks


def test_sums_by_block_give_the_same_figures_as_rows() -> None:
    signal, moves = market(4, known=0.5)
    rows = earned(np.arange(len(moves)) // 20, 2, acted(signal, moves), FEE_BP)
    groups: dict[tuple[int, int, bool], list[float]] = {}
    for block, _, step, worth, *sums in rows.tolist():
        known = groups.setdefault((block, step, worth), [0.0] * len(sums))
        groups[block, step, worth] = [a + b for a, b in zip(known, sums, strict=True)]
    summed = np.array([(b, 2, step, worth, *sums) for (b, step, worth), sums in groups.items()], EARNED)
    assert len(summed) < len(rows) and earnings(summed) == earnings(rows)


def test_nothing_known_earns_nothing() -> None:
    found = earnings_by_horizon(np.empty(0, EARNED))
    assert list(found) == list(HORIZONS_S)
    for of_horizon in found.values():
        assert {each.trades for each in of_horizon} == {0}
        assert {each.net_bp for each in of_horizon} == {None}


def test_of_a_backtest_by_hand(predicted: BacktestRows) -> None:
    delivered = predicted.ages[200]
    for at, (horizon, found) in enumerate(earnings_at_delivery(predicted, 200, 10.0, 0.6).items()):
        assert horizon == str(HORIZONS_S[at])
        expected, moves = delivered.expected_bp[:, at], delivered.moves_bp[:, at]
        decided = predicted.confidence[:, at] >= 0.6
        gross = (np.sign(expected) * moves)[decided].mean()
        assert 0 < found[0].trades == decided.sum() < len(moves)
        assert found[0].gross_bp == pytest.approx(gross, abs=1e-4)
        assert found[0].net_bp == pytest.approx(gross - SPREAD_BP - 20, abs=1e-4)
        assert found[0].net_ci is not None and found[0].net_ci[1] < 0  # at a taker's fee
        assert found[0].shuffled_p is not None and found[0].shuffled_p < 0.05  # though it does predict
        assert found[-1].trades == 0
    cheap = earnings_at_delivery(predicted, 200, 0.0, 0.6)["2"]
    assert cheap[-1].trades > 0 and (cheap[-1].net_bp or 0) > 0
