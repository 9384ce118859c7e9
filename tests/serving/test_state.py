import gzip
import json
import struct
from typing import Any

import numpy as np
import pytest

from tests.fixtures.market import batch, random_reference, random_ticks
from tests.fixtures.paths import ROOT
from tests.fixtures.records import prediction
from tickcast.features.ring import BarRing
from tickcast.market.gaps import GapLedger, LedgerRecord
from tickcast.market.ticks import Quotes, Trades
from tickcast.model.calibration import Calibrator
from tickcast.serving.outcomes import PendingPredictions
from tickcast.serving.records import Prediction
from tickcast.serving.state import (
    STATE_LOST,
    VERSION,
    StateError,
    SymbolState,
    decode_state,
    encode_state,
    recalled_state,
    salvage,
)


def state_of(seconds: float) -> SymbolState:
    trades, quotes = random_ticks(1, seconds)
    ring = BarRing(100_000)
    list(ring.fold(batch(trades[::2], quotes), 1_000_000))
    pending = PendingPredictions(calibrators={"m1": {2: Calibrator(1.5, 0.8, 3, 0.1)}})
    pending.expect(prediction(10_000))
    return SymbolState("BTCUSDT", ring, pending, sequence=7, as_of_us=9_900_000, kept_us=9_000_000)


def test_a_decoded_state_folds_like_the_original() -> None:
    trades, quotes = random_ticks(1, 20)
    early, late = (
        batch(
            trades[(trades["time_us"] < 1_754_000_010_000_000) == is_early],
            quotes[(quotes["time_us"] < 1_754_000_010_000_000) == is_early],
        )
        for is_early in (True, False)
    )
    kept, stored = (SymbolState("BTCUSDT", BarRing(100_000)) for _ in range(2))
    for state in (kept, stored):
        list(state.ring.fold(early, 1_000_000))
    stored = decode_state("BTCUSDT", 0, encode_state(stored), 100_000)
    for state in (kept, stored):
        list(state.ring.fold(late, 1_000_000))
    assert encode_state(stored) == encode_state(kept)


def test_a_state_survives_a_round_trip() -> None:
    state = state_of(3)
    back = decode_state("BTCUSDT", 7, encode_state(state), 100_000)
    assert (back.symbol, back.sequence, back.pending) == (state.symbol, state.sequence, state.pending)
    assert (back.as_of_us, back.kept_us) == (9_900_000, 9_000_000)
    assert back.ring.watermark == state.ring.watermark
    assert back.ring.gaps == state.ring.gaps
    assert back.ring.history_from_us == state.ring.history_from_us > 0
    assert back.ring.seconds.tobytes() == state.ring.seconds.tobytes()


def header_of(data: bytes) -> Any:
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length])


@pytest.mark.parametrize("version", [3, 4])
def test_of_a_captured_state_of_a_version_before_all_but_the_bars_is_kept(version: int) -> None:
    """With a challenger, calibrators, gaps, notices and a restart of ids."""
    data = gzip.decompress((ROOT / "tests" / "events" / f"state-v{version}.bin.gz").read_bytes())
    with pytest.raises(StateError, match=f"state of version {version}"):
        decode_state("BTCUSDT", 7, data, 100_000)
    state = recalled_state("BTCUSDT", 100_000, [], None)
    salvage(state, data)
    assert state.pending.calibrators["m1"][10].outcomes == 4
    assert [gap.cause for gap in state.ring.gaps.gaps] == ["reset by peer", "unknown"]
    assert state.ring.trade_ids.newest_us > 0


def test_a_recalled_state_predicts_no_instant_again() -> None:
    state = recalled_state("BTCUSDT", 100_000, [receipt(30, timestamp=50_300)], None)
    assert (state.as_of_us, state.kept_us) == (50_300_000, 50_300_000)


def test_an_encoded_state_is_small() -> None:
    ring = BarRing(100_000)
    trades, quotes = random_ticks(1, 90)
    list(ring.fold(batch(trades, quotes, reference=random_reference(1, quotes, 40)), 1_000_000))
    assert len(ring.open_reference)
    assert len(encode_state(SymbolState("BTCUSDT", ring))) < 30_000
    assert len(encode_state(state_of(90))) < 56_000  # every other trade is missing: the ledger is full


def test_another_version_is_refused_by_name() -> None:
    data = encode_state(state_of(2)).replace(b'"version":%d' % VERSION, b'"version":1')
    with pytest.raises(StateError, match=f"state of version 1, this code reads version {VERSION}"):
        decode_state("BTCUSDT", 0, data, 100_000)


@pytest.mark.parametrize("cut", [0, 3, 20, -1])
def test_damage_is_a_state_error(cut: int) -> None:
    with pytest.raises(StateError, match="damaged state"):
        decode_state("BTCUSDT", 0, encode_state(state_of(2))[:cut], 100_000)


def test_any_changed_byte_is_a_state_error() -> None:
    data = encode_state(state_of(2))
    for at in range(0, len(data), 97):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(StateError):
            decode_state("BTCUSDT", 0, changed, 100_000)


def test_a_number_that_is_not_finite_is_never_encoded() -> None:
    state = state_of(2)
    state.pending.calibrators["m1"][2].interval_width = float("nan")
    with pytest.raises(ValueError, match="memory.calibrators"):
        encode_state(state)


def receipt(last_trade_id: int | None, **changed: Any) -> Prediction:
    known = {"timestamp": 50_000, "last_trade_id": last_trade_id, "trade_age_ms": 700, "quote_age_ms": 20}
    return prediction(50_000, **known | changed)


def ledger_of(*holes: tuple[int, int, int, int]) -> LedgerRecord:
    ledger = GapLedger(forgotten=5)
    for hole in holes:
        ledger.missing(*hole)
    ledger.quotes_resumed(10_000_000, 20_000_000)
    return ledger.record()


def test_a_lost_state_is_recalled_with_its_ledger_and_ids() -> None:
    record = ledger_of((10, 12, 1_000_000, 2_000_000), (20, 20, 3_000_000, 4_000_000))
    ring = recalled_state("BTCUSDT", 100_000, [receipt(30)], record).ring
    assert ring.gaps.record() == record
    assert ring.trade_ids.seen.intervals == [(0, 9), (13, 19), (21, 30)]
    # Ages are rounded down to whole milliseconds.
    assert (ring.trade_ids.newest_us, ring.quote_ids.newest_us) == (49_299_000, 49_979_000)
    assert (len(ring.bars), ring.next_bar) == (0, -1)
    assert [notice.cause for notice in ring.gaps.notices] == [STATE_LOST]


def test_the_hole_across_the_loss_is_found() -> None:
    trades, quotes = random_ticks(1, 20)
    last_id = int(trades["first_id"][40])
    newest_ms = int(trades["time_us"][40]) // 1000
    known = receipt(last_id, timestamp=newest_ms + 5, trade_age_ms=5)
    ring = recalled_state("BTCUSDT", 100_000, [known], None).ring
    list(ring.fold(batch(trades[50:], quotes), 1_000_000))
    (gap,) = ring.gaps.gaps
    assert (gap.first_id, gap.last_id, gap.cause) == (last_id + 1, last_id + 9, STATE_LOST)
    assert newest_ms * 1000 - 2000 <= gap.from_us <= int(trades["time_us"][40])
    assert gap.to_us == int(trades["time_us"][50])


def test_holes_in_lost_bars_merge_into_the_hole_across_the_loss() -> None:
    record = ledger_of((10, 12, 1_000_000, 2_000_000), (33, 34, 49_500_000, 49_600_000))
    ring = recalled_state("BTCUSDT", 100_000, [receipt(30)], record).ring
    assert [gap.first_id for gap in ring.gaps.gaps] == [10]
    assert ring.trade_ids.seen.newest == 30


def test_holes_of_a_series_of_ids_that_ended_are_kept_and_hide_no_trade() -> None:
    record = ledger_of((10**9, 10**9 + 5, 1_000_000, 2_000_000))
    ring = recalled_state("BTCUSDT", 100_000, [receipt(30)], record).ring
    assert [gap.first_id for gap in ring.gaps.gaps] == [10**9]
    assert ring.trade_ids.seen.intervals == [(0, 30)]


def test_ids_are_recalled_from_the_newest_receipt_that_has_one() -> None:
    older = receipt(30, timestamp=40_000)
    ring = recalled_state("BTCUSDT", 100_000, [receipt(None, trade_age_ms=None), older], None).ring
    assert ring.trade_ids.seen.newest == 30
    assert (ring.trade_ids.newest_us, ring.quote_ids.newest_us) == (39_299_000, 49_979_000)


def test_of_another_version_all_but_the_bars_is_kept() -> None:
    before = state_of(90)
    data = encode_state(before).replace(b'"version":%d' % VERSION, b'"version":1')
    state = recalled_state("BTCUSDT", 100_000, [], None)
    salvage(state, data)
    assert state.ring.gaps == before.ring.gaps
    assert state.ring.trade_ids.seen.intervals == before.ring.trade_ids.seen.intervals
    assert state.ring.trade_ids.newest_us == before.ring.trade_ids.newest_us
    assert state.pending.calibrators == before.pending.calibrators
    assert len(state.ring.bars) == 0


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\0", encode_state(state_of(2))[:50], encode_state(state_of(2)), b"\x02\0\0\0[]"]
)
def test_of_damaged_bytes_nothing_is_kept(data: bytes) -> None:
    state = recalled_state("BTCUSDT", 100_000, [], None)
    salvage(state, data)
    assert encode_state(state) == encode_state(recalled_state("BTCUSDT", 100_000, [], None))


def lost_after(trades: Trades, quotes: Quotes) -> BarRing:
    """A ring recalled from a receipt on the last of `trades` and `quotes`."""
    trade_us, quote_us = int(trades["time_us"][-1]), int(quotes["time_us"][-1])
    end_ms = max(trade_us, quote_us) // 1000 + 50
    last = receipt(
        int(trades["last_id"][-1]),
        update_id=int(quotes["update_id"][-1]),
        timestamp=end_ms,
        trade_age_ms=(end_ms * 1000 - trade_us) // 1000,
        quote_age_ms=(end_ms * 1000 - quote_us) // 1000,
    )
    return recalled_state("BTCUSDT", 100_000, [last], None).ring


def test_ids_far_off_behind_a_loss_make_no_hole() -> None:
    trades, quotes = random_ticks(1, 20)
    ring = lost_after(trades[:40], quotes[:40])
    trades["first_id"][45] = trades["last_id"][45] = 2**60
    list(ring.fold(batch(trades[40:], quotes[40:]), 1_000_000))
    assert (ring.gaps.trades, ring.trade_ids.refused_count) == (1, 1)
    assert ring.trade_ids.seen.newest == trades["last_id"][-1]


def test_a_series_that_began_over_while_the_state_was_lost_is_recognised() -> None:
    """Holes in it are found too."""
    trades, quotes = random_ticks(1, 20)
    ring = lost_after(trades[:40], quotes[:40])
    last_id = int(trades["last_id"][39])
    trades["first_id"] -= last_id
    trades["last_id"] -= last_id
    with_hole = np.delete(trades[40:], slice(100, 107))
    list(ring.fold(batch(with_hole, quotes[40:]), 1_000_000))
    assert [(each.kind, each.last_id, each.first_id) for each in ring.gaps.restarts] == [
        ("trades", last_id, 1)
    ]
    assert [gap.trades for gap in ring.gaps.gaps] == [7]
    assert recalled_state("BTCUSDT", 100_000, [], ring.gaps.record()).ring.gaps.restarts == ring.gaps.restarts


def test_ticks_repeated_after_a_loss_are_ignored() -> None:
    """A second connection repeats it."""
    trades, quotes = random_ticks(1, 20)
    ring = lost_after(trades[:40], quotes[:40])
    list(ring.fold(batch(trades[35:], quotes[35:]), 1_000_000))
    assert (
        ring.gaps.trades,
        ring.trade_ids.refused_count,
        ring.quote_ids.refused_count,
        ring.trade_ids.late_count,
    ) == (0, 0, 0, 0)
    assert int(ring.seconds["trade_count"].sum()) <= len(trades) - 40
