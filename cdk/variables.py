"""From an environment's configuration to the environment variables that its processes read."""

from __future__ import annotations

from collections.abc import Mapping

from cdk.config import Environment, IngestConfig
from tickcast.adapters.settings import Settings
from tickcast.adapters.variables import names

# What Lambda sets by itself, and what ECS injects from the secret.
FROM_OUTSIDE = {"AWS_REGION", "BINANCE_API_KEY"}


def variables(environment: Environment, *, bucket: str, stream: str) -> dict[str, str]:
    """The value of every variable that the configuration decides.

    The rest is a process's own: its name (POWERTOOLS_SERVICE_NAME), and where the stores are and as whom to
    enter (REDIS_…, DATABASE_…), which the grants add.
    """
    prediction, audit, tables = environment.prediction, environment.audit, environment.tables
    drift, history = environment.drift, environment.history
    ingest = environment.aws.ingest if environment.aws else IngestConfig()
    return {
        "ENVIRONMENT": environment.name,
        "LOG_LEVEL": environment.log_level,
        "POWERTOOLS_METRICS_NAMESPACE": environment.metrics_namespace,
        "BUCKET": bucket,
        "SYMBOLS": ",".join(environment.symbols),
        "LATENESS_MS": str(prediction.lateness_ms),
        "STALE_AFTER_S": str(prediction.stale_after_s),
        "PRIMARY_HORIZON_S": str(prediction.primary_horizon_s),
        "FEATURES_TTL_S": str(prediction.features_ttl_s),
        "FEE_BP": str(prediction.fee_bp),
        "MIN_CONFIDENCE": str(prediction.min_confidence),
        "AUDIT_EVERY_MINUTES": str(audit.every_minutes),
        "AUDIT_SAMPLE": str(audit.sample),
        "KEEP_DAYS": str(tables.keep_days or 0),
        "GRID_MS": str(tables.grid_ms),
        "QUOTED_GRID_MS": str(tables.quoted_grid_ms),
        "DATABASE_STATEMENT_TIMEOUT_S": str(tables.statement_timeout_s),
        "DRIFT_WINDOW_HOURS": str(drift.window_hours),
        "DRIFT_MIN_SCORED": str(drift.min_scored),
        "DRIFT_STABILITY_HIGH": str(drift.stability_high),
        "DRIFT_STABILITY_LOW": str(drift.stability_low),
        "DRIFT_RAISE_AFTER": str(drift.raise_after),
        "DRIFT_COOL_DOWN_HOURS": str(drift.cool_down_hours),
        "HISTORY_DAYS": str(history.days),
        "TRAIN_DAYS": str(history.train_days or 0),
        "REST_URL": history.rest_url,
        "STREAM_NAME": stream,
        "STREAM_URL": ingest.stream_url,
        "BUSY_SYMBOL": ingest.busy_symbol,
        "LINGER_MS": str(ingest.linger_ms),
        "ROLLOVER_S": str(ingest.rollover_s),
        "HEALTH_PORT": str(ingest.health_port),
        "PROTOCOL": "sbe",
        "SOURCE": "sbe",
    }


def chosen(settings: type[Settings], values: Mapping[str, str]) -> dict[str, str]:
    """Those of `values` that a process with these `settings` reads."""
    return {name: values[name] for name in names(settings) if name in values}
