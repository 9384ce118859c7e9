"""One JSON line on stderr for each event that matters."""

from __future__ import annotations

import json
import sys
import time


def log(event: str, **fields: object) -> None:
    line = {"time": round(time.time(), 3), "service": "exchange", "event": event, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)
