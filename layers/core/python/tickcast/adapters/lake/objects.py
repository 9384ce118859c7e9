"""The lake's objects, by S3's listings. Nothing here needs more than the client that is given."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple


class StoredObject(NamedTuple):
    key: str
    etag: str  # without quotation marks
    modified: datetime


def list_objects(s3: Any, bucket: str, prefix: str) -> Iterator[StoredObject]:
    """All objects under `prefix`, by key; pages are fetched as they are needed."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            yield StoredObject(item["Key"], item["ETag"].strip('"'), item["LastModified"])


def list_folders(s3: Any, bucket: str, prefix: str) -> list[str]:
    """What follows `prefix` up to the next "/", of all keys that begin with it: each once, in order."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    found = (each["Prefix"] for page in pages for each in page.get("CommonPrefixes", []))
    return [folder.removeprefix(prefix).strip("/") for folder in found]


def first_key(s3: Any, bucket: str, prefix: str) -> str | None:
    """The first key under `prefix`; None where there is none."""
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", [])
    return str(found[0]["Key"]) if found else None
