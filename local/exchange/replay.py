"""Recordings replayed: timestamps shifted to now, round after round.

All symbols share one timeline, so that they keep their distances in every round: it starts with the
earliest tick of any recording and ends with the latest. Pauses of more than `MAX_PAUSE_US` between
recordings are cut out.

A symbol's feed has the quotes of its perpetual too, where a reference recording matches: as far from the spot
market's ticks as they arrived at the recorder.

A new round must not repeat ids, or consumers would treat the trades as duplicates. After the end of a
round, and after a long pause, trade ids are shifted to continue without a hole, as an exchange's do, and
update ids to keep rising. Within the first round ids stay as recorded.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from local.exchange.events import BookDiff, BookSnapshot, Event, Feed, Quote, ReferenceQuote, Sending, Trade
from local.exchange.log import log
from local.exchange.recording import Recording, merge
from local.exchange.reference import reference_feed, references_of

MAX_PAUSE_US = 60_000_000
_ROUND_GAP_US = 10_000  # between the last tick of a round and the first of the next
_UPDATE_ID_GAP = 1_000  # so that the depth updates of a new round do not seem to continue the old book

Pause = tuple[int, int]  # from, to (µs)


class Replay:
    """The recordings to replay, and their timeline."""

    def __init__(self, recordings: Iterable[Recording], references: Iterable[Recording] = ()) -> None:
        """`references` that match none of `recordings` are ignored. Raises ValueError without a recording."""
        self._references = list(references)
        self.recordings = sorted(recordings, key=lambda recording: recording.first_us)
        if not self.recordings:
            raise ValueError("nothing to replay")
        self.symbols = sorted({symbol for recording in self.recordings for symbol in recording.symbols})
        self.pauses = _long_pauses(self.recordings)
        self.first_us = self.recordings[0].first_us
        last_us = max(recording.last_us for recording in self.recordings)
        cut_us = sum(end_us - begin_us for begin_us, end_us in self.pauses)
        self.round_us = last_us - self.first_us - cut_us + _ROUND_GAP_US

    @property
    def has_perpetuals(self) -> bool:
        """Whether a reference matches any of the recordings."""
        return any(references_of(symbol, self._references, self.recordings) for symbol in self.symbols)

    def feed(self, symbol: str, start_us: int, speed: float) -> Feed:
        """The endless feed of one symbol, the timeline starting at `start_us` (µs), `speed` times as fast.

        Raises `RecordingError` when it comes to a damaged line.
        """

        def moved(time_us: int) -> int:
            return start_us + int((time_us - zero_us) / speed)

        recordings = [recording for recording in self.recordings if symbol in recording.symbols]
        ids = _Ids()
        for rounds in itertools.count():
            if rounds:
                log("replay_starts_over", symbol=symbol, rounds=rounds)
            zero_us = self.first_us - rounds * self.round_us  # what becomes `start_us`
            pauses = iter([*self.pauses, None])
            pause = next(pauses)
            last_us: int | None = None
            for due_us, event_time_us, event in self._events(symbol, recordings):
                if event.symbol != symbol:
                    continue
                while pause and due_us >= pause[1]:
                    zero_us += pause[1] - pause[0]
                    pause = next(pauses)
                if last_us is None or due_us - last_us > MAX_PAUSE_US:
                    ids.start_over()
                last_us = due_us
                if isinstance(event, Trade | Quote | ReferenceQuote):
                    event = event._replace(time_us=moved(event.time_us))
                yield Sending(moved(due_us), moved(event_time_us), ids.shifted(event))

    def _events(self, symbol: str, recordings: list[Recording]) -> Feed:
        """What `recordings` have, and the quotes of the perpetual of `symbol` while one of them lasts."""
        references = reference_feed(symbol, references_of(symbol, self._references, recordings))
        within = (
            each for each in references if any(r.first_us <= each.due_us <= r.last_us for r in recordings)
        )
        return heapq.merge(merge(recordings), within, key=lambda sending: sending.due_us)


class _Ids:
    """Shifts the ids of one symbol so that every round continues where the previous one ended."""

    def __init__(self) -> None:
        self._trade_id: int | None = None  # the last one returned
        self._update_id: int | None = None
        self._trade_shift: int | None = 0  # None: the next event determines it
        self._update_shift: int | None = 0
        self._reference_id: int | None = None
        self._reference_shift: int | None = 0

    def start_over(self) -> None:
        if self._trade_id is not None:
            self._trade_shift = None
        if self._update_id is not None:
            self._update_shift = None
        if self._reference_id is not None:
            self._reference_shift = None

    def shifted(self, event: Event) -> Event:
        match event:
            case Trade():
                return event._replace(id=self._trade(event.id))
            case Quote():
                return event._replace(update_id=self._update(event.update_id))
            case ReferenceQuote():
                return event._replace(update_id=self._reference(event.update_id))
            case BookSnapshot():
                return event._replace(update_id=self._update(event.update_id))
            case BookDiff():
                first_id = self._update(event.first_update_id)
                return event._replace(
                    first_update_id=first_id, last_update_id=self._update(event.last_update_id)
                )

    def _trade(self, id_: int) -> int:
        if self._trade_shift is None:
            self._trade_shift = (self._trade_id or 0) + 1 - id_
        self._trade_id = id_ + self._trade_shift
        return self._trade_id

    def _update(self, id_: int) -> int:
        if self._update_shift is None:
            self._update_shift = (self._update_id or 0) + _UPDATE_ID_GAP - id_
        shifted = id_ + self._update_shift
        self._update_id = max(self._update_id or 0, shifted)
        return shifted

    def _reference(self, id_: int) -> int:
        if self._reference_shift is None:
            self._reference_shift = (self._reference_id or 0) + _UPDATE_ID_GAP - id_
        self._reference_id = id_ + self._reference_shift
        return self._reference_id


def _long_pauses(recordings: list[Recording]) -> list[Pause]:
    """The spans longer than `MAX_PAUSE_US` that no recording covers; `recordings` by `first_us`."""
    pauses = []
    covered_us = recordings[0].last_us
    for recording in recordings[1:]:
        if recording.first_us - covered_us > MAX_PAUSE_US:
            pauses.append((covered_us, recording.first_us))
        covered_us = max(covered_us, recording.last_us)
    return pauses
