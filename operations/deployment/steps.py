"""A deployment as a sequence of steps that can break off at any point and be repeated.

A step asks the account whether it is done, so a second run passes over what the first one did, whichever
machine it ran on. What a step cannot know to be done (a stack may have changed) it does again, and doing it
again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape

from local.commands import aws_access
from local.system.progress import Progress
from operations.deployment.account import Account, Say
from operations.failures import OperationFailed, OperationRefused
from tickcast.adapters.registry.model_registry import RegistryError

# What a step may raise: what it says itself, what boto3 raises, an answer that does not come or that cannot
# be read.
FAILURES = (
    *(OperationFailed, RegistryError, BotoCoreError, ClientError),
    *(OSError, ValueError, HTTPException),
)


class Step(Protocol):
    """One step. `run` raises one of `FAILURES`."""

    @property
    def name(self) -> str: ...

    def is_done(self, account: Account) -> bool: ...

    def run(self, account: Account, say: Say) -> None: ...


def carry_out(steps: Sequence[Step], account: Account, progress: Progress, command: str) -> None:
    """Run the steps that are not done, in order. Raises `OperationFailed` naming the step at which it broke
    off; `command` is what continues there."""
    for number, step in enumerate(steps, 1):
        title = f"{number}/{len(steps)} {step.name}"
        started_s = time.monotonic()
        try:
            if step.is_done(account):
                progress.say(f"[green]✓[/green] {title} [dim]done before[/dim]")
                continue
            progress.say(f"… {title}")
            step.run(account, lambda text: progress.say(f"    {escape(text)}"))
        except OperationRefused:
            raise
        except FAILURES as error:
            raise OperationFailed(
                f"{step.name}: {reason_of(error)}\nThen repeat `{command}`: it continues at this step."
            ) from None
        except KeyboardInterrupt:
            progress.say(f"interrupted at {title}; `{command}` continues there")
            raise
        progress.say(f"[green]✓[/green] {title} [dim]{time.monotonic() - started_s:.0f} s[/dim]")


def reason_of(error: Exception) -> str:
    """One of `FAILURES` in words, with what to do where that is known."""
    return str(error) if isinstance(error, OperationFailed) else aws_access.why(error)
