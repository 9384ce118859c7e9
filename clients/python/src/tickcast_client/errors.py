"""What can go wrong, as types. All derive from `TickcastError`; none has the key in its message."""

from __future__ import annotations


class TickcastError(Exception):
    """The base of all errors of this package."""


class ClientClosed(TickcastError):
    """The client was closed, before or during the call."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class ConnectionFailed(TickcastError):
    """The API could not be reached, or broke off: a name that does not resolve, a refused connection, a
    timeout."""


class UnexpectedResponse(TickcastError):
    """What answers at the address is not tickcast's API: a redirect, a page, JSON of another form."""


class ApiError(TickcastError):
    """An answer with an error status, as problem+json (RFC 9457): `detail` says what is wrong and what it
    should be, `parameter` which parameter it is about, `request_id` which request the gateway means."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        parameter: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, title, detail, parameter, request_id, retry_after_s)
        self.status = status
        self.title = title
        self.detail = detail
        self.parameter = parameter
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.detail} ({self.status} {self.title})"


class BadRequest(ApiError):
    """400: a parameter is wrong."""


class Forbidden(ApiError):
    """403: no key or signature was sent, or it is not accepted."""


class NotFound(ApiError):
    """404: a symbol that is not served, a prediction that is not kept, or nothing known yet."""


class TooManyRequests(ApiError):
    """429: more than the key's rate or daily quota. It was retried for `retry_s`."""


class Unavailable(ApiError):
    """502, 503, 504: a part of the system does not answer. It was retried for `retry_s`."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
