"""A client of the prediction API of any deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from local.system import http_json
from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe

_SHOWN = 200  # characters of an unexpected body


class ApiFailed(RuntimeError):
    """The API does not respond, or responds with an error; the message says what to do."""


@dataclass(frozen=True)
class Api:
    """The API at `url`. `/health` alone needs no key."""

    url: str
    key: str = field(default="", repr=False)

    def get(self, path: str, **query: int) -> http_json.Response:
        """The response to GET `path`. Raises OSError and ValueError as `http_json.get` does."""
        return http_json.get(self._address(path, query), {"x-api-key": self.key})

    def body(self, path: str, **query: int) -> Any:
        """The body of a response with status 200. Raises `ApiFailed` for any other."""
        address = self._address(path, query)
        try:
            response = self.get(path, **query)
        except (OSError, ValueError) as error:
            raise ApiFailed(f"{address} does not respond: {describe(error, self.key)}") from None
        if response.status == 200:
            return response.body
        if response.status == 403:
            raise ApiFailed(
                f"{self.url} refuses the key in KEY" if self.key else f"{self.url} requires a key: set KEY=…"
            )
        body = response.body if isinstance(response.body, dict) else {}
        reason = body.get("detail") or body.get("message") or json_text.text(response.body)[:_SHOWN]
        raise ApiFailed(f"{reason} ({address} returned {response.status})")

    def services(self) -> dict[str, Any]:
        """The services that `/health` reports on, also with an error status. Raises `ApiFailed`."""
        url = f"{self.url.rstrip('/').removesuffix('/health')}/health"
        try:
            body = http_json.get(url).body
        except (OSError, ValueError) as error:
            raise ApiFailed(f"{url} does not respond: {describe(error)}") from None
        if not isinstance(body, dict) or "services" not in body:
            raise ApiFailed(f"{url} is not tickcast's /health: {json_text.text(body)[:_SHOWN]}")
        services: dict[str, Any] = body["services"]
        return services

    def _address(self, path: str, query: dict[str, int]) -> str:
        return f"{self.url.rstrip('/')}/{quote(path)}" + (f"?{urlencode(query)}" if query else "")
