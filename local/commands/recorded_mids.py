"""The mids of the local exchange's recording, and what they say of the answers that were read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from local.system import http_json
from tickcast.evaluation import skill
from tickcast.model.forecast import HORIZONS_S

ARRIVES_WITHIN_MS = 250  # the newest quote of a prediction may be this old, while newer ones are on their way
_SHOWN = 5
_TOLERANCE = 1e-9  # relative: both are the same decimals, summed in floating point
_PER_REQUEST = 10_000

SpanMs = tuple[int, int]  # first and last instant, on the exchange's clock


class Recorded(NamedTuple):
    """For each span the mids that were the newest at some instant of it; later than `known_ms` nothing is
    known yet (None: no quote at all)."""

    mids: list[list[float]]
    known_ms: int | None


Lookup = Callable[[str, Sequence[SpanMs]], Recorded]  # of a symbol


def mids_of(exchange_url: str) -> Lookup:
    """The recording of the exchange at `exchange_url`. Its calls raise OSError, ValueError as `http_json`."""

    def look_up(symbol: str, spans_ms: Sequence[SpanMs]) -> Recorded:
        mids: list[list[float]] = []
        known_ms: int | None = None
        for start in range(0, len(spans_ms), _PER_REQUEST):
            body = {"symbol": symbol, "spans_ms": spans_ms[start : start + _PER_REQUEST]}
            answer = http_json.send("POST", f"{exchange_url}/local/mids", body)
            if answer.status != 200:
                raise ValueError(f"the exchange knows no mids of {symbol}: {answer.body}")
            mids += answer.body["mids"]
            if start == 0:  # the recording continues meanwhile: what the first part may use holds for all
                known_ms = answer.body["known_ms"]
        return Recorded(mids, known_ms)

    return look_up


def price_errors(look_up: Lookup, predictions: Iterable[dict[str, Any]]) -> list[str]:
    """Basis prices that were at no instant of the last `ARRIVES_WITHIN_MS` the newest mid of the recording.

    A prediction counts what had arrived as of its `timestamp`, so its quote may be a little older than the
    newest, never younger. At most a few are named.
    """
    served: dict[str, dict[int, float]] = defaultdict(dict)
    for each in predictions:
        served[each["symbol"]][each["timestamp"]] = each["basis_price"]
    errors = []
    for symbol, prices in sorted(served.items()):
        times_ms = sorted(prices)
        recorded = look_up(symbol, [(time_ms - ARRIVES_WITHIN_MS, time_ms) for time_ms in times_ms])
        for time_ms, mids in zip(times_ms, recorded.mids, strict=True):
            price = prices[time_ms]
            if not mids:
                errors.append(f"{symbol} at {time_ms}: no quote in the recording")
            elif all(abs(price - mid) > mid * _TOLERANCE for mid in mids):
                known = ", ".join(f"{mid}" for mid in mids[-3:])
                errors.append(f"{symbol} at {time_ms}: basis price {price}, but mid {known} in the recording")
    more = len(errors) - _SHOWN
    return errors if more <= 0 else [*errors[:_SHOWN], f"and {more} more basis prices"]


def skill_as_read(look_up: Lookup, answers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By horizon (s): the skill of `answers` of the API against no change, its 95 % interval, and how many
    there were; null without any.

    An answer's `expected_move_bp` is compared with the move of the recording's mid from its `as_of` to its
    target. A fallback expects no move. Answers whose target is not known yet are left out.
    """
    return {
        str(horizon_s): _skill(_moves(look_up, answers, horizon_s), horizon_s) for horizon_s in HORIZONS_S
    }


def _moves(
    look_up: Lookup, answers: Sequence[dict[str, Any]], horizon_s: int
) -> list[tuple[int, float, float]]:
    """(as_of in ms, actual move, expected move, both in bp) of the answers with a known target, by time."""
    moves = []
    for symbol in sorted({each["symbol"] for each in answers}):
        of_symbol = [each for each in answers if each["symbol"] == symbol]
        starts = [each["as_of"] for each in of_symbol]
        targets = [start + 1000 * horizon_s for start in starts]
        recorded = look_up(symbol, [(instant, instant) for instant in (*starts, *targets)])
        before, after = recorded.mids[: len(starts)], recorded.mids[len(starts) :]
        for each, target_ms, old, new in zip(of_symbol, targets, before, after, strict=True):
            if recorded.known_ms is None or target_ms > recorded.known_ms or not old:
                continue
            actual_bp = (new[0] / old[0] - 1) * 1e4
            moves.append((each["as_of"], actual_bp, _expected_bp(each, horizon_s)))
    return sorted(moves)


def _expected_bp(answer: dict[str, Any], horizon_s: int) -> float:
    if answer["source"] == "fallback":
        return 0.0
    return float(answer["horizons"][str(horizon_s)]["expected_move_bp"])


def _skill(moves: Sequence[tuple[int, float, float]], horizon_s: int) -> dict[str, Any]:
    if not moves:
        return {"skill": None, "skill_ci": None, "n": 0}
    times_ms, actual, expected = np.array(moves).T
    span_s = max((times_ms[-1] - times_ms[0]) / 1000, 1.0)
    block_rows = max(1, round(skill.block_s(horizon_s) * len(moves) / span_s))
    value, interval = skill.skill(actual, expected, np.zeros(len(moves)), block_rows)
    return {"skill": round(value, 4), "skill_ci": [round(each, 4) for each in interval], "n": len(moves)}
