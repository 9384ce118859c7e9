"""Which symbols the task carries: the served ones (`symbols/current.json`), followed while it runs.

A change is followed by make-before-break: a new connection carries the new set, and the old one ends once the
new one delivers all that both carry (`tickcast.market.session`). So nothing of a symbol that stays is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger
from msgspec.structs import replace

from ingest_ecs.settings import IngestSettings
from ingest_ecs.threads import in_thread
from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.served_symbols import SERVED, SymbolsWatcher
from tickcast.adapters.variables import SettingsError


class SymbolWatch:
    """`settings` are those of the symbols carried now. Where the object cannot be read, or names more symbols
    than a connection can hold, they stay as they are, and `report` says why."""

    def __init__(self, settings: IngestSettings, s3: Any, logger: Logger) -> None:
        self.settings = settings
        self._logger = logger
        self._watcher = SymbolsWatcher(s3, settings.bucket, settings.symbols)
        self._problem = ""

    async def run(self, follow: Callable[[IngestSettings], None]) -> None:
        """Until cancelled: `follow` gets the settings after each change."""
        while self.settings.bucket:
            await asyncio.sleep(self.settings.symbols_check_s)
            before = self.settings
            if await self.has_changed():
                try:
                    follow(self.settings)
                except Exception as error:  # what is carried continues, and it is tried again
                    self.settings = before
                    self._note(f"they could not be followed: {describe(error)}")

    async def has_changed(self) -> bool:
        """Read the object, and enter its symbols into `settings`; whether they are others than before."""
        if not self.settings.bucket:
            return False
        try:
            served = await in_thread(self._watcher.refresh)
        except Exception as error:  # whatever is wrong, what is carried continues
            self._note(f"{SERVED} cannot be read: {describe(error)}")
            return False
        before = self.settings.symbols
        if self._watcher.problem or served.symbols == before:
            self._note(self._watcher.problem or "")
            return False
        try:
            self.settings = replace(self.settings, symbols=served.symbols)
        except SettingsError as error:
            self._note(f"version {served.version} of {SERVED} cannot be carried: {error}")
            return False
        self._note("")
        changes = {
            "version": served.version,
            "added": [symbol for symbol in served.symbols if symbol not in before],
            "removed": [symbol for symbol in before if symbol not in served.symbols],
        }
        self._logger.info("the symbols changed", extra=changes)
        return True

    def report(self) -> dict[str, Any]:
        """Its part of `/health`."""
        return {"version": self._watcher.served.version, "problem": self._problem}

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            self._logger.error("the symbols stay as they are", extra={"reason": problem})
        self._problem = problem
