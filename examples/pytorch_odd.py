"""A model of PyTorch's: an odd network, f(-x) = -f(x) by construction, exported as one file.

make backfill DAYS=1
make export FROM=2026-11-26T08:00 OUT=out/rows
.venv/bin/python examples/pytorch_odd.py out/rows out/odd
make import-model FILE=out/odd/model.onnx CARD=out/odd/card.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rows import HORIZONS_S, Rows, print_skill
from torch import nn

INPUTS = ["imbalance", "log_imbalance", "imbalance_500ms", "ofi_200ms", "trade_flow_500ms", "return_500ms"]


class Odd(nn.Module):
    """A line, and a small network without biases, whose tanh is odd as well."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, outputs, bias=False)
        self.hidden = nn.Linear(inputs, 8, bias=False)
        self.out = nn.Linear(8, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x) + self.out(torch.tanh(self.hidden(x)))


def main(export: Path, out: Path) -> None:
    torch.manual_seed(1)
    rows, held = Rows.of(export).split(0.8)
    x, y = torch.from_numpy(rows.inputs(INPUTS)), torch.from_numpy(rows.moves())
    model = Odd(len(INPUTS), len(HORIZONS_S))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0)
    for _ in range(10):
        for some in torch.randperm(len(x)).split(512):
            optimizer.zero_grad()
            nn.functional.huber_loss(model(x[some]), y[some], delta=1.5).backward()
            optimizer.step()
    with torch.no_grad():
        print_skill("PyTorch", model(torch.from_numpy(held.inputs(INPUTS))).numpy(), held.moves())

    out.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        (x[:2],),
        str(out / "model.onnx"),
        input_names=["x"],
        output_names=["moves"],
        dynamic_axes={"x": {0: "rows"}, "moves": {0: "rows"}},
        opset_version=17,
        dynamo=False,
    )
    rows.save_card(out / "card.json", name="an odd network of PyTorch's", output="moves_sigma", inputs=INPUTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
