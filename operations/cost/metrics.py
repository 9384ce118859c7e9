"""Which custom metrics the processes emit, for CloudWatch bills each by the hour in which it has a value.

`tests/operations/cost/test_metrics.py` compares the names with the sources of the handlers and of ingest.
"""

from __future__ import annotations

from typing import NamedTuple

NIGHTLY = 1 / 24  # in one hour of a day
SELDOM = 1 / 100  # only when something is wrong


class Emitted(NamedTuple):
    """A metric of a process; `share` of the hours in which it has a value, `by_symbol`: one for each."""

    name: str
    share: float = 1
    by_symbol: bool = False


EMITTED: dict[str, tuple[Emitted, ...]] = {
    "predict_stream": (
        *(
            Emitted(name)
            for name in ("Predictions", "Fallbacks", "LatencyMs", "InferenceMs", "MissingTrades")
        ),
        *(Emitted(name) for name in ("LateTicks", "UnresolvedOutcomes")),
        *(Emitted(f"Fallbacks:{reason}", SELDOM) for reason in ("no_quotes", "warming_up", "no_model")),
        *(Emitted(f"Fallbacks:{reason}", SELDOM) for reason in ("model_refused", "outside_support")),
        *(Emitted(name, SELDOM) for name in ("ModelRefused", "ChallengerRefused", "Quarantined", "Fenced")),
        *(Emitted(name, SELDOM) for name in ("SymbolFailures", "StartedOver", "StoreFull", "StoreWentBack")),
    ),
    "score_predictions": tuple(
        Emitted(name, by_symbol=True)
        for name in (
            *("Scored", "Availability", "FallbackShare", "LiveSkill", "LiveSkillVsLinear"),
            *("Direction", "Coverage", "CalibrationError", "Drifting"),
        )
    ),
    "audit_predictions": tuple(
        Emitted(name) for name in ("Audited", "AuditDifferences", "SymbolFailures", "AuditPending")
    ),
    "archive_ticks": (Emitted("ArchivedTicks"), Emitted("Quarantined")),
    "serve_predictions": (Emitted("FallbacksServed"), Emitted("ServerErrors")),
    "train_model": (Emitted("TrainedRows", NIGHTLY),),
    "evaluate_model": (Emitted("JudgedSeconds", NIGHTLY),),
    "promote_model": (Emitted("Promotions", NIGHTLY),),
    "load_history": tuple(
        Emitted(name, NIGHTLY) for name in ("LoadedTrades", "LoadedFeatureRows", "Quarantined")
    ),
    "fetch_history": tuple(
        Emitted(name, NIGHTLY) for name in ("RestRequests", "UsedWeight", "RateLimited", "RefusedRows")
    ),
    "mark_repaired": (Emitted("RepairedTrades", NIGHTLY),),
    "ingest": tuple(
        Emitted(name)
        for name in ("TicksIn", "RecordsPut", "PutFailures", "DroppedTicks", "BadFrames", "WaitingRecords")
    ),
}


def metric_months(symbols: int) -> float:
    """How many metrics are billed for a whole month."""
    return sum(
        each.share * (symbols if each.by_symbol else 1) for metrics in EMITTED.values() for each in metrics
    )
