"""Recordings of USD-M perpetuals as the reference of recorded spot markets: matched by asset and time.

Each recording's own clock offset applies (`recording.inspect`), for the reference as for the spot market. A
reference quote counts from its arrival, not from its transaction time: the spot quotes it is compared with
are timed by arrival as well, and a recorder that lags in a burst would otherwise show the perpetual earlier
than anybody saw it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from local.exchange.assets import assets_of
from local.exchange.events import Feed, ReferenceQuote, Sending
from local.exchange.recording import Recording, references


class UnusableReference(ValueError):
    """A reference recording that cannot be used; the message names the file and says why."""


def refuse_useless(given: Sequence[Recording], markets: Sequence[Recording]) -> None:
    """Raises `UnusableReference` for the first of the reference recordings `given` that is not one of USD-M
    perpetuals, or that shares no asset and time with any of `markets`, and for two of one asset and time."""
    for each in given:
        if not each.is_futures or any("_" in symbol for symbol in each.symbols):
            raise UnusableReference(
                f"REFERENCE {each.path.name} is not a recording of USD-M perpetuals: "
                + ("it is of COIN-M or dated contracts" if each.is_futures else "its quotes state no time T")
            )
        if any(each.path.resolve() == market.path.resolve() for market in markets):
            raise UnusableReference(
                f"REFERENCE {each.path.name} is also a market to learn or evaluate: none is its own reference"
            )
        if not any(_is_reference_of(each, market, symbol) for market in markets for symbol in market.symbols):
            raise UnusableReference(
                f"REFERENCE {each.path.name} matches no recording: it has {_described(each)}, and none has "
                f"that asset at that time ({'; '.join(_described(market) for market in markets)})"
            )
    for number, one in enumerate(given):
        for other in given[number + 1 :]:
            if (
                _assets(one) & _assets(other)
                and one.symbols.isdisjoint(other.symbols)
                and _overlap(one, other)
            ):
                raise UnusableReference(
                    f"REFERENCE {one.path.name} and {other.path.name} have different perpetuals of one asset "
                    "at the same time: name one of them only"
                )


def references_of(symbol: str, given: Iterable[Recording], markets: Sequence[Recording]) -> list[Recording]:
    """Those of the reference recordings `given` that share the asset of `symbol`, and time with a recording
    of `markets` that has it."""
    return [each for each in given if any(_is_reference_of(each, market, symbol) for market in markets)]


def reference_feed(symbol: str, recordings: Iterable[Recording]) -> Feed:
    """The reference quotes of the market `symbol`, each once, by arrival. Raises `RecordingError`."""
    asset, newest_id = assets_of(symbol)[0], -1
    for sending in heapq.merge(*map(references, recordings), key=lambda sending: sending.due_us):
        quote = sending.event
        assert isinstance(quote, ReferenceQuote)
        if assets_of(quote.symbol)[0] == asset and quote.update_id > newest_id:
            newest_id = quote.update_id
            yield Sending(sending.due_us, sending.event_time_us, quote._replace(symbol=symbol))


def _is_reference_of(reference: Recording, market: Recording, symbol: str) -> bool:
    return (
        symbol in market.symbols
        and assets_of(symbol)[0] in _assets(reference)
        and _overlap(reference, market)
    )


def _assets(recording: Recording) -> set[str]:
    return {assets_of(symbol)[0] for symbol in recording.symbols}


def _overlap(one: Recording, other: Recording) -> bool:
    return one.first_us <= other.last_us and other.first_us <= one.last_us


def _described(recording: Recording) -> str:
    first, last = (
        datetime.fromtimestamp(time_us // 10**6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for time_us in (recording.first_us, recording.last_us)
    )
    return f"{', '.join(sorted(recording.symbols))} from {first} to {last} UTC"
