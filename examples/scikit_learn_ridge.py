"""A model of scikit-learn's: a ridge regression on six inputs, all horizons in one file.

    make backfill DAYS=1
    make export FROM=2026-11-26T08:00 OUT=out/rows
    .venv/bin/python examples/scikit_learn_ridge.py out/rows out/ridge
    make import-model FILE=out/ridge/model.onnx CARD=out/ridge/card.json

Other estimators are exported alike. Of those with several outputs skl2onnx writes some with one column
(MLPRegressor), which the import refuses: fit one for each horizon then, as examples/lightgbm_trees.py does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rows import Rows, print_skill
from skl2onnx import to_onnx
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

INPUTS = ["imbalance", "log_imbalance", "imbalance_500ms", "ofi_200ms", "trade_flow_500ms", "return_500ms"]


def main(export: Path, out: Path) -> None:
    rows, held = Rows.of(export).split(0.8)
    # Inputs are odd, exchanging buying and selling changes their sign: 0 stays 0, there is no intercept.
    ridge = Ridge(alpha=0.1 * len(rows.moves()), fit_intercept=False)
    model = make_pipeline(StandardScaler(with_mean=False), ridge)
    model.fit(rows.inputs(INPUTS), rows.moves())
    print_skill("scikit-learn", model.predict(held.inputs(INPUTS)), held.moves())

    out.mkdir(parents=True, exist_ok=True)
    file = to_onnx(model, rows.inputs(INPUTS)[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    (out / "model.onnx").write_bytes(file.SerializeToString())
    rows.save_card(out / "card.json", name="a ridge regression", output="moves_sigma", inputs=INPUTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
