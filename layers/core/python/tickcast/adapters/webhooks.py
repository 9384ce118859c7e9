"""Requests to receivers of signals, signed by the specification of Standard Webhooks (standardwebhooks.com).

A request carries `webhook-id` (the same in every attempt, for receivers to drop what they have),
`webhook-timestamp` (of the attempt, s) and `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over
`{id}.{timestamp}.{body}`. Redirects are not followed: the next address would get what is meant for this one.
No error names an address or a key: a Slack address and a Telegram token are secrets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import urllib3
from msgspec import Struct

from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.serving.signals import Template

_KEY_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)  # by the specification
_TELEGRAM = "https://api.telegram.org"
CONNECT_S, READ_S = 3.0, 5.0
ATTEMPT_S = CONNECT_S + READ_S
ATTEMPTS = 3
_FIRST_WAIT_S = 1.0
# Statuses that ask for another try: a timeout of the receiver's, too early, too many requests.
_AGAIN = (408, 425, 429)
_ANSWER_BYTES = 4096
MOST_WAIT_S = (
    900.0  # whatever a receiver asks for: Lambda gives an event up after that (cdk/components/signals.py)
)


class ReceiverError(ValueError):
    """A receiver's address or keys cannot be used; the message says what should be there, and no secret."""


class DeliveryFailed(RuntimeError):
    """No attempt succeeded. `is_final`: another would not either. `wait_s`: how long the receiver asked to be
    left alone; 0: it did not."""

    def __init__(self, why: str, *, is_final: bool, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.is_final, self.wait_s = is_final, wait_s


class Receiver(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a destination is, with its keys, as they are stored as a secret: JSON of these fields.

    `json` has an address and the key (`whsec_…`) that its signatures are made with, `slack` the address of an
    incoming webhook, `telegram` a bot's token and a chat (and an address, for a Bot API server of one's own).
    """

    url: str = ""
    key: str = ""
    token: str = ""
    chat: str = ""

    def __repr__(self) -> str:
        return "Receiver(***)"

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.url, urlsplit(self.url).path, self.key, self.token)))

    def address(self, template: Template) -> str:
        if template == "telegram":
            return f"{(self.url or _TELEGRAM).rstrip('/')}/bot{self.token}/sendMessage"
        return self.url


def receiver_of(data: str, template: Template, *, allows_loopback: bool = False) -> Receiver:
    """The receiver of a secret's text. `allows_loopback`: http is allowed to this machine. Raises
    `ReceiverError`."""
    try:
        found = msgspec.convert(json_text.read(data), Receiver)
    except (msgspec.ValidationError, json_text.JsonError):
        raise ReceiverError(
            'it should be JSON like {"url": "https://…", "key": "whsec_…"}, with texts as values and no keys '
            f"but {', '.join(Receiver.__struct_fields__)}"
        ) from None
    needed = {"json": ("url", "key"), "slack": ("url",), "telegram": ("token", "chat")}[template]
    for name in needed:
        if not getattr(found, name):
            raise ReceiverError(f"{name} is missing; a destination of the template {template} needs "
                                f"{' and '.join(needed)}")  # fmt: skip
    if found.url:
        _check_address(found.url, allows_loopback)
    if found.key:
        signing_key(found.key)
    if found.token and not all("!" <= each <= "~" and each not in "/?#" for each in found.token):
        raise ReceiverError("token should be as @BotFather gave it, like 123456:ABC-DEF")
    return found


def _check_address(url: str, allows_loopback: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    is_plain = all("!" <= each <= "~" for each in url) and "@" not in parts.netloc and not parts.fragment
    if not host or not is_plain:
        raise ReceiverError("url should be an address like https://host/path, without user or fragment")
    if parts.scheme == "https" or (parts.scheme == "http" and allows_loopback and _is_loopback(host)):
        return
    raise ReceiverError("url should begin with https://" +
                        (" (http:// only to this machine)" if allows_loopback else ""))  # fmt: skip


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def signing_key(text: str) -> bytes:
    """The key in `whsec_…`. Raises `ReceiverError`."""
    try:
        key = base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_KEY_PREFIX) or len(key) not in _KEY_BYTES:
        raise ReceiverError(
            f"key should be {_KEY_PREFIX} and the base64 of {_KEY_BYTES[0]} to {_KEY_BYTES[-1]} random "
            "bytes, such as of `openssl rand -base64 32`"
        )
    return key


def signature(key: bytes, id_: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{id_}.{timestamp_s}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def keep_out_of_logs() -> None:
    """At DEBUG urllib3 logs the path of each request, and botocore the parameters that it reads: secrets."""
    for name in ("urllib3", "botocore"):
        logging.getLogger(name).setLevel(logging.INFO)


@dataclass(frozen=True)
class Courier:
    """Delivers to receivers, with retries in between as long as there is time.

    `clock_ms` is the wall clock, `sleep` waits for seconds, `jitter` gives a factor from 0 to 1.
    """

    http: urllib3.PoolManager
    clock_ms: Callable[[], float]
    sleep: Callable[[float], None]
    jitter: Callable[[], float] = random.random

    def deliver(
        self,
        receiver: Receiver,
        template: Template,
        id_: str,
        make_body: Callable[[], dict[str, Any] | None],
        remaining_s: Callable[[], float],
    ) -> int:
        """Post what `make_body` makes for each attempt, until the receiver takes it. Returns the number of
        attempts; 0 if there was nothing to send (any more). Raises `DeliveryFailed`."""
        for attempt in range(1, ATTEMPTS + 1):
            body = make_body()
            if body is None:
                return 0
            try:
                self._post(receiver, template, id_, body)
                return attempt
            except DeliveryFailed as failure:
                wait_s = max(failure.wait_s, _FIRST_WAIT_S * 2 ** (attempt - 1) * (0.5 + self.jitter() / 2))
                has_time = wait_s + ATTEMPT_S < remaining_s()
                if failure.is_final or attempt == ATTEMPTS or not has_time:
                    raise
                self.sleep(wait_s)
        raise AssertionError("unreachable")

    def _post(self, receiver: Receiver, template: Template, id_: str, body: dict[str, Any]) -> None:
        data = json_text.text(body, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp_s = int(self.clock_ms() / 1000)
        headers = {
            "content-type": "application/json",
            "user-agent": "tickcast",
            "webhook-id": id_,
            "webhook-timestamp": str(timestamp_s),
        }
        if receiver.key:
            headers["webhook-signature"] = signature(signing_key(receiver.key), id_, timestamp_s, data)
        try:
            response = self.http.request(
                "POST",
                receiver.address(template),
                body=data,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _unreached(error, receiver) from None
        try:
            answer = response.read(_ANSWER_BYTES, decode_content=False) if response.status == 429 else b""
        except urllib3.exceptions.HTTPError:
            answer = b""
        finally:
            # Not kept: what is left of an answer would be taken for the next one's, and a connection ends
            # while Lambda freezes the process.
            response.close()
        if not 200 <= response.status < 300:
            raise self._refused(response.status, response.headers.get("retry-after"), answer)

    def _refused(self, status: int, retry_after: str | None, answer: bytes) -> DeliveryFailed:
        if 300 <= status < 400:
            return DeliveryFailed(
                f"it answers {status}, a redirect, which is not followed: set the address that it names",
                is_final=True,
            )
        wait_s = self._asked_to_wait_s(retry_after, answer)
        is_final = status < 500 and status not in _AGAIN
        return DeliveryFailed(f"it answers {status}", is_final=is_final, wait_s=wait_s)

    def _asked_to_wait_s(self, retry_after: str | None, answer: bytes) -> float:
        """By the header, in seconds or as a date; Telegram says so in its answer."""
        text = (retry_after or "").strip()
        try:
            if text.isdecimal():
                wait_s = float(text)
            elif text:
                at = parsedate_to_datetime(text)
                at = at if at.tzinfo else at.replace(tzinfo=UTC)
                now = datetime.fromtimestamp(self.clock_ms() / 1000, UTC)
                wait_s = (at - now).total_seconds()
            else:
                wait_s = float(json_text.read(answer)["parameters"]["retry_after"])
        except (ValueError, TypeError, KeyError, IndexError, OverflowError):
            return 0.0
        return min(max(wait_s, 0.0), MOST_WAIT_S)


def _unreached(error: urllib3.exceptions.HTTPError, receiver: Receiver) -> DeliveryFailed:
    """Why there was no answer. A certificate that cannot be trusted will not be in a second either."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return DeliveryFailed(f"its certificate is not valid: {cause.verify_message}", is_final=True)
    kinds = {
        urllib3.exceptions.NameResolutionError: "its host's name is not known",
        urllib3.exceptions.NewConnectionError: "no connection",  # before its base, a timeout
        urllib3.exceptions.ConnectTimeoutError: f"no connection within {CONNECT_S:g} s",
        urllib3.exceptions.ReadTimeoutError: f"no answer within {READ_S:g} s",
        urllib3.exceptions.SSLError: "no TLS connection",
        urllib3.exceptions.ProtocolError: "the connection ended before an answer",
    }
    known = next((words for kind, words in kinds.items() if isinstance(error, kind)), None)
    return DeliveryFailed(known or describe(error, *receiver.secrets), is_final=False)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it stands for: urllib3 keeps that as a reason, or as an argument."""
    pending, seen = [error], set[int]()
    while pending:
        cause = pending.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        found = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        pending += [each for each in found if isinstance(each, BaseException)]
