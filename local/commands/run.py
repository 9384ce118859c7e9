"""`make run`: start a system and show its status until a signal stops it."""

from __future__ import annotations

import argparse

from rich.console import Console

from local.commands import status
from local.commands.arguments import add_system_arguments, system_options
from local.commands.command import Command, ExitStatus
from local.system.progress import Progress
from local.system.state_folder import StateFolder
from local.system.system import System


def run(given: argparse.Namespace) -> ExitStatus:
    options, progress = system_options(given), Progress(Console())
    progress.say(f"[bold]tickcast[/bold]: starting, feed: {options.label}")
    state = StateFolder(options.feed)
    progress.say(f"  logs: {state.logs}")
    try:
        with System(options, state, progress) as system:
            try:
                status.show(system, progress)
            finally:
                progress.say("stopping …")
    except KeyboardInterrupt:
        progress.say("stopped")
    return ExitStatus.OK


COMMAND = Command("run", "start a system, show its status until Ctrl-C", add_system_arguments, run)
