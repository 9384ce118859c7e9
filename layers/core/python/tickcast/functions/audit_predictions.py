"""Audit a sample of the predictions every few minutes, by recomputing them from bronze.

Whatever is kept may be sampled: the first prediction of a second, or one in between. It is audited once it is
old enough for the archive to have written its ticks. One that is inconclusive, because bronze does not have
all its ticks yet or because of a caveat of `serving.reproduce`, counts as pending; a difference is stored in
S3 and raises an alarm.

It also writes the heartbeats of two parts that cannot reach Redis: the archive, from the content of bronze,
and PostgreSQL, from whether it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import redis
from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Raw, Struct

from tickcast.adapters.lake.bronze import BronzeError, StreamPart
from tickcast.adapters.lake.bronze_reader import BronzeReader, Reach
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import Entries, HotStore, readable
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.registry import model_watcher
from tickcast.adapters.settings import AuditPredictionsSettings
from tickcast.features.bars import SILENCE_US
from tickcast.market.gaps import GapRecord
from tickcast.serving.prediction import ServingModel
from tickcast.serving.records import (
    ArchiveHeartbeat,
    AuditHeartbeat,
    Heartbeat,
    LateTicks,
    Prediction,
    decode,
    encode,
)
from tickcast.serving.reproduce import (
    COMPARED,
    LOOK_BACK_US,
    ComparedValue,
    ReceiptError,
    Reproduction,
    Surroundings,
    look_back_us,
    reproduce,
)
from tickcast.units import HOUR_US

SERVICE = "audit_predictions"
ARCHIVE = "archive_ticks"
POSTGRES = "postgres"
OLD_ENOUGH_MS = 180_000  # the archive collects for a minute, and may have to retry
LATE_UNTIL_MS = 120_000  # receipts up to so long after may list its late ticks
MINUTE_MS = 60_000
BEHIND_MS = 300_000  # the archive may lag behind the hot path by so much
MODELS_KEPT = 4  # champion and challenger, and both from before a promotion
_RESERVE_MS = 40_000  # for the symbol under way, where S3 is slow, and for the heartbeats
_PAGE = 200  # receipts per request: a large one would block Redis for the hot path
_SHIFT_MS = 7919  # prime: over time every second of the minute is sampled


@dataclass(frozen=True)
class Audit:
    """A reproduction, and the objects of bronze it was computed from."""

    reproduction: Reproduction
    objects: tuple[StreamPart, ...] = ()


class Difference(Struct):
    """All that is known of a prediction that differs, as stored in S3."""

    id: str
    audited_ms: int
    differences: list[ComparedValue]
    receipt: Prediction
    bronze: list[str]  # keys


class Auditor:
    """Recomputes receipts from bronze and models in S3, of which it caches the `MODELS_KEPT` last used."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._models: dict[str, ServingModel] = {}

    def reader(self, from_us: int = 0, to_us: int = 2**63) -> BronzeReader:
        """A reader of bronze as it is now, for receipts whose ticks lie between the two."""
        return BronzeReader(self._s3, self._bucket, from_us, to_us)

    def __call__(
        self,
        receipt: Prediction,
        late: Sequence[LateTicks],
        missing: list[tuple[int, int]],
        bronze: BronzeReader,
    ) -> Audit:
        """The audit of `receipt`; `late` are the late ticks of receipts around it, `missing` trade ids that
        the hot path lacks."""
        try:
            from_us, end_us = look_back_us(receipt)
            if from_us == receipt.history_from_us:  # earlier ticks show why it begins there
                from_us -= SILENCE_US
            # An object of a later event shows it; in a quiet market it may come long after.
            reach = bronze.reach(receipt.symbol, from_us, end_us + HOUR_US)
            sequence = int(receipt.sequence or 0)
            if reach.complete_below <= sequence:
                return Audit(Reproduction(receipt.id, unproven=(_not_yet(reach),)))
            needed = bronze.parts(receipt.symbol, from_us, end_us, sequence)
            trades, quotes, reference = bronze.ticks(receipt.symbol, needed)
            around = Surroundings(trades, quotes, late, missing, reference)
            challenger_id = receipt.challenger.model_id if receipt.challenger else None
            models = self._model(receipt.model_id), self._model(challenger_id)
            return Audit(reproduce(receipt, around, *models), tuple(needed))
        except (ReceiptError, BronzeError) as error:
            return Audit(Reproduction(receipt.id, unproven=(str(error),)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return Audit(Reproduction(receipt.id, unproven=(_unreadable(error),)))

    def _model(self, model_id: str | None) -> ServingModel | None:
        """The model in S3; None if there is none of that name, or this code cannot load it."""
        if not model_id:
            return None
        try:
            model = self._models.pop(model_id, None) or model_watcher.load(self._s3, self._bucket, model_id)
        except model_watcher.LOAD_ERRORS:
            return None
        self._models[model_id] = model  # the newest last
        while len(self._models) > MODELS_KEPT:
            del self._models[next(iter(self._models))]
        return model


def _whole_receipt(data: bytes) -> Prediction:
    """The receipt in `data`. Raises ValueError where it cannot be read, or lacks a field that is compared."""
    receipt = decode(Prediction, data)
    if lacking := COMPARED - decode(dict[str, Raw], data).keys():
        raise ReceiptError(f"it lacks {', '.join(sorted(lacking))}")
    return receipt


def _unreadable(error: Exception) -> str:
    return f"the receipt cannot be read: {describe(error)}"


def _not_yet(reach: Reach) -> str:
    reached = "nothing of its hour"
    if reach.newest_us:
        reached = f"{datetime.fromtimestamp(reach.newest_us / 1e6, UTC):%H:%M:%S} UTC"
    return f"bronze does not hold all its ticks yet (newest: {reached}): the archive writes every minute"


def missing_ids(gaps: Iterable[GapRecord]) -> list[tuple[int, int]]:
    """The ranges of trade ids of `gaps`."""
    return [(gap.first_id, gap.last_id) for gap in gaps]


@dataclass
class Result:
    """The result of an audit: for the log, the metrics and the tests."""

    audited: int = 0
    differences: list[str] = field(default_factory=list)  # ids
    # Ids, and why they are inconclusive; or a symbol for which no time was left.
    pending: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # of the archive
    failures: list[str] = field(default_factory=list)  # symbols that could not be audited, and why

    @property
    def why(self) -> str | None:
        """What is wrong; None if nothing is."""
        if self.differences:
            found = ", ".join(self.differences[:3])
            return f"{len(self.differences)} of {self.audited} predictions are not what bronze says: {found}"
        if self.failures:
            return "; ".join(self.failures)
        if self.pending and not self.audited:
            id_, why = next(iter(self.pending.items()))
            return f"none of {len(self.pending)} predictions could be audited; {id_}: {why}"
        return None


@dataclass
class AuditPredictions:
    settings: AuditPredictionsSettings
    client: redis.Redis
    s3: Any
    database: Database
    clock_ms: Callable[[], float]

    def __post_init__(self) -> None:
        self._store = HotStore(self.client, self.settings.lateness_us)
        self._auditor = Auditor(self.s3, self.settings.bucket)
        self._symbols = SymbolSet(self.settings.symbols)

    def __call__(self, remaining_ms: Callable[[], float]) -> Result:
        """Audit a sample of every symbol, for as long as `remaining_ms` allows. Raises what Redis and S3
        raise; any other exception is entered as a failure of its symbol."""
        now_ms, result = self.clock_ms(), Result()
        slices = sample_slices(now_ms, self.settings.audit_every_ms, self.settings.audit_sample)
        from_us = slices[0][0] * 1000 - LOOK_BACK_US - SILENCE_US
        bronze = self._auditor.reader(from_us, slices[-1][1] * 1000)
        for n, symbol in enumerate(self._in_turn(now_ms)):
            if n and remaining_ms() < _RESERVE_MS:
                result.pending[symbol] = "no time was left: it has an earlier turn in the next runs"
                continue
            with _as_failure_of(symbol, result):
                self._audit(symbol, slices, now_ms, bronze, result)
        self._check_archive(now_ms, bronze, result)
        self._check_database()
        heartbeat = AuditHeartbeat(
            at_ms=self._now_ms(),
            ok=result.why is None,
            why=result.why,
            audited=result.audited,
            differences=len(result.differences),
            pending=len(result.pending),
        )
        self._store.put_heartbeat(SERVICE, heartbeat)
        return result

    def _in_turn(self, now_ms: float) -> Sequence[str]:
        """All symbols, in every run another one first."""
        symbols = self._symbols.read(self._store)
        first = round(now_ms) // self.settings.audit_every_ms % max(len(symbols), 1)
        return [*symbols[first:], *symbols[:first]]

    def _audit(
        self,
        symbol: str,
        slices: list[tuple[int, int]],
        now_ms: float,
        bronze: BronzeReader,
        result: Result,
    ) -> None:
        from_ms, to_ms = slices[0][0] - LOOK_BACK_US // 1000, slices[-1][1] + LATE_UNTIL_MS
        receipts = self._receipts(symbol, from_ms, min(to_ms, round(now_ms)))
        late = [each for _, data in receipts if (each := readable(LateTicks, data))]
        ledger = self._store.gaps([symbol])[symbol]
        missing = missing_ids(ledger.gaps if ledger else ())
        for start_ms, end_ms in slices:
            of_slice = [each for each in receipts if start_ms <= keys.entry_ms(each[0]) < end_ms]
            # Those in between are kept for minutes only; what was late is listed by the others.
            of_slice += self._store.recent_receipts(symbol, start_ms, end_ms - 1, 1)
            for entry, data in sorted(of_slice, key=lambda each: keys.entry_ms(each[0]))[:1]:
                try:
                    receipt = _whole_receipt(data)
                except ValueError as error:
                    result.pending[f"{symbol}-{keys.entry_ms(entry)}"] = _unreadable(error)
                else:
                    self._enter(receipt, self._auditor(receipt, late, missing, bronze), result)

    def _receipts(self, symbol: str, from_ms: int, to_ms: int) -> Entries:
        """Receipts as they are stored, oldest first."""
        receipts: Entries = []
        while page := self._store.receipts(symbol, from_ms, to_ms, _PAGE):
            receipts += page
            to_ms = keys.entry_ms(page[-1][0]) - 1
        return receipts[::-1]

    def _enter(self, receipt: Prediction, audit: Audit, result: Result) -> None:
        reproduction = audit.reproduction
        if reproduction.same is None:
            result.pending[receipt.id] = "; ".join([*reproduction.unproven, *reproduction.caveats])
            return
        result.audited += 1
        if reproduction.same:
            return
        result.differences.append(receipt.id)
        difference = Difference(
            id=receipt.id,
            audited_ms=self._now_ms(),
            differences=reproduction.differences,
            receipt=receipt,
            bronze=[each.key for each in audit.objects],
        )
        self.s3.put_object(
            Bucket=self.settings.bucket,
            Key=f"audit/differences/{receipt.id}.json",
            Body=msgspec.json.format(encode(difference)),
            ContentType="application/json",
        )

    def _check_archive(self, now_ms: float, bronze: BronzeReader, result: Result) -> None:
        """The archive's heartbeat: whether bronze keeps up with the hot path."""
        now_us = round(now_ms) * 1000
        newest_us: dict[str, int | None] = {}
        objects = 0
        for symbol in self._symbols.symbols:
            reach = bronze.reach(symbol, now_us - HOUR_US, now_us)
            objects += reach.objects
            newest_us[symbol] = reach.newest_us
            with _as_failure_of(symbol, result):
                for prediction in self._store.history(symbol, 1):
                    seen_ms = prediction.timestamp - (prediction.feature_age_ms or 0)
                    archived_us = reach.newest_us or prediction.history_from_us or 0
                    if (behind_ms := seen_ms - archived_us // 1000) > BEHIND_MS:
                        result.problems.append(
                            f"{symbol}: bronze is {behind_ms // 1000} s behind the hot path"
                        )
        why = "; ".join(result.problems) or None
        heartbeat = ArchiveHeartbeat(
            at_ms=self._now_ms(), ok=why is None, why=why, newest_us=newest_us, objects=objects
        )
        self._store.put_heartbeat(ARCHIVE, heartbeat)

    def _check_database(self) -> None:
        why = None
        try:
            self.database.ping()
        except psycopg.Error as error:
            why = f"does not answer ({type(error).__name__})"
        self._store.put_heartbeat(POSTGRES, Heartbeat(at_ms=self._now_ms(), ok=why is None, why=why))

    def _now_ms(self) -> int:
        return round(self.clock_ms())


@contextmanager
def _as_failure_of(symbol: str, result: Result) -> Iterator[None]:
    """Enter an exception as a failure of `symbol`; one of Redis or S3 is raised, as it concerns all
    symbols."""
    try:
        yield
    except (redis.RedisError, BotoCoreError, ClientError):
        raise
    except Exception as error:
        result.failures.append(f"{symbol}: {describe(error)}")


def sample_slices(now_ms: float, every_ms: int, sample: int) -> list[tuple[int, int]]:
    """`sample` slices of time (from, to), ms: the first prediction in each is audited. The last is the newest
    minute that is old enough, in which those between the seconds are still kept. The others are of the newest
    whole period that is; their start shifts from period to period, by up to half a slice, and depends on time
    alone."""
    newest_ms = round(now_ms) - OLD_ENOUGH_MS
    period = newest_ms // every_ms - 1
    slice_ms = every_ms // sample
    shift_ms = period * _SHIFT_MS % max(1, slice_ms // 2)
    starts = [period * every_ms + n * slice_ms for n in range(sample - 1)]
    slices = [(start + shift_ms, start + slice_ms) for start in starts]
    return [*slices, (newest_ms - MINUTE_MS, newest_ms)]
