"""The API's answers compared with the exchange's mids: their skill when read, their basis prices."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from local.system import http_json
from tickcast.evaluation.skill import block_s, skill

# A basis price is that of the newest quote that had arrived; ticks of one stream are out of order by less.
QUOTE_LATE_MS = 50
_PRICE_TOLERANCE = 1e-9  # relative: both are the same decimals, summed in floating point
_AT_ONCE = 200  # instants in a request

Instant = tuple[str, int]  # symbol, ms by the exchange's clock
Answers = Sequence[dict[str, Any]]  # bodies of `GET /predictions/{symbol}`


def mids(exchange_url: str, instants: Iterable[Instant], back_ms: int = 0) -> dict[Instant, list[float]]:
    """For each instant, the mids of the `back_ms` up to it, oldest first. Raises `OSError` if the exchange
    refuses."""
    found: dict[Instant, list[float]] = {}
    for symbol, times_ms in _chunks(instants):
        listed = ",".join(map(str, times_ms))
        answer = http_json.get(
            f"{exchange_url}/local/mids?symbol={symbol}&times_ms={listed}&back_ms={back_ms}"
        )
        if answer.status != 200:
            raise OSError(f"the exchange returned {answer.status} for the mids of {symbol}: {answer.body}")
        found |= {(symbol, at): each for at, each in zip(times_ms, answer.body["mids"], strict=True)}
    return found


def as_read(exchange_url: str, answers: Answers) -> dict[str, dict[str, Any]]:
    """By horizon, the skill of the answers' expected moves against no change, from the moment of reading to
    the target, as far as that is past; with its interval and the number of answers."""
    now_ms = time.time() * 1000
    rows = [
        (answer["symbol"], answer["as_of"], int(horizon_s), each["target_time"], each["expected_move_bp"])
        for answer in sorted(answers, key=lambda answer: answer["as_of"])
        for horizon_s, each in answer["horizons"].items()
        if each["target_time"] < now_ms
    ]
    wanted = {(row[0], time_ms) for row in rows for time_ms in (row[1], row[3])}
    price = {at: each[-1] for at, each in mids(exchange_url, wanted).items() if each}
    return {
        str(horizon_s): _skill(horizon_s, [row for row in rows if row[2] == horizon_s], price)
        for horizon_s in sorted({row[2] for row in rows})
    }


def price_errors(exchange_url: str, predictions: Iterable[dict[str, Any]]) -> list[str]:
    """Basis prices that are no mid of the exchange within `QUOTE_LATE_MS` before their instant."""
    errors = []
    basis = {(each["symbol"], each["timestamp"]): each["basis_price"] for each in predictions}
    known = mids(exchange_url, basis, QUOTE_LATE_MS)
    for (symbol, time_ms), price in sorted(basis.items()):
        recorded = known[symbol, time_ms]
        if not recorded:
            errors.append(f"{symbol} at {time_ms}: no quote in the recording")
        elif all(abs(price - mid) > mid * _PRICE_TOLERANCE for mid in recorded):
            errors.append(
                f"{symbol} at {time_ms}: basis price {price}, but mid {recorded[-1]} in the recording"
            )
    return errors


def _skill(horizon_s: int, rows: list[Any], price: dict[Instant, float]) -> dict[str, Any]:
    known = [row for row in rows if (row[0], row[1]) in price and (row[0], row[3]) in price]
    outcomes = np.array([(price[s, to_ms] / price[s, at_ms] - 1) * 1e4 for s, at_ms, _, to_ms, _ in known])
    expected = np.array([row[4] for row in known])
    if len(known) < 2 or not outcomes.any():
        return {"skill": None, "skill_ci": None, "n": len(known)}
    span_s = max(1.0, (known[-1][1] - known[0][1]) / 1000)
    block_rows = round(block_s(horizon_s) * len(known) / span_s)
    value, interval = skill(outcomes, expected, np.zeros(len(known)), block_rows)
    return {"skill": round(value, 4), "skill_ci": [round(each, 4) for each in interval], "n": len(known)}


def _chunks(instants: Iterable[Instant]) -> Iterator[tuple[str, list[int]]]:
    by_symbol: dict[str, set[int]] = {}
    for symbol, time_ms in instants:
        by_symbol.setdefault(symbol, set()).add(time_ms)
    for symbol, times in by_symbol.items():
        ordered = sorted(times)
        for first in range(0, len(ordered), _AT_ONCE):
            yield symbol, ordered[first : first + _AT_ONCE]
