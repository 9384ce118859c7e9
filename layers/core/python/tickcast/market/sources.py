"""Where ticks come from. The source is a field of each tick and a folder of bronze; the origin is what
PostgreSQL stores of it: the exchange's stream is one origin, whichever protocol brought the tick."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Origin(IntEnum):
    """In order of preference: the first is kept if several have the same single trade."""

    STREAM = 0
    REPLAY = 1
    SIM = 2
    REST = 3

    @property
    def label(self) -> str:
        """The name in PostgreSQL (`tickcast.origin`)."""
        return self.name.lower()


class Source(StrEnum):
    SBE = "sbe"  # Binance's binary stream
    JSON = "json"  # its public mirror
    REST = "rest"  # aggregate trades, fetched as history
    SIM = "sim"  # a simulated market
    REPLAY = "replay"  # a recording of a real one

    @property
    def origin(self) -> Origin:
        return Origin.STREAM if self in EXCHANGE_STREAMS else Origin[self.name]


EXCHANGE_STREAMS = (Source.SBE, Source.JSON)
STREAMED = tuple(source for source in Source if source is not Source.REST)  # what ingest may be given
# Origins that are certainly a real market. REST may be either: a simulated exchange has one too.
REAL_ORIGINS = (Origin.STREAM, Origin.REPLAY)
