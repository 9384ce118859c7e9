"""End to end: from the exchange's frames to predictions behind the API and trades in bronze."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from local.commands import smoke
from local.commands.recorded_mids import mids_of, price_errors
from local.system import archived_trades
from local.system.progress import Progress
from local.system.system import System

pytestmark = pytest.mark.integration

SECONDS = 15


def test_from_frame_to_served_prediction(system: System) -> None:
    report = smoke.observe(system, SECONDS, Progress(Console(file=io.StringIO())))
    assert report.errors == []
    assert report.predictions >= len(system.symbols)
    assert report.fallbacks == 0
    assert report.model_id is not None
    assert report.inference_ms_p99 is not None
    assert report.event_to_prediction_ms_p50 is not None
    # No answer can be seen before the instant that it is for.
    assert report.event_to_prediction_ms_p50 > 0
    assert report.age_when_read_ms_p50 is not None
    assert report.age_when_read_ms_p50 > 0


def test_no_trade_is_lost_on_the_way_to_bronze(system: System) -> None:
    sent = archived_trades.sent_so_far(system)
    assert all(each["trades"] > 0 for each in sent.values())
    assert archived_trades.trades_lost(system, sent) == 0


def test_a_trade_that_never_arrived_counts_as_lost(system: System) -> None:
    sent = archived_trades.sent_so_far(system)
    claimed = {
        s: each | {"trades": each["trades"] + 1, "first_id": each["first_id"] - 1} for s, each in sent.items()
    }
    assert archived_trades.trades_lost(system, claimed) == len(claimed)


def test_a_wrong_basis_price_is_found(system: System) -> None:
    assert system.exchange_url
    with system.redis() as store:
        entries = store.xrevrange("predictions:BTCUSDT", count=1)

    served = json.loads(entries[0][1][b"json"])
    recording = mids_of(system.exchange_url)
    assert price_errors(recording, [served]) == []
    wrong = served | {"basis_price": served["basis_price"] + 0.01}
    (error,) = price_errors(recording, [wrong])
    assert "BTCUSDT" in error
