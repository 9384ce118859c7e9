"""The receivers of signals in a file of one's own, which become parameters of a deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local.system.options import OptionsError
from tickcast.adapters import json_text
from tickcast.adapters.receiver_secrets import parameter_name
from tickcast.adapters.webhooks import Receiver, ReceiverError, receiver_of
from tickcast.market.symbols import listed
from tickcast.serving.signals import Signals

_LIKE = '{"desk": {"url": "https://…", "key": "whsec_…"}}'
Receivers = dict[str, Receiver]  # by destination


def read_receivers(path: Path, signals: Signals, environment: str) -> Receivers:
    """The receivers in the JSON file `path`, each of a destination of `signals`. Raises `OptionsError`, which
    shows no secret."""
    try:
        found = json_text.read(path.read_bytes())
    except OSError as error:
        raise OptionsError(f"DESTINATIONS: {path} cannot be read: {error.strerror}") from None
    except json_text.JsonError as error:
        raise OptionsError(f"DESTINATIONS: {path} is no JSON like {_LIKE}: {error}") from None
    if not isinstance(found, dict) or not found:
        raise OptionsError(f"DESTINATIONS: {path} should be JSON like {_LIKE}")
    receivers = {}
    for name, secret in found.items():
        destination = signals.destination(name)
        if not destination:
            known = listed([each.name for each in signals.destinations]) or "none"
            raise OptionsError(
                f"DESTINATIONS: {path} has {name[:50]!r}, and the destinations of the rules are {known}"
            )
        try:
            receivers[name] = receiver_of(
                json.dumps(secret), destination.template, allows_loopback=environment == "local"
            )
        except ReceiverError as error:
            raise OptionsError(f"DESTINATIONS: {path}, {name}: {error}") from None
    return receivers


def put_receivers(ssm: Any, environment: str, receivers: Receivers) -> None:
    """Put or replace their parameters, encrypted with AWS's own key. Raises what boto3 raises."""
    for name, receiver in receivers.items():
        fields = {key: getattr(receiver, key) for key in receiver.__struct_fields__}
        ssm.put_parameter(
            Name=parameter_name(environment, name),
            Description=f"Where tickcast's signals for {name} go, with its keys",
            Value=json_text.text({key: text for key, text in fields.items() if text}),
            Type="SecureString",
            Overwrite=True,
        )
