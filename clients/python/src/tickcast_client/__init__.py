"""A typed client of tickcast's API: predictions of a market's mid price, seconds ahead.

from tickcast_client import Client

with Client() as client:  # TICKCAST_API and TICKCAST_KEY say where
    print(client.latest("BTCUSDT").predicted_price)
"""

from tickcast_client._async_client import AsyncClient
from tickcast_client._client import Client
from tickcast_client._following import Update
from tickcast_client.errors import (
    ApiError,
    BadRequest,
    ClientClosed,
    ConnectionFailed,
    Forbidden,
    NotFound,
    TickcastError,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
)
from tickcast_client.words import in_words

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "Forbidden",
    "NotFound",
    "TickcastError",
    "TooManyRequests",
    "Unavailable",
    "UnexpectedResponse",
    "Update",
    "in_words",
]
