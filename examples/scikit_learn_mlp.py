"""A model of scikit-learn's: a small network, all horizons in one file.

make export FROM=2026-11-26T08:00 OUT=out/rows
.venv/bin/python examples/scikit_learn_mlp.py out/rows out/mlp
make import-model FILE=out/mlp/model.onnx CARD=out/mlp/card.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from rows import Rows, print_skill
from skl2onnx import to_onnx
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

INPUTS = ["imbalance", "log_imbalance", "imbalance_500ms", "ofi_200ms", "trade_flow_500ms", "return_500ms"]


def main(export: Path, out: Path) -> None:
    rows, held = Rows.of(export).split(0.8)
    # Inputs are odd: exchanging buying and selling changes their sign, and 0 has to stay 0.
    network = MLPRegressor(
        hidden_layer_sizes=(8,), activation="tanh", alpha=10.0, early_stopping=True, random_state=1
    )
    model = make_pipeline(StandardScaler(with_mean=False), network)
    model.fit(rows.inputs(INPUTS), rows.moves())
    print_skill("scikit-learn", model.predict(held.inputs(INPUTS)), held.moves())

    out.mkdir(parents=True, exist_ok=True)
    file = to_onnx(model, rows.inputs(INPUTS)[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    (out / "model.onnx").write_bytes(file.SerializeToString())
    rows.save_card(
        out / "card.json",
        name="MLPRegressor, 8 hidden units",
        output="moves_sigma",
        inputs=INPUTS,
        symmetrise=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
