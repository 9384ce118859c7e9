"""`make export`, on bronze and archived receipts in S3: the files hold what was archived, the dictionary
names all of their columns, and the notebook's figures are those of `/accuracy`."""

from __future__ import annotations

import argparse
import functools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec.structs import asdict, replace
from rich.console import Console

from local.commands import deployment, export
from local.commands.command import ExitStatus
from local.commands.deployment import Deployment
from local.commands.export import ExportFailed, Span
from local.export import dictionary
from local.export.parquet_files import meaning, schema_of
from local.export.tables import MEANINGS, TABLES
from local.system.options import OptionsError
from local.system.progress import Progress
from operations.rehearsal.documents import COMMAND, DATA_DICTIONARY
from tests.fixtures.aws import BUCKET
from tests.fixtures.kinesis_events import batch_event
from tests.fixtures.market import START_US, batches, random_reference, random_ticks
from tests.fixtures.notebooks import run_notebook
from tests.fixtures.paths import ROOT
from tests.fixtures.receipts import outcomes_of, receipts_of
from tests.fixtures.tallies import tallies
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake.objects import list_objects
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive
from tickcast.evaluation.live_scores import score
from tickcast.features.bars import segments
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.archive_ticks import archive
from tickcast.market.ticks import SCALE, Quotes, Trades
from tickcast.market.wire import TickBatch
from tickcast.model.dataset import pool, rows_of_hour
from tickcast.model.forecast import HORIZONS_S, PATH_S
from tickcast.serving.records import ArchivedReceipt, Outcome, Prediction
from tickcast.units import HOUR_US, SECOND_US

SECONDS = 150
HOUR = (START_US // HOUR_US + 1) * HOUR_US
FIRST_US = HOUR - 75 * SECOND_US  # so that the market crosses an hour
SPAN = Span(FIRST_US + 10 * SECOND_US, FIRST_US + 130 * SECOND_US)
GRIDS_US = (1_000_000, 100_000)
NOTEBOOK = ROOT / "examples" / "forecasts.ipynb"


class Archived(NamedTuple):
    """What the market's bucket has."""

    stream: list[TickBatch]
    trades: Trades
    quotes: Quotes
    reference: Quotes
    receipts: list[Prediction]
    outcomes: list[Outcome]


class Market(NamedTuple):
    """A deployment, and what was archived there."""

    there: Deployment
    archived: Archived


@functools.cache
def archived() -> Archived:
    """A market across the end of an hour, and the receipts of a model that predicted it. Of one outcome the
    price is unknown."""
    trades, quotes = random_ticks(3, SECONDS)
    reference = random_reference(3, quotes)
    for rows in (trades, quotes, reference):
        for name in ("time_us", "receive_time_us"):
            rows[name] += FIRST_US - START_US
    cuts = [FIRST_US + k * 500_000 for k in range(2 * SECONDS)]
    stream = list(batches(trades, quotes, cuts, reference=reference))
    receipts = receipts_of(stream)
    (bars,) = segments(trades, quotes, reference)
    outcomes = outcomes_of(receipts, bars)
    lost: dict[str, Any] = dict.fromkeys(("outcome_price", "move_bp", "inside", "right"))
    outcomes[200] = replace(outcomes[200], status="unresolved", why="gap", **lost)
    return Archived(stream, trades, quotes, reference, receipts, outcomes)


@pytest.fixture
def market(s3: Any) -> Market:
    there = archived()
    archive(batch_event(0, *there.stream), s3, BUCKET, SchemaRegistry(s3, BUCKET))
    known: dict[str, dict[int, Outcome]] = defaultdict(dict)
    for outcome in there.outcomes:
        known[outcome.id][outcome.horizon_s] = outcome
    blocks: dict[int, list[ArchivedReceipt]] = defaultdict(list)
    for each in there.receipts:
        kept = ArchivedReceipt(**asdict(each), outcomes=known[each.id])
        blocks[Folder.SECONDS.block_of(each.timestamp)].append(kept)
    for block in blocks.values():
        ReceiptArchive(lambda: s3, BUCKET).add(Folder.SECONDS, "BTCUSDT", block)
    return Market(Deployment("a test", {"BucketName": BUCKET}, lambda _: s3), there)


def exported(market: Market, out: Path, span: Span = SPAN) -> export.Report:
    steps = Progress(Console(quiet=True))
    return export.export(market.there, span, out, GRIDS_US, span.to_us + HOUR_US, steps)


def table(out: Path, name: str) -> dict[str, Any]:
    """The columns of an exported table, of all its files."""
    rows = pq.read_table(out / name)
    return {column: rows[column].to_numpy() for column in rows.column_names}


def in_span(rows: Any) -> Any:
    return rows[(rows["time_us"] >= SPAN.from_us) & (rows["time_us"] < SPAN.to_us)]


def is_in_span(time_ms: int) -> bool:
    return SPAN.from_us <= time_ms * 1000 < SPAN.to_us


def test_the_files_hold_what_was_archived(market: Market, tmp_path: Path) -> None:
    report = exported(market, tmp_path / "out")
    out = tmp_path / "out"
    assert (report.problems, report.notes, report.symbols) == ([], [], ["BTCUSDT"])
    assert sorted(path.name for path in (out / "trades").iterdir()) == [
        f"BTCUSDT-{hour}.parquet" for hour in ("20250731T22", "20250731T23")
    ]
    trades, ticks = in_span(market.archived.trades), table(out, "trades")
    np.testing.assert_array_equal(ticks["first_id"], trades["first_id"])
    np.testing.assert_array_equal(np.rint(ticks["price"] * SCALE), trades["price"])
    np.testing.assert_array_equal(np.rint(ticks["qty"] * SCALE), trades["qty"])
    np.testing.assert_array_equal(ticks["side"] == "buy", trades["side"] > 0)
    assert set(ticks["origin"]) == {"sim"}
    for name, rows in (
        ("quotes", in_span(market.archived.quotes)),
        ("reference_quotes", in_span(market.archived.reference)),
    ):
        found = table(out, name)
        np.testing.assert_array_equal(found["time_us"], rows["time_us"])
        np.testing.assert_array_equal(np.rint(found["ask_price"] * SCALE), rows["ask_price"])
        np.testing.assert_array_equal(found["receive_time_us"], rows["receive_time_us"])

    bars = table(out, "bars")
    assert bars["end_us"].tolist() == list(range(SPAN.from_us, SPAN.to_us, SECOND_US))
    second = market.archived.trades["time_us"] // SECOND_US * SECOND_US + SECOND_US == bars["end_us"][30]
    of_second = market.archived.trades[second]
    assert bars["trade_count"][30] == len(of_second)
    bought = of_second["qty"][of_second["side"] > 0].sum() / SCALE
    assert bars["buy_qty"][30] == bought > 0
    turnover = sum(p * q for p, q in of_second[["price", "qty"]].tolist()) / SCALE**2
    assert bars["notional"][30] == turnover


def test_receipts_and_outcomes_are_as_they_were(market: Market, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(market, out)
    made = {
        r.timestamp: r for r in market.archived.receipts if SPAN.from_us <= r.timestamp * 1000 < SPAN.to_us
    }
    rows = pq.read_table(out / "receipts").to_pylist()
    assert [row["timestamp"] for row in rows] == sorted(made)
    for row in rows:
        receipt = made[row["timestamp"]]
        assert dict(row["features"] or []) == (receipt.features or {})
        path = [] if row["path"] is None else [*row["path"].values()]
        assert path == ([] if receipt.path is None else [*asdict(receipt.path).values()])
        horizons = {h: each["expected_move_bp"] for h, each in row["horizons"]}
        assert horizons == {h: each.expected_move_bp for h, each in receipt.horizons.items()}
        assert (row["id"], row["reason"], row["sequence"]) == (receipt.id, receipt.reason, receipt.sequence)

    known = [
        each for each in market.archived.outcomes if SPAN.from_us <= each.target_time * 1000 < SPAN.to_us
    ]
    found = pq.read_table(out / "outcomes").to_pylist()
    assert len(found) == len(known) > 400
    assert [{**row, "challenger": None} for row in found] == [
        asdict(each) | {"challenger": None} for each in known
    ]
    assert any(row["challenger"] and row["challenger"]["model_id"] == "m2" for row in found)


def test_feature_rows_are_those_of_the_history(market: Market, tmp_path: Path) -> None:
    exported(market, tmp_path / "out")
    found = table(tmp_path / "out", "feature_rows")
    ticks = (market.archived.trades, market.archived.quotes, market.archived.reference)
    derived = [rows_of_hour(*ticks, hour_us, *GRIDS_US) for hour_us in (HOUR - HOUR_US, HOUR)]
    rows = pool([each.rows for each in derived])
    rows = rows.chosen((rows.end_us >= SPAN.from_us) & (rows.end_us < SPAN.to_us))
    assert len(rows.end_us) > 1000
    np.testing.assert_array_equal(found["end_us"], rows.end_us)
    for n, name in enumerate(FEATURE_NAMES):
        np.testing.assert_array_equal(found[name], rows.features[:, n].astype(np.float32), name)
    np.testing.assert_array_equal(
        found["move_10s_bp"], rows.moves_bp[:, PATH_S.index(10.0)].astype(np.float32)
    )


def test_the_dictionary_names_each_column_of_the_files(market: Market, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(market, out)
    text = (out / "dictionary.md").read_text("utf-8")
    assert text == DATA_DICTIONARY.read_text("utf-8"), f"out of date: {COMMAND}"
    for each in TABLES:
        files = sorted((out / each.name).iterdir())
        assert len(files) == 2
        section = text.split(f"\n## `{each.name}`\n")[1].split("\n## ")[0]
        for path in files:
            schema = pq.read_schema(path)
            assert schema.equals(schema_of(each.kind))
            for column in dictionary.columns(schema):
                assert meaning(column), f"{each.name}.{column.name} has no description"
                assert f"| `{column.name}` |" in section
    assert len(text.split("\n## ")) == 1 + len(TABLES)


def test_every_column_has_a_meaning_and_no_meaning_is_left_over() -> None:
    rows = [line.split(" | ") for line in dictionary.document().splitlines() if line.startswith("| `")]
    unexplained = [cells[0] for cells in rows if not cells[3].strip(" |")]
    assert unexplained == [], "columns without a description in their type: Annotated[…, Meta(description=…)]"
    assert {name.rpartition(".")[2] for name in MEANINGS} <= {cells[0].strip("| `") for cells in rows}


def test_the_notebook_reproduces_the_accuracy(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(market, tmp_path / "out")
    names = run_notebook(NOTEBOOK, monkeypatch, EXPORT=str(tmp_path / "out"), SYMBOL="BTCUSDT")
    plt.close("all")
    known = [
        each for each in market.archived.outcomes if SPAN.from_us <= each.target_time * 1000 < SPAN.to_us
    ]
    expected = score(tallies(asdict(each) | {"confidence": each.confidence or 0.0} for each in known))
    for horizon_s in HORIZONS_S:
        ours, theirs = names["figures"][horizon_s], expected[horizon_s]
        assert theirs.count > 90
        for name in ("count", "moved", "abstained", "fallbacks"):
            assert ours[name] == getattr(theirs, name), name
        for name in ("direction", "coverage", "crps_bp", "calibration_error"):
            assert ours[name] == pytest.approx(getattr(theirs, name), abs=6e-5), name
        for name in ("skill", "skill_in_hindsight", "crps_skill"):
            assert ours[name] == pytest.approx(getattr(theirs, name).value, abs=6e-5), name
        assert ours["unresolved"] == sum(theirs.unresolved.values())
    assert sum(each.unresolved.get("gap", 0) for each in expected.values()) == 1
    # At the age of the delivery the mids of the quotes give the outcomes' moves.
    by_id = {each.timestamp: each for each in known if each.horizon_s == 2 and each.move_bp is not None}
    made_ms = np.array(sorted(by_id))
    delivered_ms = made_ms + 150
    moves = (names["mid_at"](delivered_ms + 2000) / names["mid_at"](delivered_ms) - 1) * 1e4
    inside = ~np.isnan(moves)
    assert inside.sum() > 90
    wanted = np.array([by_id[each].move_bp for each in made_ms.tolist()], float)
    np.testing.assert_allclose(moves[inside], wanted[inside], atol=1e-6)


def test_a_damaged_object_is_left_out_and_reported(market: Market, tmp_path: Path) -> None:
    s3 = market.there.s3
    keys = [each.key for each in list_objects(s3, BUCKET, "bronze/source=sim/")]
    s3.put_object(Bucket=BUCKET, Key=keys[0], Body=b"not Avro")
    report = exported(market, tmp_path / "out")
    assert [keys[0] in problem for problem in report.problems] == [True]
    assert 0 < report.rows["trades"] < len(in_span(market.archived.trades))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "which time"),
        ("--from monday", "FROM is 'monday'; it should be a time in UTC"),
        ("--from 2024-08-01 --to x", "TO is 'x'"),
        ("--from 2024-08-02 --to 2024-08-01", "it should be before TO"),
        ("--from 2999-01-01", "in the past"),
        ("--from 2024-08-01 --symbols a-b", "SYMBOLS"),
        ("--from 2024-08-01 --aws stage", "AWS is 'stage'"),
        ("--from 2024-08-01 --out {used}", "is not empty; name a new folder"),
        ("--from 2024-08-01 --out {used}/x", "is a file"),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(words: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    with pytest.raises(OptionsError, match=reason):
        export.run(parser.parse_args(words.format(used=tmp_path).split()))


def test_what_bronze_lacks_is_named(market: Market, tmp_path: Path) -> None:
    unknown = Span(SPAN.from_us, SPAN.to_us, ("DOGEUSDT",))
    with pytest.raises(OptionsError, match="nothing of DOGEUSDT; it has BTCUSDT"):
        exported(market, tmp_path / "out", unknown)
    with pytest.raises(ExportFailed, match="has nothing of BTCUSDT in that time"):
        exported(market, tmp_path / "out", Span(0, HOUR_US))
    assert not (tmp_path / "out").exists()


def test_the_last_line_says_what_was_written(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deployment, "existing", lambda aws: market.there)
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    out = tmp_path / "new" / "out"
    words = f"--from 2025-07-31T22:59 --to 2025-07-31T22:59:10 --symbols btcusdt --out {out}"
    assert export.run(parser.parse_args(words.split())) is ExitStatus.OK
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"out": str(out)} | json.loads((out / "export.json").read_text("utf-8"))
    assert (last["from"], last["to"]) == ("2025-07-31T22:59:00+00:00", "2025-07-31T22:59:10+00:00")
    assert last["tables"]["receipts"] == {
        "rows": 10,
        "files": 1,
        "bytes": (out / "receipts" / "BTCUSDT-20250731T22.parquet").stat().st_size,
    }
