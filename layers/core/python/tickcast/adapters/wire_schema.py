"""Where each version's wire schema is kept: whoever writes batches publishes its own before the first."""

from __future__ import annotations

import json
from typing import Any

from tickcast import wire


def schema_key(fingerprint: bytes) -> str:
    return f"schemas/{fingerprint.hex()}.avsc"


def publish(s3: Any, bucket: str) -> None:
    """Store this code's schema, so that readers of another version can read what it writes."""
    body = json.dumps(wire.SCHEMA, indent=1, allow_nan=False).encode()
    s3.put_object(Bucket=bucket, Key=schema_key(wire.FINGERPRINT), Body=body, ContentType="application/json")
