"""The examples of models of one's own, run as their pages say: from an export to files to import."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.filled_history import market
from tests.fixtures.imported import NOW_US
from tests.fixtures.paths import ROOT
from tickcast.adapters.registry.imported_onnx import FlatHead, completed
from tickcast.adapters.registry.model_description import description_from
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.evaluation.backtest import point_scores
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.forecast import PATH_S
from tickcast.model.imported import check
from tickcast.units import SECOND_US

FROM_US = 1_790_000_000 * SECOND_US
EXAMPLES = {
    "scikit_learn_mlp": ("skl2onnx", ["model.onnx"]),
    "lightgbm_trees": ("onnxmltools", ["01s.onnx", "02s.onnx", "05s.onnx", "10s.onnx"]),
    "pytorch_odd": ("torch", ["model.onnx"]),
}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of planted rows, as `make export` writes them."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("export")
    rows = market(1, 600, FROM_US)
    moves = {f"move_{f'{t:g}'.replace('.', '_')}s_bp": rows.moves_bp[:, n] for n, t in enumerate(PATH_S)}
    features = {name: rows.features[:, n] for n, name in enumerate(FEATURE_NAMES)}
    columns = {"end_us": rows.end_us} | {
        name: values.astype(np.float32) for name, values in (features | moves).items()
    }
    (folder / "feature_rows").mkdir()
    pq.write_table(pa.table(columns), folder / "feature_rows" / "BTCUSDT-20260921T13.parquet")
    (folder / "export.json").write_text(json.dumps({"feature_hash": FEATURE_HASH}), "utf-8")
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_makes_a_model_that_can_be_imported(
    name: str, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    package, files = EXAMPLES[name]
    pytest.importorskip(package, reason=f"examples/requirements.txt: {package} is not installed")
    monkeypatch.syspath_prepend(ROOT / "examples")
    importlib.import_module(name).main(export, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == files
    assert "skill on" in capsys.readouterr().out
    assert_importable(tmp_path, files)


def assert_importable(folder: Path, files: list[str]) -> None:
    """It passes the checks, and forecasts rows of another seed as it should."""
    description = description_from(json.loads((folder / "card.json").read_text("utf-8")), NOW_US)
    assert description.learned_to_us > FROM_US
    data = [(folder / name).read_bytes() for name in files]
    run = OnnxModel(completed(data, description, FlatHead.even()))
    rows = market(2, 300, FROM_US + 3600 * SECOND_US)
    assert check(run, rows.features, time.perf_counter).is_symmetric
    scores = point_scores(run(rows.features)[0], rows.moves_bp)
    assert all((score.skill or 0) > 0.1 for score in scores.values())
