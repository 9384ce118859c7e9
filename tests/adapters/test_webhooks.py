"""Deliveries over real sockets: signatures, and each way in which a receiver fails."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.system.servers import free_ports
from tests.fixtures.receiver import KEY, Receiver, receiving
from tickcast.adapters import webhooks
from tickcast.adapters.webhooks import (
    Courier,
    DeliveryFailed,
    ReceiverError,
    receiver_of,
    signature,
    signing_key,
)
from tickcast.serving.signals import Template

pytestmark = pytest.mark.server

NOW_MS = 1_767_225_600_000.0
BODY = {"text": "12 % – schnell"}


@dataclass
class Post:
    """Delivers to `receiver` with time for everything, and notes how long it would have waited."""

    url: str
    key: str = KEY
    template: Template = "json"
    remaining_s: float = 60.0
    waited_s: list[float] = field(default_factory=list)

    def __call__(self, make: Any = lambda: BODY) -> int:
        courier = Courier(urllib3.PoolManager(), lambda: NOW_MS, self.waited_s.append, lambda: 1.0)
        to = webhooks.Receiver(url=self.url, key=self.key, token="1:t0ken-of-a-bot", chat="42")
        return courier.deliver(to, self.template, "an-id", make, lambda: self.remaining_s)

    def failure(self) -> DeliveryFailed:
        with pytest.raises(DeliveryFailed) as failed:
            self()
        assert self.url not in str(failed.value)
        return failed.value


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def test_a_request_is_signed_as_the_specification_says(receiver: Receiver) -> None:
    assert Post(receiver.url)() == 1
    [request] = receiver.requests
    assert request.json == BODY
    signed = f"an-id.{int(NOW_MS / 1000)}.".encode() + request.body
    expected = hmac.digest(base64.b64decode(KEY.removeprefix("whsec_")), signed, hashlib.sha256)
    assert request.headers["webhook-id"] == "an-id"
    assert request.headers["webhook-timestamp"] == str(int(NOW_MS / 1000))
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert request.headers["content-type"] == "application/json"


def test_the_signature_of_the_specification_s_own_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_may_pass_is_tried_again_with_growing_waits(receiver: Receiver, status: int) -> None:
    receiver.answer(status)
    receiver.answer(status)
    post = Post(receiver.url)
    assert post() == 3
    assert post.waited_s == [1.0, 2.0]
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(receiver: Receiver, status: int) -> None:
    receiver.answer(status)
    failure = Post(receiver.url).failure()
    assert (failure.is_final, len(receiver.requests)) == (True, 1)
    assert str(status) in str(failure)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer(status, location=receiver.url)
    failure = Post(receiver.url).failure()
    assert (failure.is_final, len(receiver.requests)) == (True, 1)
    assert "redirect" in str(failure)


def test_after_three_attempts_it_is_lambda_s_turn(receiver: Receiver) -> None:
    for _ in range(3):
        receiver.answer(500)
    failure = Post(receiver.url).failure()
    assert (failure.is_final, len(receiver.requests)) == (False, 3)


@pytest.mark.parametrize(
    ("header", "waits_s"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 2026 00:00:09 GMT", 9.0),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 1.0),
        ("soon", 1.0),
    ],
)
def test_a_receiver_says_when_to_come_again(receiver: Receiver, header: str, waits_s: float) -> None:
    receiver.answer(429, retry_after=header)
    post = Post(receiver.url)
    assert post() == 2
    assert post.waited_s == [waits_s]


def test_a_wait_beyond_the_time_left_is_not_cut_short(receiver: Receiver) -> None:
    receiver.answer(429, retry_after="300")
    post = Post(receiver.url)
    failure = post.failure()
    assert (failure.is_final, failure.wait_s, post.waited_s) == (False, 300.0, [])


@pytest.mark.parametrize("header", ["999999999", "9" * 4000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_receiver_silences_its_signals_for_years(receiver: Receiver, header: str) -> None:
    receiver.answer(429, retry_after=header)
    assert Post(receiver.url, remaining_s=60.0).failure().wait_s == webhooks.MOST_WAIT_S


@pytest.mark.parametrize("number", ["1" + "0" * 400, '"soon"', "[]", "null"])
def test_an_answer_without_a_usable_wait(receiver: Receiver, number: str) -> None:
    receiver.answer(429, f'{{"parameters": {{"retry_after": {number}}}}}'.encode())
    post = Post(receiver.url)
    assert (post(), post.waited_s) == (2, [1.0])


def test_telegram_says_it_in_its_answer(receiver: Receiver) -> None:
    receiver.answer(429, json.dumps({"ok": False, "parameters": {"retry_after": 4}}).encode())
    post = Post(receiver.url, template="telegram")
    assert post() == 2
    assert post.waited_s == [4.0]
    assert receiver.requests[0].path == "/hook/bot1:t0ken-of-a-bot/sendMessage"


def test_an_answer_is_not_taken_for_the_next_one_s(tmp_path: Path) -> None:
    """A receiver that keeps connections, and answers with more than is read of it."""
    with receiving(_self_signed(tmp_path), keeps_connections=True) as receiver:
        courier = Courier(urllib3.PoolManager(cert_reqs="CERT_NONE"), lambda: NOW_MS, lambda _: None)
        to = webhooks.Receiver(url=receiver.url, key=KEY)
        for n in range(4):
            receiver.answer(200, b"x" * 12_000)
            with warnings.catch_warnings(action="ignore"):
                assert courier.deliver(to, "json", str(n), lambda: BODY, lambda: 60.0) == 1
    assert [each.headers["webhook-id"] for each in receiver.requests] == ["0", "1", "2", "3"]


def test_a_slow_receiver_is_not_waited_for(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "READ_S", 0.2)
    receiver.answer(200, after_s=0.6)
    assert Post(receiver.url)() == 2


def test_a_receiver_that_is_away() -> None:
    (port,) = free_ports(1)
    failure = Post(f"http://127.0.0.1:{port}/hook").failure()
    assert (failure.is_final, str(failure)) == (False, "no connection")


def test_nothing_is_sent_that_is_no_longer_wanted(receiver: Receiver) -> None:
    receiver.answer(500)
    bodies = iter([BODY, None])
    assert Post(receiver.url)(lambda: next(bodies)) == 0
    assert len(receiver.requests) == 1


def test_a_certificate_that_cannot_be_trusted(tmp_path: Path) -> None:
    with receiving(_self_signed(tmp_path)) as receiver:
        failure = Post(receiver.url).failure()
    assert (failure.is_final, receiver.requests) == (True, [])
    assert str(failure).startswith("its certificate is not valid: self")


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


# -- receivers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "secret"),
    [
        ("json", {"url": "https://example.com/hook", "key": KEY}),
        ("slack", {"url": "https://hooks.example.com/services/T/B/x"}),
        ("telegram", {"token": "123456:ABC-DEF", "chat": "-100"}),
        ("json", {"url": "http://127.0.0.1:8000/hook", "key": KEY}),
        ("json", {"url": "http://localhost:8000/hook", "key": KEY}),
        ("json", {"url": "http://[::1]:8000/hook", "key": KEY}),
    ],
)
def test_receivers(template: Template, secret: dict[str, str]) -> None:
    found = receiver_of(json.dumps(secret), template, allows_loopback=True)
    assert secret.items() <= {name: getattr(found, name) for name in found.__struct_fields__}.items()
    assert all(value not in repr(found) for value in secret.values())


@pytest.mark.parametrize(
    ("template", "secret", "said"),
    [
        ("json", {"url": "https://example.com/secret-path"}, "key is missing; .* needs url and key"),
        ("slack", {"key": KEY}, "url is missing"),
        ("telegram", {"token": "123456:ABC-DEF"}, "chat is missing"),
        ("slack", {"url": "http://example.com/secret-path"}, "url should begin with https://$"),
        ("slack", {"url": "http://127.0.0.1/secret-path"}, "url should begin with https://$"),
        ("slack", {"url": "ftp://example.com/secret-path"}, "url should begin with https://"),
        ("slack", {"url": "https://user:secret@example.com/"}, "without user or fragment"),
        ("slack", {"url": "https://example.com/secret path"}, "an address like https://host/path"),
        ("slack", {"url": "https://[secret/"}, "an address like https://host/path"),
        (
            "json",
            {"url": "https://example.com/", "key": "secret"},
            "key should be whsec_ and the base64 of 24",
        ),
        ("json", {"url": "https://example.com/", "key": "whsec_c2VjcmV0"}, "key should be whsec_"),
        ("telegram", {"token": "123/secret", "chat": "1"}, "token should be"),
        (
            "json",
            {"uri": "https://example.com/secret-path"},
            "JSON like .* no keys but url, key, token, chat",
        ),
        ("json", ["secret"], "JSON like"),
    ],
)
def test_a_receiver_that_cannot_be_used(template: Template, secret: Any, said: str) -> None:
    with pytest.raises(ReceiverError, match=said) as refused:
        receiver_of(json.dumps(secret), template)
    assert "secret" not in str(refused.value)
