"""Changes of the symbols while a temporary system is measured: by `make smoke ADD=… REMOVE=…`.

They are made as `make symbols` makes them. The symbols that stay are measured throughout, and none of their
trades may be lost; nor any trade of an added symbol from the first that was sent for it on, or of a removed
one up to its removal.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from local.commands import deployment, symbol_checks, symbols
from local.commands.symbols import Request
from local.exchange.simulator import LISTED
from local.system import archived_trades
from local.system.archived_trades import SentTrades
from local.system.options import SIM_SYMBOLS, Options, OptionsError
from local.system.progress import Progress
from local.system.system import System
from tickcast.market.symbols import listed

_MODEL_S = 60  # until a symbol's bars are warm
_POLL_S = 0.2


@dataclass
class Changed:
    """The fields of the last line: by symbol after how many seconds `/health` first showed an added one fed
    and processed, the model first predicted it, and `/health` no longer showed a removed one."""

    added_s: dict[str, float | None] = field(default_factory=dict)
    predicted_s: dict[str, float | None] = field(default_factory=dict)
    removed_s: dict[str, float | None] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What was not followed."""
        found = (
            ("was not fed after it was added", self.added_s),
            ("was not predicted by the model after it was added", self.predicted_s),
            ("was still there after it was removed", self.removed_s),
        )
        return [f"{each} {why}" for why, by_symbol in found for each, s in by_symbol.items() if s is None]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class SymbolChanges:
    """Symbols to `add` and to `remove` while a system is measured; none by default."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    changed: Changed = field(default_factory=Changed)
    _sent_of_removed: SentTrades = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)

    def check(self, options: Options) -> None:
        """Raises `OptionsError` where they cannot be made in a system of `options`."""
        if self and options.feed == "replay":
            raise OptionsError("ADD and REMOVE need FEED=sim or live: a replay has the markets it was given")
        if unlisted := [each for each in self.add if options.feed == "sim" and each not in LISTED]:
            raise OptionsError(
                f"ADD: the simulated exchange has no {listed(unlisted)}; it has {', '.join(LISTED)}"
            )
        there = options.symbols or SIM_SYMBOLS
        after = symbol_checks.changed(there, self.add, self.remove)
        if not set(after) & set(there):
            raise OptionsError("REMOVE: at least one symbol has to stay, to be measured")

    def staying(self, served: Sequence[str]) -> tuple[str, ...]:
        """Those of `served` that are not removed."""
        return tuple(symbol for symbol in served if symbol not in self.remove)

    def make(self, system: System, steps: Progress) -> None:
        """Add, and then remove, each followed until the whole system does."""
        there = deployment.on_emulator("the measured system", system.cloud.endpoint_url)
        if self.add:
            change = symbols.apply(there, Request(add=self.add))
            symbols.follow(there, change, steps)
            self.changed.added_s = change.added
            with steps.step(f"the model's first prediction of {', '.join(self.add)}"):
                self.changed.predicted_s = _predicted(system, self.add)
        if self.remove:
            sent = archived_trades.sent_so_far(system, self.add) if system.exchange_url else {}
            self._sent_of_removed = {symbol: sent[symbol] for symbol in self.remove if symbol in sent}
            change = symbols.apply(there, Request(remove=self.remove))
            symbols.follow(there, change, steps)
            self.changed.removed_s = change.removed

    def due(self, sent: SentTrades) -> SentTrades:
        """Of all that was `sent`, what has to be in bronze."""
        return sent | self._sent_of_removed


def _predicted(system: System, added: Sequence[str]) -> dict[str, float | None]:
    """By symbol after how many seconds the model predicted it; None: not in time."""
    found: dict[str, float | None] = dict.fromkeys(added)
    started_s = time.monotonic()
    while None in found.values() and (passed_s := time.monotonic() - started_s) < _MODEL_S:
        system.check()
        for symbol in (each for each in added if found[each] is None):
            answer = system.api.get(f"predictions/{symbol}")
            if answer.status == 200 and answer.body["source"] == "model":
                found[symbol] = round(passed_s, 1)
        time.sleep(_POLL_S)
    return found
