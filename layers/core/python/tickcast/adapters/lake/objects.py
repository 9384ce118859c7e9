"""The lake's objects, by S3's listings. Nothing here needs more than the client that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple


class StoredObject(NamedTuple):
    key: str
    etag: str  # without quotation marks
    modified: datetime


class StoredBytes(NamedTuple):
    """An object's content, and the version it is."""

    data: bytes
    etag: str  # without quotation marks


GONE = ("NoSuchKey", "404")  # the error codes of an object that does not exist


class LazyBucket:
    """A bucket whose S3 client `connect` gives when it is first needed: most requests to the API need none.
    (Nor is botocore imported before: that is most of a cold start.) Raises what S3 raises."""

    def __init__(self, connect: Callable[[], Any], name: str) -> None:
        self._connect = connect
        self._name = name

    def connect(self) -> None:
        """Make the client now, such as before there are several threads."""
        self._connect()

    def get(self, key: str) -> StoredBytes | None:
        """The object; None where there is none."""
        from botocore.exceptions import ClientError

        try:
            answer = self._connect().get_object(Bucket=self._name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                return None
            raise
        return StoredBytes(bytes(answer["Body"].read()), answer["ETag"].strip('"'))

    def put_gzip(self, key: str, body: bytes, **condition: str) -> None:
        """Write an object of gzip-compressed content, if S3 finds the `condition` to hold."""
        content_type = "application/gzip"
        self._connect().put_object(
            Bucket=self._name, Key=key, Body=body, ContentType=content_type, **condition
        )

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """As `list_objects`."""
        return list_objects(self._connect(), self._name, prefix)


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
