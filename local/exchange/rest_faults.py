"""Faults in REST responses: missing or wrong rows, or another body altogether.

Rows are changed in the response alone: the counts of what was published are not affected.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from local.exchange.fault_requests import BodyFault, RestRows
from local.exchange.history import AggTrade, TradeHistory

_HTML = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking …</body></html>"
_HUGE_BYTES = 12 * 2**20
_FAR_US = 3_600_000_000
Row = dict[str, Any]


def visible_rows(
    trades: TradeHistory,
    from_id: int | None,
    span_us: tuple[int | None, int | None],
    limit: int,
    now_us: int,
    faults: Sequence[RestRows],
) -> list[AggTrade]:
    """The aggregate trades that REST returns: from an id on, or within a span of time, both ends included."""
    by_kind = {fault.how: fault for fault in faults}
    start_us, end_us = span_us
    if cap := by_kind.get("cap"):
        limit = min(limit, cap.rows)
    newest_us = now_us - int(lag.age_s * 1e6) if (lag := by_kind.get("lag")) else now_us
    oldest_us = now_us - int(forget.age_s * 1e6) if (forget := by_kind.get("forget")) else 0
    if from_id is not None:
        first_kept = trades.between(oldest_us, None, 1, now_us)
        from_id = max([0 if "repeat" in by_kind else from_id, *(row.id for row in first_kept)])
        return [row for row in trades.from_id(from_id, limit, now_us) if row.time_us <= newest_us]
    if "empty" in by_kind and start_us is not None:
        return []
    end_us = newest_us if end_us is None else min(end_us, newest_us)
    if start_us is not None:
        start_us = max(start_us, oldest_us)
    return trades.between(start_us, end_us, limit, now_us)


def with_row_faults(rows: list[Row], faults: Sequence[RestRows]) -> list[Row]:
    """The rows of a response with the active faults applied."""
    for fault in faults:
        is_affected = [row["a"] % fault.every == 0 for row in rows]
        match fault.how:
            case "placeholder":
                gone = {"f": -1, "l": -1, "p": "0.00000000", "q": "0.00000000"}
                rows = [row | gone if is_it else row for row, is_it in zip(rows, is_affected, strict=True)]
            case "far_off":
                far = _FAR_US if rows and rows[0]["T"] >= 10**14 else _FAR_US // 1000
                rows = [
                    row | {"T": row["T"] + far} if is_it else row
                    for row, is_it in zip(rows, is_affected, strict=True)
                ]
            case "hole":
                rows = [row for row, is_it in zip(rows, is_affected, strict=True) if not is_it]
            case "disorder":
                rows = rows + rows[: len(rows) // 3]
                random.Random(len(rows)).shuffle(rows)
    return rows


def replaced(how: BodyFault, response: web.StreamResponse) -> web.Response:
    """The response sent instead of `response`."""
    body = response.body if isinstance(response, web.Response) else None
    data = body if isinstance(body, bytes) else b"[]"
    match how:
        case "challenge":
            return web.Response(status=202, headers={"x-amzn-waf-action": "challenge"})
        case "html":
            return web.Response(text=_HTML, content_type="text/html")
        case "redirect":
            return web.Response(status=302, headers={"Location": "https://portal.example/login"})
        case "truncate":
            return web.Response(body=data[: len(data) // 2], content_type="application/json")
        case "content_type":
            return web.Response(body=data, content_type="text/plain")
        case "nan":
            return web.Response(text='[{"a": NaN}]', content_type="application/json")
        case "empty":
            return web.Response(body=b"", content_type="application/json")
        case "huge":
            return web.Response(body=b" " * _HUGE_BYTES + data, content_type="application/json")
