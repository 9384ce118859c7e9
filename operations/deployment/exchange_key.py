"""The exchange's API key, from its owner to the secret of the data stack, and by no other way.

It is read from the file that BINANCE_API_KEY_FILE names, from BINANCE_API_KEY, or asked for on a terminal:
never from a command line, which other users of the machine can read. Without a key the secret says so
(`NO_KEY`), for ECS starts no task whose secret is empty; the task then runs on the public mirror.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ingest_ecs.settings import NO_KEY
from operations.deployment.account import Account, Say
from operations.failures import OperationRefused
from tickcast.adapters.variables import Secret, SettingsError, value

VARIABLE, FILE_VARIABLE = "BINANCE_API_KEY", "BINANCE_API_KEY_FILE"
_PROMPT = "Binance API key (Ed25519, no permissions; empty: the public mirror, which needs none): "

Ask = Callable[[], str]


def given_key(environment: Mapping[str, str]) -> str:
    """The key that the environment gives, empty if none. Raises `OperationRefused`, never with the key."""
    if path := environment.get(FILE_VARIABLE):
        try:
            text, origin = Path(path).expanduser().read_text("utf-8"), f"the file in {FILE_VARIABLE}"
        except (OSError, UnicodeDecodeError) as error:
            raise OperationRefused(f"{FILE_VARIABLE} is {path!r}, {_problem(error)}") from None
    elif not (text := environment.get(VARIABLE, "")):
        return ""
    else:
        origin = VARIABLE
    return checked(text, origin)


def _problem(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, and what to do."""
    if isinstance(error, UnicodeDecodeError):
        return "which is no text; name a file that holds the key alone"
    if isinstance(error, FileNotFoundError):
        return f"which does not exist; name the file with the key, or unset {FILE_VARIABLE}"
    return f"which cannot be read ({error.strerror}); name a file that you may read"


def checked(text: str, origin: str) -> str:
    """The key in `text`. Raises `OperationRefused`, never with the key."""
    try:
        key = str(value(origin, text, Secret))
    except SettingsError as error:
        raise OperationRefused(str(error)) from None
    if not key or key == NO_KEY:
        raise OperationRefused(f"{origin} holds no key: it should be as Binance shows it")
    return key


def ask_on_terminal() -> str:
    """The key typed on a terminal, empty where there is none or nothing is typed."""
    if not sys.stdin.isatty():
        return ""
    typed = getpass.getpass(_PROMPT)
    return checked(typed, "what was typed") if typed.strip() else ""


class StoreKey:
    """Put the key, or that there is none, into the secret."""

    name = "the exchange's key"

    def __init__(self, environment: Mapping[str, str] | None = None, ask: Ask = ask_on_terminal) -> None:
        self._environment = os.environ if environment is None else environment
        self._ask = ask

    def is_done(self, account: Account) -> bool:
        return self._is_stored(account) and is_read(account)

    def run(self, account: Account, say: Say) -> None:
        if not self._is_stored(account):
            self._store(account, say)
        if not is_read(account):  # a running task has the old value: ECS reads it at the start alone
            outputs = account.outputs("app")
            account.client("ecs").update_service(
                cluster=outputs["ClusterArn"], service=outputs["IngestService"], forceNewDeployment=True
            )
            say("the ingest task is replaced, to read it")

    def _is_stored(self, account: Account) -> bool:
        """A secret that has a value is not asked for again; a key in the environment replaces it."""
        stored = stored_value(account)
        given = given_key(self._environment)
        return stored == given if given else stored is not None

    def _store(self, account: Account, say: Say) -> None:
        key = given_key(self._environment) or self._ask()
        account.client("secretsmanager").put_secret_value(
            SecretId=account.outputs("data")["ExchangeKeyArn"], SecretString=key or NO_KEY
        )
        say(
            "the key is stored"
            if key
            else f"no key: ingest takes the public JSON mirror; {FILE_VARIABLE}=… `make deploy` stores one"
        )


def is_read(account: Account) -> bool:
    """Whether the service's tasks were started after the secret got its value, or are yet to be."""
    outputs = account.outputs("app")
    if "IngestService" not in outputs:
        return True
    described = account.client("ecs").describe_services(
        cluster=outputs["ClusterArn"], services=[outputs["IngestService"]]
    )
    started = [each["createdAt"] for each in described["services"][0]["deployments"]]
    held = account.client("secretsmanager").get_secret_value(
        SecretId=account.outputs("data")["ExchangeKeyArn"]
    )
    return bool(started) and max(started) >= held["CreatedDate"]


def stored_value(account: Account) -> str | None:
    """What the secret holds; None where it has no value yet."""
    secrets: Any = account.client("secretsmanager")
    try:
        held = secrets.get_secret_value(SecretId=account.outputs("data")["ExchangeKeyArn"])
    except secrets.exceptions.ResourceNotFoundException:
        return None
    return str(held["SecretString"])


def has_key(account: Account) -> bool:
    """Whether the secret holds a key."""
    return (stored_value(account) or NO_KEY) != NO_KEY
