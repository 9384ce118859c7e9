"""The symbols that are served, at run time: the object `symbols/current.json` in the lake's bucket, and what
the hot store says of it.

While the object does not exist, the configured symbols (SYMBOLS) are served; once it exists, it takes
precedence. It is changed by conditional write only: if it has changed since it was read, the change is
repeated on the new one (docs/adr/0040-symbols-change-at-run-time.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError
from msgspec import Struct

from tickcast.adapters import json_text
from tickcast.market.symbols import is_symbol

SERVED = "symbols/current.json"
_ATTEMPTS = 5
# 409: another conditional write was under way; 404: the object that was to be matched is gone.
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404")
_NOT_MODIFIED = ("304", "NotModified")

Change = Callable[[tuple[str, ...]], Sequence[str]]  # the symbols to serve, given those served now


class SymbolsError(RuntimeError):
    """The object is damaged, or the change would make it so; the message says what to do."""


class SymbolsRace(RuntimeError):
    """Others changed the object each time between reading and writing it: to be tried again."""


class ServedSymbols(Struct, frozen=True, kw_only=True):
    """The symbols served, in order. Each change raises `version` by one; 0: the configured ones, there is no
    object."""

    symbols: tuple[str, ...]
    version: int = 0
    since: str | None = None  # ISO 8601
    by: str | None = None  # who changed them


def served_from(document: Any) -> ServedSymbols:
    """The served symbols in JSON values. Raises ValueError naming what is wrong; `since` and `by`, which
    nothing depends on, are left out where they cannot be read."""
    if not isinstance(document, dict):
        raise ValueError(f"it is {str(document)[:40]}, it should be a JSON object")
    version = document.get("version")
    if type(version) is not int or version < 0:
        raise ValueError(f"version is {str(version)[:40]}, it should be a whole number")
    named = document.get("symbols")
    if not isinstance(named, list) or not named:
        raise ValueError(f"symbols is {str(named)[:40]}, it should be a list of at least one symbol")
    for symbol in named:
        if not isinstance(symbol, str) or not is_symbol(symbol):
            raise ValueError(f"symbols has {str(symbol)[:40]!r} in it, which is no symbol like BTCUSDT")
    if len(set(named)) < len(named):
        twice = next(symbol for symbol in named if named.count(symbol) > 1)
        raise ValueError(f"symbols has {twice} in it more than once")
    since, by = (
        value if isinstance(value, str) else None for value in (document.get("since"), document.get("by"))
    )
    return ServedSymbols(symbols=tuple(named), version=version, since=since, by=by)


def read_served(s3: Any, bucket: str) -> ServedSymbols | None:
    """What the object says; None where there is none, and the configured symbols are served. Raises
    `SymbolsError` on a damaged one, and what S3 raises."""
    return _read(s3, bucket)[0]


def served_or(s3: Any, bucket: str, configured: Sequence[str]) -> tuple[str, ...]:
    """The symbols served now. Raises as `read_served`."""
    served = read_served(s3, bucket)
    return served.symbols if served else tuple(configured)


def change_served(
    s3: Any, bucket: str, configured: Sequence[str], change: Change, *, since: str, by: str
) -> ServedSymbols:
    """Serve what `change` makes of the symbols served now; without an object these are the `configured` ones.

    Where `change` changes nothing, nothing is written. A race may be lost to oneself, when the response to a
    write was lost and the client sent it again: then the object is the one that was written, and `change` is
    not asked again, which may refuse what is served already. Raises
    `SymbolsRace` after five lost races, `SymbolsError` where the result cannot be served, and what `change`
    raises.
    """
    written: list[ServedSymbols] = []
    for _ in range(_ATTEMPTS):
        found, etag = _read(s3, bucket)
        if found and found in written:
            return found
        served = found or ServedSymbols(symbols=tuple(configured))
        symbols = tuple(change(served.symbols))
        if symbols == served.symbols:
            return served
        document = {"version": served.version + 1, "symbols": list(symbols), "since": since, "by": by}
        try:
            changed = served_from(document)
        except ValueError as error:
            raise SymbolsError(f"the symbols cannot be served: {error}") from None
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        body = json_text.strict(document).encode()
        try:
            s3.put_object(Bucket=bucket, Key=SERVED, Body=body, ContentType="application/json", **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                written.append(changed)
                continue
            raise
        return changed
    raise SymbolsRace(f"{SERVED} was changed by others {_ATTEMPTS} times in a row: try again")


def adding(symbols: Sequence[str]) -> Change:
    """The change that adds `symbols`, at the end; those served already stay where they are."""
    return lambda served: tuple(dict.fromkeys((*served, *symbols)))


def removing(symbols: Sequence[str]) -> Change:
    """The change that removes `symbols`."""
    return lambda served: tuple(symbol for symbol in served if symbol not in symbols)


def hot_text(served: ServedSymbols) -> str:
    """What `predict_stream` writes to the hot store's key `symbols`, and `redis.symbol_set` reads."""
    found = {"version": served.version, "symbols": served.symbols, "since": served.since}
    return json_text.strict(found)


def hot_served(text: str | bytes | None) -> ServedSymbols | None:
    """What the hot store's key `symbols` says, given its `text`; None where it is absent or cannot be
    read."""
    try:
        return None if text is None else served_from(json_text.read(text))
    except ValueError:
        return None


class SymbolsWatcher:
    """The served symbols, read again by the object's entity tag: `refresh` is to be called every few seconds,
    from one thread at a time, and `served` may be read from any.

    Where the object is damaged or S3 does not answer, the symbols before it continue to be served, and
    `problem` says why.
    """

    def __init__(self, s3: Any, bucket: str, configured: Sequence[str]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._configured = ServedSymbols(symbols=tuple(configured))
        self._etag = ""  # of the newest object read, whether it was sound or not
        self.served = self._configured
        self.problem: str | None = None  # of the newest object read

    def refresh(self) -> ServedSymbols:
        """Read the object if it has changed. Raises what S3 raises where it is out of reach."""
        condition = {"IfNoneMatch": self._etag} if self._etag else {}
        try:
            stored = self._s3.get_object(Bucket=self._bucket, Key=SERVED, **condition)
        except self._s3.exceptions.NoSuchKey:
            self.served, self.problem, self._etag = self._configured, None, ""
            return self.served
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_MODIFIED:
                raise
            return self.served
        if stored["ETag"] == self._etag:
            return self.served
        try:
            self.served, self.problem = served_from(json_text.read(stored["Body"].read())), None
        except ValueError as error:
            self.problem = _damaged(error)
        self._etag = stored["ETag"]
        return self.served


def _read(s3: Any, bucket: str) -> tuple[ServedSymbols | None, str]:
    """What the object says, and its entity tag; None and an empty one where there is none."""
    try:
        stored = s3.get_object(Bucket=bucket, Key=SERVED)
    except s3.exceptions.NoSuchKey:
        return None, ""
    try:
        return served_from(json_text.read(stored["Body"].read())), str(stored["ETag"])
    except ValueError as error:
        raise SymbolsError(_damaged(error)) from None


def _damaged(error: ValueError) -> str:
    return f"{SERVED} is damaged ({error}): remove it, and `make symbols` changes the configured symbols"
