"""Rows of history → a trained model with its card; or the checks and the card of an imported one."""

from datetime import UTC, datetime
from typing import Any

import boto3
import msgspec

from tickcast.adapters import json_text
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.settings import TrainModelSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.functions.import_model import import_model
from tickcast.functions.refit_model import refit_model
from tickcast.functions.train_model import train_model
from tickcast.model.training import TrainingError

logger = structured_logger()
s3 = boto3.client("s3")
settings = read(TrainModelSettings)
database = Database(settings.database)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        now, connection = datetime.now(UTC), database.connection()
        if event.keys() == {"import"}:
            imported = import_model(event["import"], s3, settings.bucket, now, connection)
            logger.info("model imported", extra={name: imported[name] for name in ("model_id", "why")})
            return dict(json_text.finite(imported))
        if event.keys() == {"refit"}:
            trained = refit_model(str(event["refit"]), s3, settings.bucket, now, connection)
        else:
            trained = train_model(event, s3, settings.bucket, now, connection)
    except TrainingError as error:
        logger.warning("nothing trained", extra={"why": str(error)})
        about = {"model_id": None, "promoted": False, "rows": 0, "why": str(error)}
        return about | ({"refit_of": event["refit"]} if "refit" in event else {})
    fields = {"model_id": trained.model_id, "why": trained.why, "test": trained.card.get("test")}
    logger.info("model trained", extra=fields)
    return dict(json_text.finite(msgspec.to_builtins(trained)))
