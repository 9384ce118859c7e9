"""The auditor: a sample of what was predicted, made again from bronze every few minutes.

A prediction is audited once it is old enough for the archive to have written its ticks. What cannot be told,
because bronze does not reach so far yet or because of one of the doubts of `serving.reproduce`, is pending
and counted as such; a difference is kept in S3 for study, and is an alarm.

Beside its own it writes the heartbeats of those who cannot: of the archive, from what bronze has, and of
PostgreSQL, from whether it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import redis
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters import json_text
from tickcast.adapters.lake.bronze import BronzeError, StreamPart
from tickcast.adapters.lake.bronze_reader import BronzeReader, Reach
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis.hot_store import HEARTBEAT_TTL_S, HotStore
from tickcast.adapters.registry import model_watcher
from tickcast.adapters.settings import AuditPredictionsSettings
from tickcast.features.bars import SILENCE_US
from tickcast.serving.prediction import Record, ServingModel
from tickcast.serving.reproduce import (
    LOOK_BACK_US,
    Evidence,
    ReceiptError,
    Verdict,
    judge,
    look_back_us,
)
from tickcast.units import HOUR_US

SERVICE = "audit_predictions"
ARCHIVE = "archive_ticks"
POSTGRES = "postgres"
OLD_ENOUGH_MS = 180_000  # the archive collects for a minute, and may have to try again
LATE_UNTIL_MS = 120_000  # receipts so long after tell of ticks that came late
BEHIND_MS = 300_000  # the archive is behind if it lacks what the hot path had so long ago
MODELS_KEPT = 4  # champion and challenger, and both from before a promotion
_PAGE = 200  # receipts in one answer: Redis serves the hot path meanwhile
_DRIFT_MS = 7919  # prime: over time every second of the minute is sampled


@dataclass(frozen=True)
class Proof:
    """A verdict and the objects of bronze it stands on."""

    verdict: Verdict
    parts: tuple[StreamPart, ...] = ()


class Prover:
    """Compares receipts with bronze and the models in S3, of which the `MODELS_KEPT` last needed are kept."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._models: dict[str, ServingModel] = {}

    def reader(self, from_us: int = 0, to_us: int = 2**63) -> BronzeReader:
        """A reader of bronze as it is now, for receipts whose ticks lie between the two."""
        return BronzeReader(self._s3, self._bucket, from_us, to_us)

    def __call__(
        self, receipt: Record, receipts: list[Record], missing: list[tuple[int, int]], bronze: BronzeReader
    ) -> Proof:
        """The proof of `receipt`; `receipts` are those around it, `missing` trade ids the hot path lacks."""
        try:
            from_us, end_us = look_back_us(receipt)
            if from_us == receipt["history_from_us"]:  # what was before tells why it begins there
                from_us -= SILENCE_US
            # Who came after it proves that all before it are there; in a quiet market that may be long after.
            reach = bronze.reach(receipt["symbol"], from_us, end_us + HOUR_US)
            if reach.last_sequence < int(receipt["sequence"]):
                return Proof(Verdict(receipt["id"], unproven=(_not_yet(reach),)))
            needed = bronze.parts(receipt["symbol"], from_us, end_us)
            evidence = Evidence(*bronze.ticks(receipt["symbol"], needed), receipts, missing)
            models = (self._model(id_) for id_ in _models_named(receipt))
            return Proof(judge(receipt, evidence, *models), tuple(needed))
        except (ReceiptError, BronzeError) as error:
            return Proof(Verdict(str(receipt.get("id")), unproven=(str(error),)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"the receipt cannot be read: {describe(error)}"
            return Proof(Verdict(str(receipt.get("id")), unproven=(why,)))

    def _model(self, model_id: str | None) -> ServingModel | None:
        """The model in S3; None where there is none of that name, or it does not fit this code."""
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


def _models_named(receipt: Record) -> tuple[str | None, str | None]:
    challenger = receipt["challenger"]
    return receipt["model_id"], challenger["model_id"] if challenger else None


def _not_yet(reach: Reach) -> str:
    newest_us = reach.newest_us
    reached = (
        f"{datetime.fromtimestamp(newest_us / 1e6, UTC):%H:%M:%S} UTC" if newest_us else "nothing of its hour"
    )
    return f"bronze does not hold all its ticks yet (newest: {reached}): the archive writes every minute"


def missing_ids(ledger: Record | None) -> list[tuple[int, int]]:
    """The ranges of trade ids that a gap ledger says never reached the hot path."""
    return [(gap["first_id"], gap["last_id"]) for gap in (ledger or {}).get("gaps", [])]


@dataclass
class Result:
    """What an audit came to: for the log, the metrics and the tests."""

    audited: int = 0
    differences: list[str] = field(default_factory=list)  # ids
    pending: dict[str, str] = field(default_factory=dict)  # ids, and why they could not be told
    problems: list[str] = field(default_factory=list)  # of the archive
    failures: list[str] = field(default_factory=list)  # symbols that could not be looked at, and why

    @property
    def why(self) -> str | None:
        """What is wrong; None while all is well."""
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
        self._prover = Prover(self.s3, self.settings.bucket)

    def __call__(self) -> Result:
        """Audit a sample of every symbol. Raises what Redis and S3 raise; what else raises on a symbol is
        that symbol's problem."""
        now_ms, result = self.clock_ms(), Result()
        slices = sample_slices(now_ms, self.settings.audit_every_ms, self.settings.audit_sample)
        from_us = slices[0][0] * 1000 - LOOK_BACK_US - SILENCE_US
        bronze = self._prover.reader(from_us, slices[-1][1] * 1000)
        for symbol in self.settings.symbols:
            with _only_of(symbol, result):
                self._audit(symbol, slices, now_ms, bronze, result)
        self._look_at_archive(now_ms, bronze, result)
        self._look_at_database()
        self._beat(
            SERVICE,
            result.why,
            audited=result.audited,
            differences=len(result.differences),
            pending=len(result.pending),
        )
        return result

    def _audit(
        self,
        symbol: str,
        slices: list[tuple[int, int]],
        now_ms: float,
        bronze: BronzeReader,
        result: Result,
    ) -> None:
        from_ms, to_ms = slices[0][0] - LOOK_BACK_US // 1000, slices[-1][1] + LATE_UNTIL_MS
        receipts = list(self._receipts(symbol, from_ms, min(to_ms, round(now_ms))))
        missing = missing_ids(self._store.gaps([symbol])[symbol])
        for start_ms, end_ms in slices:
            of_slice = [each for each in receipts if start_ms <= each["timestamp"] < end_ms]
            if of_slice:
                receipt = of_slice[0]
                self._enter(receipt, self._prover(receipt, receipts, missing, bronze), result)

    def _receipts(self, symbol: str, from_ms: int, to_ms: int) -> Iterator[Record]:
        """Receipts, oldest first."""
        pages = []
        while page := self._store.predictions(symbol, from_ms, to_ms, _PAGE):
            pages.append(page)
            to_ms = page[-1]["timestamp"] - 1
        return (receipt for page in reversed(pages) for receipt in reversed(page))

    def _enter(self, receipt: Record, proof: Proof, result: Result) -> None:
        verdict = proof.verdict
        if verdict.same is None:
            result.pending[verdict.id] = "; ".join([*verdict.unproven, *verdict.doubts])
            return
        result.audited += 1
        if not verdict.same:
            result.differences.append(verdict.id)
            self._keep(receipt, proof)

    def _keep(self, receipt: Record, proof: Proof) -> None:
        """All that is known of a difference, for study."""
        study = {
            "id": proof.verdict.id,
            "audited_ms": round(self.clock_ms()),
            "differences": [asdict(each) for each in proof.verdict.differences],
            "receipt": receipt,
            "bronze": [part.key for part in proof.parts],
        }
        self.s3.put_object(
            Bucket=self.settings.bucket,
            Key=f"audit/differences/{proof.verdict.id}.json",
            Body=json_text.text(study, indent=2).encode(),
            ContentType="application/json",
        )

    def _look_at_archive(self, now_ms: float, bronze: BronzeReader, result: Result) -> None:
        """The archive's heartbeat: whether bronze keeps up with the hot path."""
        now_us = round(now_ms) * 1000
        newest_us: dict[str, int | None] = {}
        objects = 0
        for symbol in self.settings.symbols:
            reach = bronze.reach(symbol, now_us - HOUR_US, now_us)
            objects += reach.objects
            newest_us[symbol] = reach.newest_us
            with _only_of(symbol, result):
                for prediction in self._store.history(symbol, 1):
                    seen_ms = prediction["timestamp"] - prediction["feature_age_ms"]
                    archived_us = reach.newest_us or prediction["history_from_us"]
                    if (behind_ms := seen_ms - archived_us // 1000) > BEHIND_MS:
                        result.problems.append(
                            f"{symbol}: bronze is {behind_ms // 1000} s behind the hot path"
                        )
        why = "; ".join(result.problems) or None
        self._beat(ARCHIVE, why, newest_us=newest_us, objects=objects)

    def _look_at_database(self) -> None:
        why = None
        try:
            self.database.ping()
        except psycopg.Error as error:
            why = f"does not answer ({type(error).__name__})"
        self._beat(POSTGRES, why)

    def _beat(self, service: str, why: str | None, **about: Any) -> None:
        beat = {"at_ms": round(self.clock_ms()), "ok": why is None, "why": why, **about}
        self.client.set(f"heartbeat:{service}", json_text.text(beat), ex=HEARTBEAT_TTL_S)


@contextmanager
def _only_of(symbol: str, result: Result) -> Iterator[None]:
    """What raises in here is entered as a failure of `symbol`; but where a store is out of reach, nothing can
    be done for the others either."""
    try:
        yield
    except (redis.RedisError, BotoCoreError, ClientError):
        raise
    except Exception as error:
        result.failures.append(f"{symbol}: {describe(error)}")


def sample_slices(now_ms: float, every_ms: int, sample: int) -> list[tuple[int, int]]:
    """`sample` slices (from, to) of the newest whole period that is old enough, ms: the first prediction in
    each is audited. Where they begin moves with the periods, by up to half a slice, and depends on nothing
    else."""
    period = (round(now_ms) - OLD_ENOUGH_MS) // every_ms - 1
    slice_ms = every_ms // sample
    drift_ms = period * _DRIFT_MS % max(1, slice_ms // 2)
    starts = [period * every_ms + n * slice_ms for n in range(sample)]
    return [(start + drift_ms, start + slice_ms) for start in starts]
