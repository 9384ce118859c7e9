"""The keys of Redis and their TTLs. docs/contracts.md says what they hold."""

from __future__ import annotations

TTL_S = 24 * 3600  # of all but `features`: nothing remains of a symbol that is no longer served
PREDICTIONS_KEPT = 3600  # an hour of them, at one a second
RECENT_KEPT = 3000  # five minutes of those in between, at ten a second
OUTCOMES_KEPT = 4 * PREDICTIONS_KEPT  # one for each horizon


def state(symbol: str) -> str:
    """A hash: `sequence`, the fence, and `ring`, the bytes of `tickcast.serving.state`."""
    return f"state:{symbol}"


def features(symbol: str, timestamp_s: int) -> str:
    return f"features:{symbol}:{timestamp_s}"


def latest_features(symbol: str) -> str:
    return f"features:{symbol}:latest"


def latest_prediction(symbol: str) -> str:
    return f"prediction:{symbol}:latest"


def predictions(symbol: str) -> str:
    """A stream, field `json`, entry ids of `prediction_entry`."""
    return f"predictions:{symbol}"


def recent_predictions(symbol: str) -> str:
    """The same of the predictions in between, for minutes; their JSON is compressed (zlib)."""
    return f"predictions:{symbol}:recent"


def prediction_entry(timestamp_ms: int) -> str:
    return f"{timestamp_ms}-0"


def outcomes(symbol: str) -> str:
    """A stream, field `json`, entry ids of `outcome_entry`."""
    return f"outcomes:{symbol}"


def outcome_entry(target_time_ms: int, horizon_s: int) -> str:
    return f"{target_time_ms}-{horizon_s}"


def entry_ms(entry: str) -> int:
    """The instant in an entry's id, of predictions or outcomes."""
    return int(entry.partition("-")[0])


def gaps(symbol: str) -> str:
    return f"gaps:{symbol}"


def repaired(symbol: str) -> str:
    return f"repaired:{symbol}"


def symbols() -> str:
    """What `tickcast.adapters.registry.served_symbols.hot_text` writes."""
    return "symbols"


def archived(symbol: str) -> str:
    """Up to when its receipts are in the lake (`serving.records.ArchivedUntil`)."""
    return f"archived:{symbol}"


def archiving() -> str:
    """The symbols whose receipts are not all in the lake yet: no symbol is in lower case."""
    return "archived:symbols"


def accuracy(symbol: str) -> str:
    return f"accuracy:{symbol}"


def heartbeat(service: str, symbol: str | None = None) -> str:
    return f"heartbeat:{service}" if symbol is None else f"heartbeat:{service}:{symbol}"
