"""The reports on the condition of the data in the lake, one object for each symbol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tickcast.adapters import json_text
from tickcast.market.condition import ConditionReport


def report_key(symbol: str) -> str:
    return f"condition/symbol={symbol}.json"


def read_report(s3: Any, bucket: str, symbol: str) -> ConditionReport | None:
    """The newest report on `symbol`; None where there is none. Raises ValueError where it cannot be read."""
    try:
        stored = s3.get_object(Bucket=bucket, Key=report_key(symbol))
    except s3.exceptions.NoSuchKey:
        return None
    return msgspec.convert(json_text.read(stored["Body"].read()), ConditionReport)


def put_report(s3: Any, bucket: str, report: ConditionReport) -> None:
    """Replace the report on its symbol."""
    text = json_text.strict(msgspec.to_builtins(report))
    s3.put_object(
        Bucket=bucket, Key=report_key(report.symbol), Body=text.encode(), ContentType="application/json"
    )


class ConditionReports:
    """The newest report of each symbol, for the API. `connect` gives the S3 client, which is made when it is
    first needed: few requests are for reports."""

    def __init__(self, connect: Callable[[], Any], bucket: str) -> None:
        self._connect = connect
        self._bucket = bucket

    def __call__(self, symbol: str) -> ConditionReport | None:
        """As `read_report`. Raises ConnectionError where S3 does not answer."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return read_report(self._connect(), self._bucket, symbol)
        except (BotoCoreError, ClientError) as error:
            raise ConnectionError(f"S3 does not answer ({type(error).__name__})") from None
