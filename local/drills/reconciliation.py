"""Reconciliation of every trade: the exchange's own counts against bronze, the gap ledger and the bars."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from local.exchange.history import SETTLED_AFTER_US
from local.system import archived_trades, http_json
from local.system.system import System
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.features.bars import Seconds
from tickcast.market.gaps import UNKNOWN, GapRecord
from tickcast.market.sums import total
from tickcast.market.ticks import mantissa
from tickcast.units import SECOND_US

_POLL_S = 0.5
_FRESH_S = 2.0  # the longest interval between predictions
_PAGE = 1000

Spans = Mapping[str, range]  # trade ids by symbol


@dataclass(frozen=True)
class TradeCounts:
    """An aggregate trade of the exchange's history; its quantity is a mantissa at 1e-8."""

    first_id: int
    last_id: int
    time_us: int
    qty: int

    @property
    def count(self) -> int:
        return self.last_id - self.first_id + 1


@dataclass
class Reconciliation:
    """Where the trades `sent` are. `causes` are the ledger's, with the number of trades each."""

    sent: int = 0
    in_bronze: int = 0
    in_ledger: int = 0
    lost: int = 0  # in neither, or in the ledger without a cause or a range that REST can repair
    causes: Counter[str] = field(default_factory=Counter)
    twice: int = 0  # trades counted more than once by bars or predictions
    uncounted: int = 0  # trades in bronze, too late for their bars
    why_lost: str = ""


def sent_until_now(system: System) -> dict[str, int]:
    """The newest trade id that the exchange has published of each symbol."""
    symbols = http_json.get(f"{system.exchange_url}/local/sent").body["symbols"]
    return {symbol: symbols[symbol]["last_id"] for symbol in system.symbols}


def spans(after: Mapping[str, int], until: Mapping[str, int]) -> dict[str, range]:
    return {symbol: range(after[symbol] + 1, until[symbol] + 1) for symbol in until}


class Reconciler:
    """Reads the files that arrive in bronze from now on, each once: files are never changed."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._files = {
            key for symbol in system.symbols for key in archived_trades.bronze_files(system, symbol)
        }
        self._bronze: dict[str, set[int]] = defaultdict(set)

    def reconcile(self, spans: Spans, since_us: int) -> Reconciliation:
        """Reconcile the ids in `spans`, published since `since_us`, once no more of them arrive."""
        missing = self._wait_for(spans)
        result = Reconciliation(sent=sum(len(ids) for ids in spans.values()))
        result.in_bronze = result.sent - sum(len(ids) for ids in missing.values())
        for symbol, ids in missing.items():
            self._check_ledger(symbol, ids, result)
            self._check_bars(symbol, since_us, result)
            result.twice += self._predicted_twice(symbol, since_us)
        return result

    def _wait_for(self, spans: Spans) -> dict[str, set[int]]:
        """The ids that are not in bronze, once each of them is in the ledger or there is no progress."""
        since_s, before, idle_s = time.monotonic(), -1, archived_trades.idle_limit_s(self._system)
        while True:
            missing = {symbol: set(ids) - self._read_bronze(symbol) for symbol, ids in spans.items()}
            left = sum(len(ids - self._in_ledger(symbol).keys()) for symbol, ids in missing.items())
            if left != before:
                since_s, before = time.monotonic(), left
            if not left or time.monotonic() - since_s > idle_s:
                return missing
            time.sleep(_POLL_S)

    def _read_bronze(self, symbol: str) -> set[int]:
        for key in archived_trades.bronze_files(self._system, symbol) - self._files:
            self._bronze[symbol] |= archived_trades.trade_ids(self._system, key)
            self._files.add(key)
        return self._bronze[symbol]

    def _gaps(self, symbol: str) -> list[GapRecord]:
        with self._system.redis() as store:
            ledger = HotStore(store, 0).gaps([symbol])[symbol]
        return ledger.gaps if ledger else []

    def _in_ledger(self, symbol: str) -> dict[int, GapRecord]:
        """The gap that each missing id is in."""
        return {id_: gap for gap in self._gaps(symbol) for id_ in range(gap.first_id, gap.last_id + 1)}

    def _check_ledger(self, symbol: str, missing: set[int], result: Reconciliation) -> None:
        """Look up the ids that are missing in bronze in the ledger."""
        known = self._in_ledger(symbol)
        for id_ in missing:
            if gap := known.get(id_):
                result.causes[gap.cause] += 1
        unlisted = missing - known.keys()
        unexplained = {id_ for id_ in missing & known.keys() if known[id_].cause == UNKNOWN}
        beyond_repair = self._beyond_repair(symbol, missing & known.keys(), known)
        lost = unlisted | unexplained | beyond_repair
        result.in_ledger += len(missing) - len(lost)
        result.lost += len(lost)
        if lost:
            result.why_lost += (
                f"{symbol}: {len(unlisted)} not in the ledger, {len(unexplained)} without a cause, "
                f"{len(beyond_repair)} not in REST's response for the gap; "
            )

    def _beyond_repair(self, symbol: str, ids: Iterable[int], known: dict[int, GapRecord]) -> set[int]:
        """Those of `ids` that are not in REST's response for the times of their gap."""
        served: dict[tuple[int, int], set[int]] = {}
        lost = set()
        for id_ in ids:
            times = known[id_].from_us, known[id_].to_us
            if times not in served:
                trades = self._published(symbol, *times)
                served[times] = {i for t in trades for i in range(t.first_id, t.last_id + 1)}
            if id_ not in served[times]:
                lost.add(id_)
        return lost

    # --------------------------------------------------------------------------------- bars and predictions

    def _check_bars(self, symbol: str, since_us: int, result: Reconciliation) -> None:
        """Compare the whole seconds since `since_us` with the trades the exchange published in them."""
        with self._system.redis() as store:
            states, problems = HotStore(store, 0).load([symbol])
        assert not problems, problems
        ring = states[symbol].ring
        from_us = max(since_us, ring.history_from_us)
        until_us = time.time_ns() // 1000 - 2 * SETTLED_AFTER_US  # the newest aggregate may still grow
        ends_us = ring.seconds["end_us"]
        seconds = ring.seconds[(ends_us - SECOND_US >= from_us) & (ends_us < until_us)]
        if not len(seconds):
            return
        trades = self._published(
            symbol, int(seconds["end_us"][0]) - SECOND_US, int(seconds["end_us"][-1]) - 1
        )
        twice, uncounted = compare(seconds, trades, self._in_ledger(symbol).keys())
        result.twice += twice
        result.uncounted += uncounted

    def _published(self, symbol: str, from_us: int, to_us: int) -> list[TradeCounts]:
        """The exchange's history from `from_us` to `to_us`, both included."""
        url = f"{self._system.exchange_url}/api/v3/aggTrades?symbol={symbol}&limit={_PAGE}"

        def page(query: str) -> list[dict[str, Any]]:
            answer = http_json.get(f"{url}&{query}", {"X-MBX-TIME-UNIT": "MICROSECOND"})
            if answer.status != 200:
                raise RuntimeError(f"aggTrades returned {answer.status}: {answer.body}")
            rows: list[dict[str, Any]] = answer.body
            return rows

        rows = page(f"startTime={from_us}&endTime={to_us}")
        while rows and len(rows) % _PAGE == 0:
            more = page(f"fromId={rows[-1]['a'] + 1}")
            rows += [row for row in more if row["T"] <= to_us]
            if not more or more[-1]["T"] > to_us:
                break
        return [TradeCounts(row["f"], row["l"], row["T"], mantissa(row["q"])) for row in rows]

    def _predicted_twice(self, symbol: str, since_us: int) -> int:
        """How many predictions duplicate the id of another one."""
        since_ms = since_us // 1000
        with self._system.redis() as store:
            found: Any = store.xrevrange(keys.predictions(symbol), min=since_ms)
        ids = Counter(json.loads(fields[b"json"])["id"] for _, fields in found)
        return sum(count - 1 for count in ids.values())


def compare(
    seconds: Seconds, published: Iterable[TradeCounts], absent: Collection[int] = ()
) -> tuple[int, int]:
    """How many trades the sums of bars have too many, and too few, not counting those `absent`.

    A wrong volume counts as one too many. The volume of an aggregate that is absent in part is unknown.
    """
    counts: Counter[int] = Counter()
    volumes: Counter[int] = Counter()
    unknown: set[int] = set()
    for trades in published:
        index = trades.time_us // SECOND_US
        here = sum(id_ not in absent for id_ in range(trades.first_id, trades.last_id + 1))
        counts[index] += here
        volumes[index] += trades.qty if here else 0
        if 0 < here < trades.count:
            unknown.add(index)
    twice = uncounted = 0
    for second in seconds:
        index = int(second["end_us"]) // SECOND_US - 1
        difference = int(second["trade_count"]) - counts[index]
        twice += max(0, difference)
        uncounted += max(0, -difference)
        if (
            difference == 0
            and index not in unknown
            and total(np.stack([second["buy_qty"], second["sell_qty"]])) != volumes[index]
        ):
            twice += 1
    return twice, uncounted


def prediction_since(system: System, instant_ms: float) -> Callable[[], bool]:
    """Whether every symbol has a prediction by the model, made on data after `instant_ms` and still fresh."""
    newest_keys = [keys.latest_prediction(symbol) for symbol in system.symbols]

    def is_fresh() -> bool:
        with system.redis() as store:
            found: Any = store.mget(newest_keys)
        newest = [json.loads(text) if text else None for text in found]
        fresh_ms = max(instant_ms, time.time() * 1000 - _FRESH_S * 1000)
        return all(p and p["source"] == "model" and p["timestamp"] >= fresh_ms for p in newest)

    return is_fresh
