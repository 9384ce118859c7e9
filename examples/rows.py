"""What `make export` wrote, as arrays to train on, and the card of a model that was trained on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HORIZONS_S = (1, 2, 5, 10)
LONGEST_S = 15  # the reach of a row's labels


@dataclass(frozen=True)
class Rows:
    """Rows with quotes, in the order of time: N rows."""

    table: pa.Table
    feature_hash: str

    @classmethod
    def of(cls, export: Path) -> Rows:
        """Of the folder that `make export` wrote."""
        table = pq.read_table(export / "feature_rows", filters=[("has_quotes", ">", 0)])
        manifest = json.loads((export / "export.json").read_text("utf-8"))
        return cls(table.sort_by("end_us"), manifest["feature_hash"])

    def inputs(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        """The features called `names`, float32 (N, K)."""
        return np.column_stack([self.table[name].to_numpy() for name in names]).astype(np.float32)

    def moves(self) -> np.ndarray[Any, Any]:
        """The moves over each horizon in units of σ√h, so that one model serves several markets. At most 6:
        a burst must not outweigh an hour. Float32 (N, H)."""
        moves_bp = self.inputs([f"move_{h}s_bp" for h in HORIZONS_S])
        moves = moves_bp / (self.inputs(["sigma_bp"]) * np.sqrt(HORIZONS_S))
        return np.asarray(np.clip(moves, -6, 6), np.float32)

    def split(self, share: float) -> tuple[Rows, Rows]:
        """The older `share` of the time, and the rest but for what labels of the older part reach into."""
        end_us = self.table["end_us"].to_numpy()
        cut_us = end_us[0] + share * (end_us[-1] - end_us[0])
        older, newer = end_us < cut_us, end_us >= cut_us + LONGEST_S * 1_000_000
        return Rows(self.table.filter(older), self.feature_hash), Rows(
            self.table.filter(newer), self.feature_hash
        )

    def save_card(self, path: Path, **fields: Any) -> None:
        """The card, CARD=, of a model that was trained on these rows."""
        learned_to_us = int(self.table["end_us"].to_numpy()[-1]) + LONGEST_S * 1_000_000
        about = {
            "learned_to": datetime.fromtimestamp(learned_to_us / 1e6, UTC).isoformat(),
            "feature_hash": self.feature_hash,
            "instants_s": list(HORIZONS_S),
        }
        path.write_text(json.dumps(fields | about, indent=2) + "\n", "utf-8")


def print_skill(name: str, predicted: np.ndarray[Any, Any], moves: np.ndarray[Any, Any]) -> None:
    """Print the skill against no change, by horizon. (N, H) both."""
    skills = 1 - ((moves - predicted) ** 2).sum(axis=0) / (moves**2).sum(axis=0)
    by_horizon = ", ".join(f"{h} s {skill:+.3f}" for h, skill in zip(HORIZONS_S, skills, strict=True))
    print(f"{name}, skill on {len(moves):,} newer rows: {by_horizon}")
