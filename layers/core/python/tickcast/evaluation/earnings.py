"""What acting on served forecasts would have earned, hypothetically: after spread and fees, how surely.

Each forecast is acted on by itself, with the same amount: bought or sold by a market order at its delivery in
the direction of the expected move, and closed by another one a horizon later. It earns the move of the mid in
that direction (gross), less half the spread at both times, less two fees (net), in bp of the amount. A
forecast that abstains is not acted on, nor is one that expects less than the *threshold*. Trades of one
market overlap; size, market impact and the order's way to the exchange are left out, so that real results
would be worse.

Two questions are answered apart. *How sure is the net result?* By a bootstrap of moving blocks of time
(`evaluation.skill.share`). *Might chance have earned the same?* By a shuffle test: the directions of whole
blocks of time are reversed at random (a randomisation test by clusters: Canay, Romano and Shaikh 2017), and
`shuffled_p` is the share of these shuffles that earn as much. What the trades would have earned with the
span's outcomes shuffled among all its forecasts, the product of mean direction and mean move, is taken out
first: always buying in a market that rises is no forecast. Costs are those of the same trades, so a small
`shuffled_p` says that there is information, and `net_bp` whether it pays.

All of it follows from sums by block of time, kept by steps of the expected move: see `EARNED`.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from tickcast.evaluation.figures import rounded
from tickcast.evaluation.skill import MIN_BLOCKS, RESAMPLES, Interval, share
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S, Probability

THRESHOLDS_BP = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
NOT_ACTED_ON = -1  # the step of what abstains, or expects no direction

# By step: of the forecasts of a model whose outcome is known. Moves, spreads and fees in bp.
SUMS = (
    "count",
    "directions",  # bought less sold; this and all below but `moves` are 0 where not acted on
    "moves",  # of the mid, also where not acted on
    "gross",  # direction · move
    "spread",  # paid: half of it at the delivery, half at the target
    "fees",  # of both sides
)
EARNED = np.dtype(
    [
        ("block", "<i8"),
        ("horizon_s", "<i4"),
        (
            "step",
            "<i4",
        ),  # the number of the highest threshold that the expected move reaches, or NOT_ACTED_ON
        ("worth_trading", "?"),  # it exceeded the cost
        *((name, "<f8") for name in SUMS),
    ]
)
Earned = npt.NDArray[Any]  # of EARNED


class Earnings(Struct, kw_only=True):
    """What acting would have earned where the expected move reached a threshold, hypothetically; a mean of
    all its trades where it is in bp. Null without trades; interval and test also with fewer than ten blocks
    of time that have some."""

    threshold_bp: Annotated[
        float | None,
        Meta(description="acted on from this expected move on; null: where it exceeded spread and fees"),
    ]
    trades: Annotated[
        int, Meta(ge=0, description="forecasts acted on: bought or sold, closed a horizon later")
    ]
    gross_bp: Annotated[float | None, Meta(description="move of the mid in the direction forecast")]
    spread_bp: Annotated[float | None, Meta(description="paid to enter and leave")]
    fees_bp: Annotated[float | None, Meta(description="of both sides, by configuration")]
    net_bp: Annotated[float | None, Meta(description="gross less spread and fees")]
    net_ci: Interval | None
    break_even_fee_bp: Annotated[
        float | None,
        Meta(description="the fee of one side at which net is 0; below 0: it loses without any fee"),
    ]
    shuffled_p: Annotated[
        Probability | None,
        Meta(description="share of shuffles, directions of blocks of time reversed, that earn as much gross"),
    ]


class Acted(NamedTuple):
    """Forecasts of one horizon with their outcomes, each (N,): the expected and the actual move of the mid in
    bp, whether the forecast abstained, whether the expected move exceeded the cost as known then, and the
    spread paid."""

    expected_bp: Floats
    moves_bp: Floats
    abstains: npt.NDArray[np.bool_]
    worth_trading: npt.NDArray[np.bool_]
    spread_paid_bp: Floats


def earned(block: npt.NDArray[np.int64], horizon_s: int, acted: Acted, fee_bp: float) -> Earned:
    """A row for each forecast, of the block of time `block` (N,), at a fee of `fee_bp` a side."""
    size, direction = np.abs(acted.expected_bp), np.sign(acted.expected_bp)
    is_acted_on = ~acted.abstains & (direction != 0)
    direction = np.where(is_acted_on, direction, 0.0)
    rows = np.zeros(len(size), EARNED)
    rows["block"], rows["horizon_s"], rows["count"] = block, horizon_s, 1
    rows["step"] = np.where(is_acted_on, np.searchsorted(THRESHOLDS_BP, size, side="right") - 1, NOT_ACTED_ON)
    rows["worth_trading"] = is_acted_on & acted.worth_trading
    rows["directions"], rows["moves"] = direction, acted.moves_bp
    rows["gross"] = direction * acted.moves_bp
    rows["spread"], rows["fees"] = is_acted_on * acted.spread_paid_bp, is_acted_on * 2 * fee_bp
    return rows


def earnings_by_horizon(rows: Earned, block_count: int = 1) -> dict[int, list[Earnings]]:
    """`earnings` of each horizon, by seconds."""
    return {h: earnings(rows[rows["horizon_s"] == h], block_count) for h in HORIZONS_S}


def earnings(rows: Earned, block_count: int = 1) -> list[Earnings]:
    """The figures of one horizon for every threshold, in their order, and of what was worth trading.

    Intervals and shuffles are of `block_count` blocks of `rows` together: more than one where these are
    shorter than errors are correlated for."""
    blocks, place = np.unique(rows["block"], return_inverse=True)
    step, worth_trading = rows["step"], rows["worth_trading"]

    def of(which: npt.NDArray[np.bool_], threshold_bp: float | None) -> Earnings:
        acted_on = {name: np.bincount(place, rows[name] * which, len(blocks)).astype(float) for name in SUMS}
        return _figures(acted_on, drift_bp, threshold_bp, block_count)

    count = float(rows["count"].sum())
    drift_bp = float(rows["moves"].sum()) / count if count else 0.0
    return [
        *(of(step >= number, threshold_bp) for number, threshold_bp in enumerate(THRESHOLDS_BP)),
        of(worth_trading, None),
    ]


def _figures(
    blocks: dict[str, Floats], drift_bp: float, threshold_bp: float | None, block_count: int
) -> Earnings:
    """Of sums by block (K,), in the order of time."""
    count = blocks["count"]
    trades = float(count.sum())
    if not trades:
        return Earnings(threshold_bp=threshold_bp, trades=0, **dict.fromkeys(_OF_TRADES))
    gross, spread, fees = (float(blocks[name].sum()) / trades for name in ("gross", "spread", "fees"))
    net = blocks["gross"] - blocks["spread"] - blocks["fees"]
    net_ci, shuffled_p = None, None
    if len(np.unique(np.flatnonzero(count) // block_count)) >= MIN_BLOCKS:
        net_ci = [rounded(each) for each in share(net, count, block_count)[1]]
        shuffled_p = rounded(_shuffled_p(blocks["gross"] - blocks["directions"] * drift_bp, block_count))
    return Earnings(
        threshold_bp=threshold_bp,
        trades=round(trades),
        gross_bp=rounded(gross),
        spread_bp=rounded(spread),
        fees_bp=rounded(fees),
        net_bp=rounded(gross - spread - fees),
        net_ci=net_ci,
        break_even_fee_bp=rounded((gross - spread) / 2),
        shuffled_p=shuffled_p,
    )


_OF_TRADES = [name for name in Earnings.__struct_fields__ if name not in ("threshold_bp", "trades")]


def _shuffled_p(excess: Floats, block_count: int) -> float:
    """The share of `RESAMPLES` reversals, at random, of the signs of `excess` (K,), `block_count` at a time,
    that sum to as much or more; the actual one counts as one of them."""
    excess = np.add.reduceat(excess, np.arange(0, len(excess), block_count))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (RESAMPLES, len(excess)))
    # Sums of the same numbers in another order may differ in their last bits.
    least = excess.sum() - 1e-9 * np.abs(excess).sum()
    return (1 + int((signs @ excess >= least).sum())) / (RESAMPLES + 1)
