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
    # Reference quotes: the best prices of the USD-M perpetual of the same base, by where the spot ticks that
    # they came with are from. Never mixed with spot quotes.
    USDM = "usdm"
    SIM_USDM = "sim_usdm"
    REPLAY_USDM = "replay_usdm"

    @property
    def origin(self) -> Origin:
        if self in EXCHANGE_STREAMS or self is Source.USDM:
            return Origin.STREAM
        return Origin[self.name.removesuffix("_USDM")]

    @property
    def is_reference(self) -> bool:
        """Whether its ticks are reference quotes."""
        return self in REFERENCES.values()

    @property
    def reference(self) -> Source:
        """The source of the reference quotes in its batches. Raises ValueError where it has none."""
        if self not in REFERENCES:
            raise ValueError(f"batches of source {self.value} carry no reference quotes")
        return REFERENCES[self]


EXCHANGE_STREAMS = (Source.SBE, Source.JSON)  # of spot
REFERENCES = {
    Source.SBE: Source.USDM,
    Source.JSON: Source.USDM,
    Source.SIM: Source.SIM_USDM,
    Source.REPLAY: Source.REPLAY_USDM,
}
STREAMED = tuple(REFERENCES)  # what ingest may be given
# Origins that are certainly a real market. REST may be either: a simulated exchange has one too.
REAL_ORIGINS = (Origin.STREAM, Origin.REPLAY)
