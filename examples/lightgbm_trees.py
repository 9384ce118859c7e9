"""A model of LightGBM's: gradient-boosted trees, a file for each horizon.

make backfill DAYS=1
make export FROM=2026-11-26T08:00 OUT=out/rows
.venv/bin/python examples/lightgbm_trees.py out/rows out/trees
make import-model FILE="out/trees/*.onnx" CARD=out/trees/card.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from rows import HORIZONS_S, Rows, print_skill

INPUTS = [
    *("imbalance", "log_imbalance", "imbalance_500ms", "ofi_200ms", "trade_flow_500ms", "return_500ms"),
    *("volatility_5s", "trade_intensity", "spread"),
]
# Few leaves, many rows in each: most of a move is noise. Trees know no symmetry: the import adds it.
SETTINGS: dict[str, Any] = {"n_estimators": 60, "num_leaves": 8, "min_child_samples": 200}


def main(export: Path, out: Path) -> None:
    rows, held = Rows.of(export).split(0.8)
    out.mkdir(parents=True, exist_ok=True)
    predicted = []
    for at, horizon_s in enumerate(HORIZONS_S):
        model = LGBMRegressor(**SETTINGS, learning_rate=0.05, random_state=1, n_jobs=1, verbose=-1)
        model.fit(rows.inputs(INPUTS), rows.moves()[:, at])
        predicted.append(model.predict(held.inputs(INPUTS)))
        shape = [("x", FloatTensorType([None, len(INPUTS)]))]
        file = convert_lightgbm(model.booster_, initial_types=shape, target_opset=15)
        (out / f"{horizon_s:02}s.onnx").write_bytes(file.SerializeToString())
    print_skill("LightGBM", np.column_stack(predicted), held.moves())
    rows.save_card(
        out / "card.json",
        name="LightGBM, 60 trees of 8 leaves",
        output="moves_sigma",
        inputs=INPUTS,
        symmetrise=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
