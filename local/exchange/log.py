"""One JSON line on stderr for each event that matters."""

from __future__ import annotations

import sys
import time

from tickcast.adapters import json_text


def log(event: str, **fields: object) -> None:
    line = {"time": round(time.time(), 3), "service": "exchange", "event": event, **fields}
    print(json_text.text(line), file=sys.stderr, flush=True)
