"""The examples of models of one's own, run as their pages say: from an export to files to import."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local.commands.export import MANIFEST
from local.export import parquet_files
from local.export.hours import Columns, Masked
from local.export.tables import FEATURE_ROWS, MOVE_COLUMNS
from tests.fixtures.filled_history import market
from tests.fixtures.imported import NOW_US
from tests.fixtures.paths import ROOT
from tickcast.adapters.registry.imported_onnx import FlatHead, completed
from tickcast.adapters.registry.model_description import description_from
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.evaluation.backtest import point_scores
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.imported import check
from tickcast.units import SECOND_US

FROM_US = 1_790_000_000 * SECOND_US
EXAMPLES = {  # by name: the package it needs, the files it writes
    "scikit_learn_ridge": ("skl2onnx", ["model.onnx"]),
    "lightgbm_trees": ("lightgbm", ["01s.onnx", "02s.onnx", "05s.onnx", "10s.onnx"]),
    "pytorch_odd": ("torch", ["model.onnx"]),
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of planted rows, as `make export` writes them."""
    folder = tmp_path_factory.mktemp("export")
    rows = market(1, 600, FROM_US)
    columns = {name: rows.features[:, at] for at, name in enumerate(FEATURE_NAMES)}
    columns |= {name: rows.moves_bp[:, at] for at, name in enumerate(MOVE_COLUMNS)}
    single = {name: values.astype(np.float32) for name, values in columns.items()}
    unknown = Masked(np.zeros(len(rows.end_us), np.float32), np.ones(len(rows.end_us), bool))
    path = folder / FEATURE_ROWS.name / "BTCUSDT-20260921T13.parquet"
    about: Columns = {"symbol": "BTCUSDT", "end_us": rows.end_us, "last_trade_bp": unknown}
    parquet_files.write(path, FEATURE_ROWS, about | single)
    (folder / MANIFEST).write_text(json.dumps({"feature_hash": FEATURE_HASH}), "utf-8")
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_makes_a_model_that_can_be_imported(
    name: str, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    package, files = EXAMPLES[name]
    if package == "torch":
        pytest.importorskip(package, reason="PyTorch is large: its exported file is tested below")
    monkeypatch.syspath_prepend(ROOT / "examples")
    importlib.import_module(name).main(export, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == files
    assert "skill on" in capsys.readouterr().out
    assert_importable(tmp_path, files)


def test_the_file_that_pytorch_exported_can_be_imported(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytorch_odd.onnx` was exported by the example; its card is of the present features."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    rows = importlib.import_module("rows").Rows.of(export)
    inputs = _constant("pytorch_odd", "INPUTS")
    rows.save_card(tmp_path / "card.json", name="mine", output="moves_sigma", inputs=inputs)
    shutil.copy(ROOT / "examples" / "pytorch_odd.onnx", tmp_path)
    assert_importable(tmp_path, ["pytorch_odd.onnx"])


def _constant(example: str, name: str) -> Any:
    """The constant of an example that may not be importable."""
    tree = ast.parse((ROOT / "examples" / f"{example}.py").read_text("utf-8"))
    (found,) = [
        each.value
        for each in tree.body
        if isinstance(each, ast.Assign) and getattr(each.targets[0], "id", "") == name
    ]
    return ast.literal_eval(found)


def assert_importable(folder: Path, files: list[str]) -> None:
    """It passes the checks, and forecasts rows of another seed as it should."""
    description = description_from(json.loads((folder / "card.json").read_text("utf-8")), NOW_US)
    assert description.learned_to_us > FROM_US
    data = [(folder / name).read_bytes() for name in files]
    run = OnnxModel(completed(data, description, FlatHead.even()))
    rows = market(2, 300, FROM_US + 3600 * SECOND_US)
    assert check(run, rows.features, time.perf_counter).is_symmetric
    scores = point_scores(run(rows.features)[0], rows.moves_bp)
    # Well below what it has: with a feature more, the planted rows are others.
    assert all((score.skill or 0) > 0.05 for score in scores.values())
