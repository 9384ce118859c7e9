"""Signed requests, for a deployment whose `api.authorisation` is iam. Needs the extra
`tickcast-client[iam]`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import anyio.to_thread
import httpx

try:
    import botocore.session
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
except ImportError as error:
    raise ImportError(
        "signing needs botocore: pip install 'tickcast-client[iam]'", name=error.name
    ) from error


class SigV4(httpx.Auth):
    """Signs requests by AWS Signature Version 4, service execute-api, with the credentials that botocore
    finds (environment, profile, role of the machine) or those of `session`.

    `region` is that of the API; without it, it is read from an address like
    https://….execute-api.eu-west-1.amazonaws.com/v1, or is the session's. Raises ValueError, when the first
    request is sent, if there are no credentials or no region.
    """

    def __init__(self, region: str | None = None, session: botocore.session.Session | None = None) -> None:
        self._region = region
        self._session = session or botocore.session.Session()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._sign(request)
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        # Credentials of a role are renewed over the network.
        await anyio.to_thread.run_sync(self._sign, request)
        yield request

    def _sign(self, request: httpx.Request) -> None:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise ValueError("no AWS credentials are set to sign requests with")
        region = self._region or _region_of(request.url.host) or self._session.get_config_variable("region")
        if not region:
            raise ValueError("the API's region is not known: pass region=, such as SigV4('eu-west-1')")
        to_sign = AWSRequest("GET", str(request.url), headers={"Host": request.headers["Host"]})
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", region).add_auth(to_sign)
        request.headers.update(dict(to_sign.headers))


def _region_of(host: str) -> str | None:
    parts = host.split(".")
    return parts[2] if len(parts) > 3 and parts[1] == "execute-api" else None
