"""Small recordings in the collector's format for tests, and where the real ones are, if they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parents[2] / "shared" / "data" / "recordings"
T0_MS = 1_723_161_255_000
OFFSET_US = 1_272_000

Line = tuple[int, dict[str, Any]]  # milliseconds after T0, message


def trade(at_ms: int, id_: int, price: str = "100.00000000", symbol: str = "BTCUSDT") -> Line:
    data = {"e": "trade", "E": T0_MS + at_ms, "s": symbol, "t": id_, "p": price, "q": "0.10000000"}
    data |= {"T": T0_MS + at_ms - 1, "m": True, "M": True}
    return at_ms, {"stream": f"{symbol.lower()}@trade", "data": data}


def quote(at_ms: int, update_id: int, bid: str = "100.00000000", symbol: str = "BTCUSDT") -> Line:
    data = {"u": update_id, "s": symbol, "b": bid, "B": "1.50000000", "a": "101", "A": "2.00001000"}
    return at_ms, {"stream": f"{symbol.lower()}@bookTicker", "data": data}


def text(lines: Iterable[Line], offset_us: int = OFFSET_US) -> str:
    """The lines as a recorder wrote them whose clock is `offset_us` behind the exchange's."""
    stamped = ((((T0_MS + at_ms) * 1000 - offset_us) * 1000, message) for at_ms, message in lines)
    return "".join(f"{ns} {json.dumps(message, separators=(',', ':'))}\n" for ns, message in stamped)


def write(path: Path, content: str) -> Path:
    path.write_bytes(gzip.compress(content.encode()))
    return path
