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
        response = self._response(path, query)
        if response.status != 200:
            raise self._failure(response, path, query)
        return response.body

    def body_or_detail(self, path: str, **query: int) -> Any:
        """As `body`; of a 404 its detail, which says what there is not."""
        response = self._response(path, query)
        if response.status == 404 and isinstance(response.body, dict) and "detail" in response.body:
            return str(response.body["detail"])
        if response.status != 200:
            raise self._failure(response, path, query)
        return response.body

    def _response(self, path: str, query: dict[str, int]) -> http_json.Response:
        try:
            return self.get(path, **query)
        except (OSError, ValueError) as error:
            address = self._address(path, query)
            raise ApiFailed(f"{address} does not respond: {describe(error, self.key)}") from None

    def _failure(self, response: http_json.Response, path: str, query: dict[str, int]) -> ApiFailed:
        """The error for a response with a status other than 200."""
        if response.status == 403:
            return ApiFailed(
                f"{self.url} refuses the key in KEY" if self.key else f"{self.url} requires a key: set KEY=…"
            )
        body = response.body if isinstance(response.body, dict) else {}
        reason = body.get("detail") or body.get("message") or json_text.text(response.body)[:_SHOWN]
        return ApiFailed(f"{reason} ({self._address(path, query)} returned {response.status})")

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
