"""What became of every trade: the exchange's own word against bronze, the gap ledger and the bars."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from local.commands import smoke
from local.exchange.history import SETTLED_AFTER_US
from local.system import http_json
from local.system.system import System
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.features.bars import Seconds
from tickcast.market.gaps import UNKNOWN, GapRecord
from tickcast.market.sums import total
from tickcast.market.ticks import mantissa
from tickcast.units import SECOND_US

_IDLE_S = 15.0  # nothing more was accounted for in so long: it will not be
_POLL_S = 0.5
_PAGE = 1000

Spans = Mapping[str, range]  # trade ids by symbol


@dataclass(frozen=True)
class TradeCounts:
    """An aggregate of the exchange's history; quantities are mantissas at 1e-8."""

    first_id: int
    last_id: int
    time_us: int
    qty: int

    @property
    def count(self) -> int:
        return self.last_id - self.first_id + 1


@dataclass
class Reconciliation:
    """Of the trades `sent`; `causes` are the ledger's, with how many trades each is for."""

    sent: int = 0
    in_bronze: int = 0
    in_ledger: int = 0
    lost: int = 0  # in neither, or in the ledger without a cause or a range that REST can repair
    causes: Counter[str] = field(default_factory=Counter)
    twice: int = 0  # trades that bars or predictions counted more than once
    uncounted: int = 0  # trades in bronze that bars do not have: they came late
    why_lost: str = ""


def sent_until_now(system: System) -> dict[str, int]:
    """The newest trade id the exchange has published of each symbol."""
    symbols = http_json.get(f"{system.exchange_url}/local/sent").body["symbols"]
    return {symbol: symbols[symbol]["last_id"] for symbol in system.symbols}


def spans(after: Mapping[str, int], until: Mapping[str, int]) -> dict[str, range]:
    return {symbol: range(after[symbol] + 1, until[symbol] + 1) for symbol in until}


class Reconciler:
    """Reads what comes to bronze from now on, each file once: files are never changed."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._files = {key for symbol in system.symbols for key in smoke.bronze_files(system, symbol)}
        self._bronze: dict[str, set[int]] = defaultdict(set)

    def account(self, spans: Spans, since_us: int) -> Reconciliation:
        """Of the ids in `spans`, published since `since_us`, once no more of them come."""
        missing = self._wait_for(spans)
        account = Reconciliation(sent=sum(len(ids) for ids in spans.values()))
        account.in_bronze = account.sent - sum(len(ids) for ids in missing.values())
        for symbol, ids in missing.items():
            self._explain(symbol, ids, account)
            self._check_bars(symbol, since_us, account)
            account.twice += self._predicted_twice(symbol, since_us)
        return account

    def _wait_for(self, spans: Spans) -> dict[str, set[int]]:
        """The ids that do not stand in bronze, once each of them is in the ledger or nothing moves."""
        since_s, before = time.monotonic(), -1
        while True:
            missing = {symbol: set(ids) - self._read_bronze(symbol) for symbol, ids in spans.items()}
            left = sum(len(ids - self._in_ledger(symbol).keys()) for symbol, ids in missing.items())
            if left != before:
                since_s, before = time.monotonic(), left
            if not left or time.monotonic() - since_s > _IDLE_S:
                return missing
            time.sleep(_POLL_S)

    def _read_bronze(self, symbol: str) -> set[int]:
        for key in smoke.bronze_files(self._system, symbol) - self._files:
            self._bronze[symbol] |= smoke.trade_ids(self._system, key)
            self._files.add(key)
        return self._bronze[symbol]

    def _gaps(self, symbol: str) -> list[GapRecord]:
        with self._system.redis() as store:
            ledger = HotStore(store, 0).gaps([symbol])[symbol]
        return ledger.gaps if ledger else []

    def _in_ledger(self, symbol: str) -> dict[int, GapRecord]:
        """The gap that each missing id is in."""
        return {id_: gap for gap in self._gaps(symbol) for id_ in range(gap.first_id, gap.last_id + 1)}

    def _explain(self, symbol: str, missing: set[int], account: Reconciliation) -> None:
        """Enter what the ledger says of the ids that are missing in bronze."""
        known = self._in_ledger(symbol)
        for id_ in missing:
            if gap := known.get(id_):
                account.causes[gap.cause] += 1
        silent = missing - known.keys()
        unexplained = {id_ for id_ in missing & known.keys() if known[id_].cause == UNKNOWN}
        beyond_repair = self._beyond_repair(symbol, missing & known.keys(), known)
        lost = silent | unexplained | beyond_repair
        account.in_ledger += len(missing) - len(lost)
        account.lost += len(lost)
        if lost:
            account.why_lost += (
                f"{symbol}: {len(silent)} nowhere, {len(unexplained)} without a cause, "
                f"{len(beyond_repair)} not in REST's answer to the gap; "
            )

    def _beyond_repair(self, symbol: str, ids: Iterable[int], known: dict[int, GapRecord]) -> set[int]:
        """Those of `ids` that REST does not give when asked for the times of their gap."""
        given: dict[tuple[int, int], set[int]] = {}
        lost = set()
        for id_ in ids:
            times = known[id_].from_us, known[id_].to_us
            if times not in given:
                trades = self._published(symbol, *times)
                given[times] = {i for t in trades for i in range(t.first_id, t.last_id + 1)}
            if id_ not in given[times]:
                lost.add(id_)
        return lost

    # ----------------------------------------------------------------------------------------- counting

    def _check_bars(self, symbol: str, since_us: int, account: Reconciliation) -> None:
        """Hold the whole seconds since `since_us` against what the exchange published in their time."""
        with self._system.redis() as store:
            states, problems = HotStore(store, 0).load([symbol])
        assert not problems, problems
        ring = states[symbol].ring
        from_us = max(since_us, ring.history_from_us)
        until_us = time.time_ns() // 1000 - 2 * SETTLED_AFTER_US  # the newest aggregate may be growing still
        ends_us = ring.seconds["end_us"]
        seconds = ring.seconds[(ends_us - SECOND_US >= from_us) & (ends_us < until_us)]
        if not len(seconds):
            return
        trades = self._published(
            symbol, int(seconds["end_us"][0]) - SECOND_US, int(seconds["end_us"][-1]) - 1
        )
        twice, uncounted = compare(seconds, trades, self._in_ledger(symbol).keys())
        account.twice += twice
        account.uncounted += uncounted

    def _published(self, symbol: str, from_us: int, to_us: int) -> list[TradeCounts]:
        """The exchange's history of the time, both ends included."""
        url = f"{self._system.exchange_url}/api/v3/aggTrades?symbol={symbol}&limit={_PAGE}"

        def page(query: str) -> list[dict[str, Any]]:
            answer = http_json.get(f"{url}&{query}", {"X-MBX-TIME-UNIT": "MICROSECOND"})
            if answer.status != 200:
                raise RuntimeError(f"aggTrades answered {answer.status}: {answer.body}")
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
        """How many seconds have more than one prediction."""
        since_ms = since_us // 1000
        with self._system.redis() as store:
            found: Any = store.xrevrange(keys.predictions(symbol), min=since_ms)
        ids = Counter(json.loads(fields[b"json"])["id"] for _, fields in found)
        return sum(count - 1 for count in ids.values())


def compare(
    seconds: Seconds, published: Iterable[TradeCounts], absent: Collection[int] = ()
) -> tuple[int, int]:
    """How many trades the sums of bars have too many, and too few, but for those `absent`.

    A wrong volume counts as one too many. That of an aggregate which is absent in part is not known.
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
    keys = [keys.latest_prediction(symbol) for symbol in system.symbols]

    def look() -> bool:
        with system.redis() as store:
            found: Any = store.mget(keys)
        newest = [json.loads(text) if text else None for text in found]
        fresh_ms = max(instant_ms, time.time() * 1000 - smoke.INTERVAL_MAX_S * 1000)
        return all(p and p["source"] == "model" and p["timestamp"] >= fresh_ms for p in newest)

    return look
