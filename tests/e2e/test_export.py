"""`make export` of the running system, and the notebook on its files: the figures are those of PostgreSQL."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import psycopg
import pytest

from local.commands import deployment, export
from local.commands.command import ExitStatus
from local.commands.deployment import Deployment
from local.system.system import System
from tests.fixtures.notebooks import run_notebook
from tests.fixtures.paths import ROOT
from tests.fixtures.running_system import eventually
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive
from tickcast.adapters.postgres.score_store import ScoreStore
from tickcast.adapters.redis import keys
from tickcast.evaluation.live_scores import HorizonAccuracy, score
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import MINUTE_US

pytestmark = pytest.mark.integration

SYMBOL = "BTCUSDT"
PATIENCE_S = 480  # alone; after the other tests a block has long been archived
ENOUGH = 30  # predictions of a model


def test_an_export_reproduces_the_accuracy(
    system: System,
    there: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = ReceiptArchive(lambda: there.s3, there.bucket)
    block_ms = Folder.SECONDS.block_ms

    def archived() -> int | None:
        """The beginning of a block of receipts that is archived, with enough outcomes."""
        now_ms = round(datetime.now(UTC).timestamp() * 1000)
        for from_ms in Folder.SECONDS.blocks(now_ms - 6 * block_ms, now_ms - block_ms):
            kept = archive.block(Folder.SECONDS, SYMBOL, from_ms).receipts.values()
            if (
                sum(each.source == "model" and len(each.outcomes) == len(HORIZONS_S) for each in kept)
                > ENOUGH
            ):
                return from_ms
        return None

    from_ms = eventually(archived, PATIENCE_S)
    monkeypatch.setattr(deployment, "existing", lambda aws: there)
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    times = [datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (from_ms, from_ms + block_ms)]
    words = ["--from", times[0], "--to", times[1], "--symbols", SYMBOL, "--out", str(tmp_path / "out")]
    assert export.run(parser.parse_args(words)) is ExitStatus.OK
    tables = json.loads(capsys.readouterr().out.splitlines()[-1])["tables"]
    assert all(table["rows"] > 0 for table in tables.values()), tables

    figures = run_notebook(
        ROOT / "examples" / "forecasts.ipynb", monkeypatch, EXPORT=str(tmp_path / "out"), SYMBOL=SYMBOL
    )["figures"]
    plt.close("all")
    span_us = from_ms * 1000, (from_ms + block_ms) * 1000
    expected: dict[int, HorizonAccuracy] = eventually(lambda: accuracy(system, *span_us))
    for horizon_s in HORIZONS_S:
        ours, theirs = figures[horizon_s], expected[horizon_s]
        for name in ("count", "moved", "abstained", "fallbacks"):
            assert ours[name] == getattr(theirs, name), (horizon_s, name)
        assert ours["unresolved"] == sum(theirs.unresolved.values())
        assert theirs.skill and ours["skill"] == pytest.approx(theirs.skill.value, abs=6e-5)
        assert ours["crps_bp"] == pytest.approx(theirs.crps_bp, abs=6e-5)


def accuracy(system: System, from_us: int, to_us: int) -> dict[int, HorizonAccuracy] | None:
    """The figures of a span; None until all of its outcomes are in PostgreSQL."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        store = ScoreStore(connection)
        newest_ms = keys.entry_ms(store.drained(SYMBOL)[0])
        return score(store.tallies(SYMBOL, from_us, to_us, MINUTE_US)) if newest_ms * 1000 >= to_us else None
