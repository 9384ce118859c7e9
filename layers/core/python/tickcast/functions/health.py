"""The health of the whole system, from what each of its parts last wrote into the hot store.

Only Redis is asked, in two round trips (three where the symbols have changed): a part that hangs shows by its
old heartbeat, and the caller does not wait for it. `ok` is True, False, or None for a part that was never
seen; `why` says what is wrong.

Instants of the market are compared with the exchange's clock: the hot store's less the offset that the
newest forecast names; times of arrival and of heartbeats with the hot store's own. This function's clock
is not used for anything; how far it is off is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from msgspec import to_builtins

from tickcast.adapters.http.bodies import GAPS_SHOWN
from tickcast.adapters.http.responses import Response
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, read, readable
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.features.bars import REFERENCE_LIFE_US
from tickcast.functions.answers import exchange_ms
from tickcast.market.gaps import LedgerRecord
from tickcast.serving.prediction import freshness
from tickcast.serving.records import FeedHeartbeat, Heartbeat, PathForecast, StreamHeartbeat
from tickcast.units import SECOND_US

CLOCK_OFF_MS = 1000  # a clock that is off by more is reported
NEARLY_FULL = 0.95  # of the hot store's memory
NOT_SEEN = "not seen yet"

# Parts that predictions do not need: the names of their heartbeats.
BACKGROUND = {
    "postgres": "postgres",
    "archive": "archive_ticks",
    "audit": "audit_predictions",
    "score": "score_predictions",
}
SILENT_AFTER_S = 900
# From a change of the symbols until ingest looked, has connected, and a first batch was processed.
BEGINNING_MS = 120_000

Service = dict[str, Any]
Values = Mapping[str, bytes | None]  # what is stored, by key
Part = Callable[[Values, "Now"], Service]  # the health of a part


@dataclass(frozen=True)
class Now:
    """One instant on three clocks, ms: the hot store's, the exchange's, and this function's.

    `offset_ms` is the hot store's less the exchange's, as the newest forecast has it; None is not known, and
    counts as 0. `newest_ms` is the instant of that forecast.
    """

    store_ms: float
    own_ms: float
    offset_ms: float | None
    newest_ms: int | None

    @property
    def exchange_ms(self) -> float:
        return self.store_ms - (self.offset_ms or 0)


@dataclass
class Health:
    settings: ServePredictionsSettings
    store: HotStore
    clock_ms: Callable[[], float]
    symbols: SymbolSet

    def __call__(self) -> Response:
        """200 while all parts are healthy, else 503. A background part that was never seen does not count,
        nor do those of a symbol that was never seen just after the symbols were changed."""
        may_be_unseen = set(BACKGROUND)
        try:
            services = {"redis": _store(self.store.fullness())}
            values, store_ms = self._values()
            services |= self._services(self._parts(), values, store_ms)
            if self.symbols.is_new(store_ms, BEGINNING_MS):
                may_be_unseen |= {name for symbol in self.symbols.symbols for name in _names_of(symbol)}
        except redis.RedisError as error:
            services = {"redis": {"ok": False, "why": f"does not answer ({type(error).__name__})"}}
            unknown = {"ok": None, "why": "not known: Redis does not answer"}
            services |= dict.fromkeys(self._parts(), unknown)
            may_be_unseen = set()
        well = all(
            service["ok"] or (service["ok"] is None and name in may_be_unseen)
            for name, service in services.items()
        )
        body = {
            "status": "ok" if well else "degraded",
            "environment": self.settings.environment,
            "services": services,
        }
        return Response(200 if well else 503, body)

    def _parts(self) -> dict[str, Part]:
        """By name the function that determines a part's health."""
        parts: dict[str, Part] = {"model": self._model, "age": self._age, "clock": self._clock}
        for symbol in self.symbols.symbols:
            feed, stream = _names_of(symbol)
            parts[feed], parts[stream] = partial(self._feed, symbol), partial(self._stream, symbol)
        return parts | {name: partial(_background, part) for name, part in BACKGROUND.items()}

    def _values(self) -> tuple[Values, float]:
        """All that is stored of the parts, and the store's time then. Where the symbols are others than
        those that this process knew, it is read again."""
        for _ in range(2):
            names = [keys.symbols(), *(keys.heartbeat(part) for part in BACKGROUND.values())]
            names += [key for symbol in self.symbols.symbols for key in _keys_of(symbol)]
            found, store_ms = self.store.values_at(names)
            if not self.symbols.take(found[0]):
                break
        values = dict.fromkeys(key for symbol in self.symbols.symbols for key in _keys_of(symbol))
        return values | dict(zip(names, found, strict=True)), store_ms

    def _services(self, parts: dict[str, Part], values: Values, store_ms: float) -> dict[str, Service]:
        now = self._now(values, store_ms)
        services: dict[str, Service] = {}
        for name, part in parts.items():
            try:
                services[name] = part(values, now)
            except ValueError as error:  # its records cannot be read, which concerns no other part
                why = f"what it wrote cannot be read: {type(error).__name__}: {error}"
                services[name] = {"ok": False, "why": why}
        return services

    def _now(self, values: Values, store_ms: float) -> Now:
        names = [keys.latest_prediction(symbol) for symbol in self.symbols.symbols]
        newest = _newest([readable(PathForecast, values[name]) for name in names])
        names = [keys.heartbeat("predict_stream", symbol) for symbol in self.symbols.symbols]
        beats = [readable(StreamHeartbeat, values[name]) for name in names]
        offsets = [beat.clock_offset_ms for beat in beats if beat]
        return Now(
            store_ms=store_ms,
            own_ms=self.clock_ms(),
            # While nothing is predicted, the stream's heartbeats know the clock all the same.
            offset_ms=newest.clock_offset_ms if newest else next(iter(offsets), None),
            newest_ms=newest.timestamp if newest else None,
        )

    def _stream(self, symbol: str, values: Values, now: Now) -> Service:
        """How far the stream of a symbol has been processed."""
        ledger = readable(LedgerRecord, values[keys.gaps(symbol)])
        missed = [gap for gap in ledger.gaps if gap.is_missed] if ledger else []
        newest_first = missed[: -GAPS_SHOWN - 1 : -1]
        gaps = {"gaps": to_builtins(newest_first)} if ledger else {}
        beat = read(StreamHeartbeat, values[keys.heartbeat("predict_stream", symbol)])
        if beat is None:
            return {"ok": None, "why": NOT_SEEN, **gaps}
        age_s = _seconds(now.exchange_ms - beat.watermark_ms)
        why = None
        if age_s > self.settings.stale_after_s:
            why = f"stream stalled, last watermark {age_s} s ago"
        elif beat.failure:
            why = f"records are left out: {beat.failure}"
        elif beat.model_problem:
            why = beat.model_problem
        return {
            "ok": why is None,
            "why": why,
            "age_s": age_s,
            "missing_trades": beat.missing_trades,
            "quote_gaps": beat.quote_gaps,
            "reason": beat.reason,  # why the newest prediction is a fallback, such as warming_up
            # Not yet where no record had a tick, such as the first ones of a market that was just added.
            "predicted": values[keys.latest_prediction(symbol)] is not None,
            **_reference(beat, now),
            **gaps,
        }

    def _clock(self, values: Values, now: Now) -> Service:
        """Whether clocks agree. One that is off is reported, but no fault as long as ages make up for it:
        only a forecast that is ahead of the exchange's clock as known shows that they do not."""
        if now.newest_ms is None:
            return {"ok": None, "why": NOT_SEEN}
        symbols = self.symbols.symbols
        feeds = [readable(FeedHeartbeat, values[keys.heartbeat("ingest_ecs", s)]) for s in symbols]
        streams = [readable(StreamHeartbeat, values[keys.heartbeat("predict_stream", s)]) for s in symbols]
        # by the name of a clock how far it is ahead, ms
        offsets = {
            "the hot store's clock is {} the exchange's": now.offset_ms or 0.0,
            "the API's own clock is {} the hot store's": now.own_ms - now.store_ms,
            "ingest's clock is {} the exchange's": _worst(beat.host_offset_ms for beat in feeds if beat),
            "predict_stream's clock is {} the exchange's": _worst(
                beat.own_offset_ms for beat in streams if beat
            ),
        }
        why = [text.format(_off(ms)) for text, ms in offsets.items() if abs(ms) > CLOCK_OFF_MS]
        if why:
            why.append("ages and features are compensated for that")
        if now.offset_ms is None:
            why.append("the hot store's offset from the exchange's clock is not known, and counts as 0")
        ahead_ms = now.newest_ms - now.exchange_ms
        if ahead_ms > CLOCK_OFF_MS:
            why = [f"the newest forecast is {_seconds(ahead_ms)} s ahead of the clock: ages are wrong", *why]
        return {
            "ok": ahead_ms <= CLOCK_OFF_MS,
            "why": "; ".join(why) or None,
            "offset_ms": None if now.offset_ms is None else round(now.offset_ms, 3),
            "own_offset_ms": round(now.own_ms - now.store_ms, 3),
        }

    def _feed(self, symbol: str, values: Values, now: Now) -> Service:
        """When ingest last sent something of a symbol, and whether it is connected and caught up. This is
        what the consumer of the stream read: it looks the same when the consumer has stopped."""
        beat = read(FeedHeartbeat, values[keys.heartbeat("ingest_ecs", symbol)])
        if beat is None:
            return {"ok": None, "why": NOT_SEEN}
        limit_s = self.settings.stale_after_s
        age_s = _seconds(now.store_ms - beat.received_ms)
        caught_up_s = _seconds(now.exchange_ms - beat.watermark_ms)
        why = None
        if age_s > limit_s:
            why = f"nothing has been sent for {age_s} s"
        elif caught_up_s > limit_s:
            why = f"last connected and caught up {caught_up_s} s ago"
        return {"ok": why is None, "why": why, "age_s": age_s, "source": beat.source}

    def _age(self, values: Values, now: Now) -> Service:
        """How old the oldest forecast is that answers are made from, and whether any is too old."""
        known = [read(PathForecast, values[keys.latest_prediction(s)]) for s in self.symbols.symbols]
        found = {
            each.symbol: freshness(each, exchange_ms(each, now.store_ms), self.settings.stale_after_s)
            for each in known
            if each is not None
        }
        if not found:
            return {"ok": None, "why": NOT_SEEN}
        age_s = round(max(each.claim_age_s for each in found.values()), 3)
        for symbol, each in found.items():
            if each.is_stale:
                ages = (
                    f"claim {each.claim_age_s:.1f} s, newest tick {each.tick_age_s or each.claim_age_s:.1f} s"
                )
                why = f"the forecast of {symbol} is too old ({ages}): it is answered by fallbacks"
                return {"ok": False, "why": why, "age_s": age_s}
        return {"ok": True, "why": None, "age_s": age_s}

    def _model(self, values: Values, now: Now) -> Service:
        """Whether there is an active model, by the newest forecast."""
        symbols = self.symbols.symbols
        found = [read(PathForecast, values[keys.latest_prediction(symbol)]) for symbol in symbols]
        last = _newest(found)
        if last is None:
            return {"ok": None, "why": NOT_SEEN}
        beats = [read(StreamHeartbeat, values[keys.heartbeat("predict_stream", s)]) for s in symbols]
        problems = [beat.model_problem for beat in beats if beat and beat.model_problem]
        why = problems[0] if problems else None
        if not last.model_id:
            why = why or "no active model: every answer is a fallback"
        return {"ok": why is None, "why": why, "model_id": last.model_id, "provisional": last.provisional}


def _names_of(symbol: str) -> tuple[str, str]:
    """The names of the two parts of `symbol`."""
    return f"feed:{symbol}", f"predict_stream:{symbol}"


def _keys_of(symbol: str) -> tuple[str, ...]:
    return (
        keys.heartbeat("predict_stream", symbol),
        keys.heartbeat("ingest_ecs", symbol),
        keys.gaps(symbol),
        keys.latest_prediction(symbol),
    )


def _newest(forecasts: Iterable[PathForecast | None]) -> PathForecast | None:
    return max((each for each in forecasts if each), key=lambda each: each.timestamp, default=None)


def _worst(offsets_ms: Iterable[float | None]) -> float:
    """The offset that is farthest from 0, of those that are known; 0 where none is."""
    return max((each for each in offsets_ms if each is not None), key=abs, default=0.0)


def _off(offset_ms: float) -> str:
    return f"{abs(offset_ms) / 1000:.1f} s {'ahead of' if offset_ms > 0 else 'behind'}"


def _store(fullness: float | None) -> Service:
    """When it is full, writes fail, and with them predictions."""
    if fullness is None or fullness < NEARLY_FULL:
        return {"ok": True, "why": None}
    return {"ok": False, "why": f"{fullness:.0%} of its memory is used: when it is full, writes fail"}


def _background(part: str, values: Values, now: Now) -> Service:
    """The health in a part's heartbeat, unless that is too old."""
    beat = read(Heartbeat, values[keys.heartbeat(part)])
    if beat is None:
        return {"ok": None, "why": NOT_SEEN}
    age_s = _seconds(now.store_ms - beat.at_ms)
    if age_s > SILENT_AFTER_S:
        return {"ok": False, "why": f"no heartbeat for {age_s} s", "age_s": age_s}
    return {"ok": beat.ok, "why": beat.why, "age_s": age_s}


def _reference(beat: StreamHeartbeat, now: Now) -> Service:
    """How old the newest quote of the perpetual is. Without one nothing fails: forecasts do without it."""
    age_s = None if beat.reference_ms is None else _seconds(now.exchange_ms - beat.reference_ms)
    note = None
    if age_s is None:
        note = "no quote of the perpetual so far: forecasts do without it"
    elif age_s > REFERENCE_LIFE_US / SECOND_US:
        note = f"no quote of the perpetual for {age_s} s: forecasts do without it"
    return {"reference_age_s": age_s, "note": note}


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 3)
