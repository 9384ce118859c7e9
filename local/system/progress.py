"""What the launcher says while it works: one line a step with its seconds, and a spinner on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Steps told on `console`."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Tell that `what` is being done, and then how long it took."""
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
        """One line, with rich's markup; never wrapped, so that what is to be copied can be."""
        self.console.print(text, soft_wrap=True, highlight=False)
