"""The perpetual's quotes: in bars, in features by their definition, and live as in history."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.examples import examples
from tests.fixtures.market import START_US, batch, batches, random_reference, random_ticks
from tickcast.features.bars import (
    BAR_US,
    NO_BAR,
    REFERENCE_LIFE_US,
    SILENCE_US,
    Bars,
    bar_index,
    segments,
    summarise,
    whole_seconds,
)
from tickcast.features.reference_quotes import MAX_OPEN
from tickcast.features.ring import BarRing, View
from tickcast.features.vector import FEATURE_NAMES, REFERENCE_FEATURES, feature_rows, history_rows
from tickcast.market import wire
from tickcast.market.ticks import Quotes, Trades
from tickcast.serving.state import SymbolState, decode_state, encode_state
from tickcast.units import SECOND_US

LATENESS_US = 100_000
Market = tuple[Trades, Quotes, Quotes]


def market(seed: int, seconds: float, per_s: float = 15) -> Market:
    trades, quotes = random_ticks(seed, seconds)
    return trades, quotes, random_reference(seed, quotes, per_s)


def named(row: np.ndarray[Any, Any]) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


# ------------------------------------------------------------------------------------------------ bars


@pytest.mark.parametrize("per_s", [0.3, 4, 40])
def test_a_bar_has_the_newest_reference_quote_before_its_end(per_s: float) -> None:
    trades, quotes, reference = market(1, 6, per_s)
    rng = np.random.default_rng(1)
    begun_us = min(int(rows["time_us"].min()) for rows in (trades, quotes)) // BAR_US * BAR_US
    for end_us in (START_US + 6_000_000, START_US + 5_937_000):
        before = [rows[rows["time_us"] < end_us] for rows in (trades, quotes, reference)]
        bars = summarise(
            before[0], before[1], bar_index(START_US), end_us, NO_BAR, rng.permutation(before[2])
        )
        for bar in bars:
            known = [row for row in reference.tolist() if begun_us <= row[0] < bar["end_us"]]
            newest = max(known, key=lambda row: (row[0], row[2]), default=(0,) * 7)
            found = [
                int(bar[f"reference_{name}"]) for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")
            ]
            assert (found, int(bar["reference_us"])) == (list(newest[3:]), newest[0])


def test_reference_quotes_begin_no_segment_and_prolong_none() -> None:
    trades, quotes, reference = market(1, 5)
    later = random_ticks(2, 5)
    for rows, ids in ((later[0], ("first_id", "last_id")), (later[1], ("update_id",))):
        rows["time_us"] += SILENCE_US + 7 * SECOND_US
        for name in ids:
            rows[name] += 10**6
    whole = np.concatenate([quotes, later[1]])
    through = random_reference(3, whole)
    one, two = segments(np.concatenate([trades, later[0]]), whole, through)
    plain_one, plain_two = segments(np.concatenate([trades, later[0]]), whole)
    assert one["end_us"].tolist() == plain_one["end_us"].tolist()
    assert two["end_us"].tolist() == plain_two["end_us"].tolist()
    assert 0 < int(two["reference_us"][0]) >= int(two["end_us"][0]) - BAR_US  # none from the silence
    assert not len(segments(trades[:0], quotes[:0], reference))


# -------------------------------------------------------------------------------------------- features


def by_definition(quotes: Quotes, reference: Quotes, as_of_us: int) -> dict[str, float]:
    """The three features from the ticks, in floating point."""

    def newest(rows: Quotes, at_us: int) -> Any:
        before = rows[rows["time_us"] < at_us]
        return before[-1] if len(before) else None

    def basis(at_us: int) -> float | None:
        spot, perpetual = newest(quotes, at_us), newest(reference, at_us)
        if spot is None or perpetual is None or at_us - perpetual["time_us"] > REFERENCE_LIFE_US:
            return None
        mids = [int(row["bid_price"]) + int(row["ask_price"]) for row in (perpetual, spot)]
        return 1e4 * math.log(mids[0] / mids[1])

    def deviation(at_us: int) -> float | None:
        """Bars' ends within five seconds, each for the time that its bar has in them."""
        now, from_us = basis(at_us), at_us - 5 * SECOND_US
        if now is None:
            return None
        ends = [at_us, *range((at_us - 1) // BAR_US * BAR_US, from_us, -BAR_US)]
        total = weight = 0.0
        for end_us, start_us in zip(ends, [*ends[1:], from_us], strict=True):
            if (value := basis(end_us)) is not None:
                share = 0.5 ** ((at_us - end_us) / 2e6) * (end_us - start_us)
                total, weight = total + share * value, weight + share
        return now - total / weight

    seconds = [as_of_us // SECOND_US * SECOND_US - k * SECOND_US for k in range(60)]
    found = [(0.5 ** (k / 60), deviation(at_us)) for k, at_us in enumerate(seconds)]
    known = [(weight, value) for weight, value in found if value is not None]
    now, perpetual = deviation(as_of_us), newest(reference, as_of_us)
    if now is None:
        return dict.fromkeys((*REFERENCE_FEATURES, "has_reference"), 0.0)
    usual = math.sqrt(sum(w * v * v for w, v in known) / sum(w for w, _ in known)) if known else 0.0
    level = math.log(int(perpetual["bid_qty"]) / int(perpetual["ask_qty"]))
    return {
        "reference_imbalance": max(-6.0, min(6.0, level)) / 3,
        "basis_deviation": max(-3.0, min(3.0, now / max(usual, 0.05))) if len(known) >= 10 else 0.0,
        "has_reference": 1.0,
    }


@pytest.mark.parametrize(("seconds", "per_s"), [(75, 15.0), (75, 0.4), (24, 15.0), (13, 15.0)])
def test_the_features_equal_their_definition(seconds: int, per_s: float) -> None:
    trades, quotes, reference = market(seconds, seconds, per_s)
    (bars,) = segments(trades, quotes, reference)
    rows = history_rows(bars)
    seen = set()
    for at in (-1, -7, -30, -64):
        if np.isnan(rows[at]).any():
            continue
        expected = by_definition(quotes, reference, int(bars["end_us"][at]))
        found = named(rows[at])
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        seen.add(expected["has_reference"])
    assert 1.0 in seen


@pytest.mark.parametrize("elapsed_us", [1_000, 37_000, 99_000])
def test_of_a_partial_bar_too(elapsed_us: int) -> None:
    as_of_us = START_US + 65 * SECOND_US + 400_000 + elapsed_us
    trades, quotes, reference = (rows[rows["time_us"] < as_of_us] for rows in market(5, 70))
    view = viewed(trades, quotes, reference, as_of_us)
    found = named(feature_rows(view.bars, view.seconds, 1)[0])
    for name, value in by_definition(quotes, reference, as_of_us).items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def viewed(trades: Trades, quotes: Quotes, reference: Quotes, as_of_us: int) -> View:
    ring = BarRing(LATENESS_US)
    cuts = [START_US + k * 100_000 for k in range(1, 700)]
    for piece in batches(trades, quotes, cuts, reference=reference):
        list(ring.fold(piece, SECOND_US))
    return ring.view(as_of_us)


def without(bars: Bars, **changed: Any) -> dict[str, float]:
    """The newest row of `bars` after a change of their columns."""
    copy = bars.copy()
    for name, value in changed.items():
        copy[name] = value
    return named(history_rows(copy)[-1])


def test_without_a_fresh_reference_near_spot_the_group_is_zero() -> None:
    (bars,) = segments(*market(9, 20))
    other = named(history_rows(bars)[-1])
    assert other["has_reference"] == 1
    assert all(other[name] for name in REFERENCE_FEATURES)
    price = int(bars["bid_price"][-1])
    absent: dict[str, dict[str, Any]] = {
        "none": {"reference_us": 0, "reference_bid_price": 0, "reference_ask_price": 0},
        "one that is old": {"reference_us": bars["end_us"] - REFERENCE_LIFE_US - 1},
        "a side missing": {"reference_ask_price": 0, "reference_ask_qty": 0},
        "far above": {"reference_bid_price": price * 11 // 10, "reference_ask_price": price * 11 // 10 + 9},
        "far below": {"reference_bid_price": price * 9 // 10, "reference_ask_price": price * 9 // 10 + 9},
        "no spot mid": {"bid_price": 0, "bid_qty": 0},
    }
    for what, changed in absent.items():
        row = without(bars, **changed)
        assert [row[name] for name in (*REFERENCE_FEATURES, "has_reference")] == [0, 0, 0], what
    kept = without(bars, **absent["none"])
    assert all(
        kept[name] == other[name] for name in FEATURE_NAMES if "reference" not in name and "basis" not in name
    )


def test_swapping_buyers_and_sellers_flips_both() -> None:
    (bars,) = segments(*market(7, 70))
    mirror, around = bars.copy(), 2 * 60_000 * 10**8
    for prefix in ("", "reference_"):
        mirror[f"{prefix}bid_qty"], mirror[f"{prefix}ask_qty"] = (
            bars[f"{prefix}ask_qty"],
            bars[f"{prefix}bid_qty"],
        )
        mirror[f"{prefix}bid_price"] = around - bars[f"{prefix}ask_price"]
        mirror[f"{prefix}ask_price"] = around - bars[f"{prefix}bid_price"]
    ours, theirs = (feature_rows(b, whole_seconds(b), 50) for b in (bars, mirror))
    odd = [FEATURE_NAMES.index(name) for name in REFERENCE_FEATURES]
    assert np.abs(ours[:, odd]).max(axis=0).min() > 0.1
    np.testing.assert_allclose(theirs[:, odd], -ours[:, odd], atol=2e-2)  # a mirrored price is another base
    flag = FEATURE_NAMES.index("has_reference")
    assert (theirs[:, flag] == ours[:, flag]).all()


def test_one_row_and_many_are_the_same_bits() -> None:
    (bars,) = segments(*market(5, 100))
    many = history_rows(bars)
    for end in range(1, len(bars) + 1, 3):
        upto = bars[max(0, end - 51) : end]
        alone = feature_rows(upto, whole_seconds(bars[:end])[-61:], 1)[0]
        assert alone.tobytes() == many[end - 1].tobytes()


# ------------------------------------------------------------------------------------ live and history


@examples(25)
@given(
    st.integers(0, 5),
    st.lists(st.integers(START_US, START_US + 20_000_000), max_size=60),
    st.integers(0, 2**32),
    st.sampled_from([0.5, 15, 60]),
)
def test_live_is_history_for_any_batches_order_delay_and_repeats(
    seed: int, cuts_us: list[int], shuffled: int, per_s: float
) -> None:
    """Through wire and Redis; the perpetual's quotes come up to the lateness after the spot ticks of their
    time, in any order, and again by another connection."""
    trades, quotes, reference = market(seed, 20, per_s)
    rng = np.random.default_rng(shuffled)
    arrived_us = reference["time_us"] + rng.integers(0, LATENESS_US, len(reference))
    state, live = SymbolState("BTCUSDT", BarRing(LATENESS_US)), {}
    edges = [-1, *sorted(cuts_us), 2**62]
    for start, stop in zip(edges, edges[1:], strict=False):
        t, q = (r[(r["time_us"] >= start) & (r["time_us"] < stop)] for r in (trades, quotes))
        some = rng.permutation(reference[(arrived_us >= start) & (arrived_us < stop)])
        sent = batch(rng.permutation(t), rng.permutation(q), reference=some)
        if rng.random() < 0.3:
            sent = sent._replace(reference=np.concatenate([some, some]))
        for piece in (sent, sent)[: 1 + int(rng.integers(2))]:
            for instant_us in state.ring.fold(wire.decode(wire.encode(piece)), SECOND_US):
                live[instant_us] = feature_rows(state.ring.bars, state.ring.seconds, 1)[0].tobytes()
            state = decode_state("BTCUSDT", 0, encode_state(state), LATENESS_US)
    assert state.ring.reference.late_count == 0
    (bars,) = segments(trades, quotes, rng.permutation(reference))
    history = dict(zip(bars["end_us"].tolist(), history_rows(bars), strict=True))
    compared = [instant_us for instant_us in live if instant_us in history]
    assert len(compared) >= 18
    for instant_us in compared:
        assert live[instant_us] == history[instant_us].tobytes()


@examples(25)
@given(st.integers(0, 5), st.lists(st.integers(0, 30_000), max_size=40), st.integers(0, 2**32))
def test_a_view_is_what_its_ticks_give_from_scratch(seed: int, cuts_ms: list[int], order: int) -> None:
    trades, quotes, reference = market(seed, 30)
    rng = np.random.default_rng(order)
    ring = BarRing(LATENESS_US)
    cuts = [START_US + 1000 * ms for ms in cuts_ms]
    for piece in batches(trades, quotes, cuts, reference=reference):
        list(ring.fold(piece, SECOND_US))
        newest_ms = ring.watermark.newest_us // 1000
        for as_of_us in (ring.as_of_us, ring.closed_us, int(rng.integers(newest_ms - 300, newest_ms)) * 1000):
            view = ring.view(as_of_us)
            ticks = [rows[rows["time_us"] < view.as_of_us] for rows in (trades, quotes, reference)]
            first = bar_index(view.history_from_us)
            expected = summarise(ticks[0], ticks[1], first, view.as_of_us, NO_BAR, ticks[2])
            assert view.bars.tobytes() == expected[-len(view.bars) :].tobytes()
            assert view.seconds.tobytes() == whole_seconds(expected)[-len(view.seconds) :].tobytes()
            is_open = (ticks[2]["time_us"] >= view.closed_us) & (ticks[2]["time_us"] < view.as_of_us)
            ids = dict(
                zip(ticks[2]["time_us"][is_open] // BAR_US, ticks[2]["update_id"][is_open], strict=True)
            )
            assert view.reference_ids.tolist() == list(ids.values())


# ----------------------------------------------------------------------------------- late, lost, bounded


def test_a_late_one_is_counted_and_listed_and_changes_nothing() -> None:
    trades, quotes, reference = market(3, 5)
    ring = BarRing(LATENESS_US)
    list(ring.fold(batch(trades, quotes, reference=reference[:-9]), SECOND_US))
    closed_us = START_US + 5 * SECOND_US + 2 * LATENESS_US
    list(ring.fold(batch(trades[:0], quotes[:0], closed_us), BAR_US))
    before = ring.bars.tobytes()
    late = reference[reference["time_us"] > ring.reference.closed_us]
    assert len(late) == 9
    list(ring.fold(batch(trades[:0], quotes[:0], closed_us, reference=reference), SECOND_US))
    assert ring.bars.tobytes() == before
    assert ring.reference.late_count == 9  # the others are repeats
    assert ring.reference.late_ids == late["update_id"].tolist()
    assert ring.late_count == 0  # that is about the spot market
    assert not len(ring.open_reference)


def test_without_claims_of_spot_they_stay_bounded() -> None:
    trades, quotes, _ = market(3, 5)
    reference = random_reference(3, quotes, 15)
    ring = BarRing(LATENESS_US)
    list(ring.fold(batch(trades, quotes), SECOND_US))
    for n in range(200):
        more = reference.copy()
        more["time_us"] += (n + 1) * 5 * SECOND_US
        more["update_id"] += (n + 1) * 10**6
        list(ring.fold(batch(trades[:0], quotes[:0], wire.NO_WATERMARK, reference=more), SECOND_US))
    assert len(ring.open_reference) <= MAX_OPEN
    assert int(ring.open_reference["time_us"][-1]) == ring.reference.newest_us
    assert ring.reference.late_count > 0


def test_before_any_spot_tick_they_are_kept_and_nothing_is_shown() -> None:
    trades, quotes, reference = market(4, 8)
    ring, whole = BarRing(LATENESS_US), BarRing(LATENESS_US)
    list(ring.fold(batch(trades[:0], quotes[:0], START_US, reference=reference[:20]), SECOND_US))
    assert not len(ring.view().bars)
    list(ring.fold(batch(trades, quotes, reference=reference[20:]), SECOND_US))
    list(whole.fold(batch(trades, quotes, reference=reference), SECOND_US))
    assert ring.bars.tobytes() == whole.bars.tobytes()
