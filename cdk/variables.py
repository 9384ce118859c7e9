"""From an environment's configuration to the environment variables that its processes read."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import asdict

from cdk.config import Environment, IngestConfig
from tickcast.adapters.settings import Settings
from tickcast.adapters.variables import names

# What Lambda sets by itself, and what ECS injects from the secret.
FROM_OUTSIDE = {"AWS_REGION", "BINANCE_API_KEY"}


def variables(environment: Environment, *, bucket: str, stream: str) -> dict[str, str]:
    """The value of every variable that the configuration decides.

    The others differ by process: its name (POWERTOOLS_SERVICE_NAME), and where the stores are and as which
    user to connect (REDIS_…, DATABASE_…), which the grants add.
    """
    history, tables = environment.history, environment.tables
    ingest = environment.aws.ingest if environment.aws else IngestConfig()
    return {
        "ENVIRONMENT": environment.name,
        "LOG_LEVEL": environment.log_level,
        "POWERTOOLS_METRICS_NAMESPACE": environment.metrics_namespace,
        "BUCKET": bucket,
        "SYMBOLS": ",".join(environment.symbols),
        "SYMBOLS_CHECK_S": str(environment.symbols_check_s),
        **_of(environment.prediction),
        **_of(environment.audit, "AUDIT_"),
        **_of(environment.condition, "CONDITION_"),
        **_of(environment.drift, "DRIFT_"),
        **_of(environment.receipts, "RECEIPTS_"),
        **_of(tables),
        "DATABASE_STATEMENT_TIMEOUT_S": str(tables.statement_timeout_s),
        "HISTORY_DAYS": str(history.days),
        "TRAIN_DAYS": str(history.train_days or 0),
        "REST_URL": history.rest_url,
        "SIGNALS": environment.signals_text,
        "STREAM_NAME": stream,
        "AUTHORISATION": environment.api.authorisation,
        **_of(ingest),
        "REFERENCE_URL": ingest.reference_url if ingest.reference else "",
        # In an account the secret decides, when the task starts: it holds a key or says that there is none.
        "PROTOCOL": "auto" if environment.aws else "sbe",
        "SOURCE": "sbe",
    }


def _of(part: Struct, prefix: str = "") -> dict[str, str]:
    """The fields of a part of the configuration as variables; null is 0."""
    return {
        f"{prefix}{name.upper()}": str(0 if value is None else value) for name, value in asdict(part).items()
    }


def chosen(settings: type[Settings], values: Mapping[str, str]) -> dict[str, str]:
    """Those of `values` that a process with these `settings` reads."""
    return {name: values[name] for name in names(settings) if name in values}
