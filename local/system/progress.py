"""Terminal output: progress while a command works, and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_WIDTH = 140  # of output that goes to no terminal


class Progress:
    """Reports steps on `console`: a line each with its seconds, and a spinner on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Report that `what` has started, and how long it took."""
        started_s = time.monotonic()
        mark = "[red]✗[/red]"
        try:
            if self.console.is_terminal:
                with self.console.status(f"{what} …"):
                    yield
            else:
                self.say(f"  … {what}")
                yield
            mark = "[green]✓[/green]"
        finally:
            self.say(f"  {mark} {what} [dim]{time.monotonic() - started_s:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """One line, with rich's markup; never wrapped, so that it can be copied."""
        self.console.print(text, soft_wrap=True, highlight=False)


def to_stderr() -> Progress:
    """Progress of a command whose stdout ends with a line of JSON."""
    return Progress(Console(stderr=True))


def wide_console(*, stderr: bool = False) -> Console:
    """A console for tables: as wide as its terminal, or wide enough for them where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH)
