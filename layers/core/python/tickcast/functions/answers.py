"""The answer to whoever reads a forecast now: what is still to come of its path from this moment on.

Ages are on the exchange's clock, which is the hot store's less the offset that a forecast names: neither the
clock of the host that reads nor that of the store decides how old a forecast is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import asdict, fields

from tickcast.adapters.http.bodies import Ages, HorizonAnswer, Latest
from tickcast.serving.prediction import NO_MODEL, STALE_FEATURES, evaluated, freshness
from tickcast.serving.records import HorizonPrediction, PathForecast

# What an answer says as its forecast does.
_AS_STORED = ({each.name for each in fields(PathForecast)} & {each.name for each in fields(Latest)}) - {
    "horizon_s"
}
_WITHOUT_FORECAST: dict[str, Any] = dict.fromkeys(each.name for each in fields(HorizonAnswer)) | {
    "confidence": 0.0,
    "abstains": True,
}


@dataclass(frozen=True)
class Reading:
    """Where answers are made: the age (s) above which a forecast is stale, and the environment's name."""

    stale_after_s: float
    environment: str

    def answer(self, forecast: PathForecast, store_ms: float, horizon_s: int) -> Latest:
        """The answer of `forecast` over `horizon_s`, read when the hot store's clock shows `store_ms`; the
        last known price if it is stale. A forecast from the future, as a clock that is off makes it, is read
        at its own instant. Raises ArithmeticError or LookupError on a path that is not of `PATH_S`."""
        as_of = max(exchange_ms(forecast, store_ms), forecast.timestamp)
        fresh = freshness(forecast, as_of, self.stale_after_s)
        found = {} if fresh.is_stale else evaluated(forecast, (as_of - forecast.timestamp) / 1000)
        horizons = {horizon: _horizon(each, as_of) for horizon, each in found.items()}
        members: dict[str, Any] = {name: getattr(forecast, name) for name in _AS_STORED}
        members |= asdict(horizons[horizon_s]) if horizons else _WITHOUT_FORECAST
        members |= {"horizon_s": horizon_s, "target_time": as_of + 1000 * horizon_s}
        if not horizons:
            members |= {"predicted_price": forecast.basis_price, "inference_ms": None}
        if fresh.is_stale:
            members |= {"source": "fallback", "reason": STALE_FEATURES}
        elif not horizons and not forecast.reason:  # written by release 0.1.0, which forecast no path
            members |= {"source": "fallback", "reason": NO_MODEL}
        tick_ms = None if forecast.last_tick_us is None else max(0, as_of - forecast.last_tick_us // 1000)
        return Latest(
            **members,
            as_of=as_of,
            age_ms=Ages(tick=tick_ms, claim=as_of - forecast.timestamp),
            quiet=fresh.is_quiet,
            horizons=horizons,
            environment=self.environment,
        )


def exchange_ms(forecast: PathForecast | None, store_ms: float) -> int:
    """The exchange's clock when the hot store's shows `store_ms`, as far as `forecast` knows how they
    differ."""
    return round(store_ms - ((forecast and forecast.clock_offset_ms) or 0))


def _horizon(each: HorizonPrediction, as_of: int) -> HorizonAnswer:
    """`each` with its target and the chances of both directions, which share what `p_flat` leaves: the
    direction of the expected move has its `confidence`."""
    moves = 1 - each.p_flat
    right = moves * each.confidence  # without an expected move that is half of them
    p_up, p_down = (right, moves - right) if each.expected_move_bp > 0 else (moves - right, right)
    target_time = as_of + 1000 * each.horizon_s
    return HorizonAnswer(**asdict(each), target_time=target_time, p_up=p_up, p_down=p_down)
