"""Signatures, by the steps of AWS's description of Signature Version 4."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote

import anyio
import botocore.session
import httpx
import pytest

from tests.fixtures import client_api
from tests.fixtures.client_api import ScriptedApi
from tickcast_client import AsyncClient, Client, Forbidden
from tickcast_client.iam import SigV4

HOST = "abc.execute-api.eu-west-1.amazonaws.com"
SECRET = "a-secret"
LATEST = httpx.Response(200, json=client_api.latest())


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> botocore.session.Session:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    found = botocore.session.Session()
    found.set_credentials("AKEXAMPLE", SECRET, "a-token")
    return found


def signature(request: httpx.Request, region: str) -> str:
    """The signature that the headers of `request` should have."""
    headers = request.headers
    signed = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    # Any service but S3 has the path encoded once more than it was sent.
    path = quote(request.url.raw_path.decode().partition("?")[0], safe="/")
    query = "&".join(sorted(request.url.query.decode().split("&")))
    lines = [f"{name}:{headers[name]}" for name in signed.split(";")]
    payload = hashlib.sha256(b"").hexdigest()
    canonical = "\n".join(["GET", path, query, *lines, "", signed, payload])
    time = headers["X-Amz-Date"]
    scope = f"{time[:8]}/{region}/execute-api/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def assert_signed(request: httpx.Request, region: str) -> None:
    assert request.headers["Authorization"].endswith(f"Signature={signature(request, region)}")
    assert request.headers["X-Amz-Security-Token"] == "a-token"


@pytest.mark.parametrize("symbol", ["BTCUSDT", "币安人生USDT"])
def test_both_clients_sign(session: botocore.session.Session, symbol: str) -> None:
    api = ScriptedApi([LATEST])
    auth, url = SigV4(session=session), f"https://{HOST}/v1"
    with Client(url, "", auth=auth, transport=api.transport) as client:
        client.latest(symbol, horizon=2, history=1)

    async def asynchronous() -> None:
        async with AsyncClient(url, "", auth=auth, transport=api.transport) as client:
            await client.latest(symbol)

    anyio.run(asynchronous)
    for request in api.requests:
        assert_signed(request, "eu-west-1")
        assert "x-api-key" not in request.headers


def test_a_retry_is_signed_again(session: botocore.session.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_sleep", lambda *_: None)
    api = ScriptedApi([client_api.problem(503), LATEST])
    with Client(
        "https://api.example", "", auth=SigV4("us-east-1", session), transport=api.transport
    ) as client:
        client.latest("BTCUSDT")
    assert len(api.requests) == 2
    for request in api.requests:
        assert_signed(request, "us-east-1")


def test_a_refused_signature_is_not_a_missing_key(session: botocore.session.Session) -> None:
    api = ScriptedApi([client_api.problem(403, "not authorized")])
    with (
        Client(f"https://{HOST}", "", auth=SigV4(session=session), transport=api.transport) as client,
        pytest.raises(Forbidden, match=r"^not authorized \(403"),
    ):
        client.latest("BTCUSDT")


def test_what_signing_needs_is_named(
    session: botocore.session.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Client("https://api.example", "", auth=SigV4(session=session)) as client,
        pytest.raises(ValueError, match=r"region is not known: pass region=, such as SigV4\('eu-west-1'\)"),
    ):
        client.latest("BTCUSDT")
    monkeypatch.setattr(session, "get_credentials", lambda: None)
    with (
        Client("https://api.example", "", auth=SigV4("us-east-1", session)) as client,
        pytest.raises(ValueError, match="no AWS credentials are set"),
    ):
        client.latest("BTCUSDT")
