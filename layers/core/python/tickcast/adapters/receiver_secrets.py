"""The receivers of signals, from Parameter Store: a SecureString `/tickcast/{environment}/signals/{name}` for
each destination, read at run time, so that no template, variable or log has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from tickcast.adapters.webhooks import Receiver, ReceiverError, receiver_of
from tickcast.serving.signals import SignalDestination

_KEPT_MS = 300_000


def parameter_name(environment: str, destination: str) -> str:
    return f"/tickcast/{environment}/signals/{destination}"


class ReceiverSecrets:
    """Keeps what it has read for five minutes. `environment` local alone may name this machine by http."""

    def __init__(self, ssm: Any, environment: str, clock_ms: Callable[[], float]) -> None:
        self._ssm, self._environment, self._clock_ms = ssm, environment, clock_ms
        self._kept: dict[str, tuple[float, Receiver]] = {}

    def read(self, destination: SignalDestination) -> Receiver:
        """Raises `ReceiverError` where there is none or it cannot be used, and what boto3 raises where
        Parameter Store does not answer."""
        name = parameter_name(self._environment, destination.name)
        read_ms, receiver = self._kept.get(destination.name, (0.0, Receiver()))
        if self._clock_ms() - read_ms < _KEPT_MS:
            return receiver
        try:
            found = self._ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ParameterNotFound":
                raise
            raise ReceiverError(
                f"there is no parameter {name}: `make notify-test DESTINATIONS=destinations.json` puts it "
                "(docs/signals.md)"
            ) from None
        try:
            receiver = receiver_of(found, destination.template, allows_loopback=self._environment == "local")
        except ReceiverError as error:
            raise ReceiverError(f"the parameter {name}: {error}") from None
        self._kept[destination.name] = self._clock_ms(), receiver
        return receiver

    def forget(self, destination: str) -> None:
        """Read it again next time: it may have been replaced."""
        self._kept.pop(destination, None)
