"""Where each version's wire schema is kept: whoever writes batches publishes its own before the first."""

from __future__ import annotations

from typing import Any

from tickcast.adapters import json_text
from tickcast.market import wire


def schema_key(fingerprint: bytes) -> str:
    return f"schemas/{fingerprint.hex()}.avsc"


def publish(s3: Any, bucket: str) -> None:
    """Store this code's schema, so that readers of another version can read what it writes."""
    body = json_text.strict(wire.SCHEMA, indent=1).encode()
    s3.put_object(Bucket=bucket, Key=schema_key(wire.FINGERPRINT), Body=body, ContentType="application/json")
