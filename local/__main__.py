"""`python -m local run|smoke|…`: the system on this machine. The Makefile is the way to call it.

Exit status: 0 when stopped by a signal, or when a smoke test or all drills passed; 1 when a part failed, the
test or a drill did not pass, a prediction is not what bronze says, nothing runs that could be asked, or
recordings hold too little; 2 when the options cannot be used; 3 when it cannot be told what bronze says.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType

from rich.console import Console

from local.commands import backfill, evaluate, explain, gaps, models, options, retrain, smoke, status
from local.commands.options import Options, OptionsError
from local.drills import runner
from local.drills.harness import DrillFailed
from local.exchange.recording import RecordingError
from local.system.cloud import FunctionFailed
from local.system.database import MigrationFailed
from local.system.processes import ProcessFailed, die_with_parent
from local.system.progress import Progress
from local.system.state_folder import StateFolder, StateInUse, throw_away
from local.system.system import System
from tickcast.adapters import json_text
from tickcast.adapters.registry.model_registry import PointerRace, RegistryError
from tickcast.adapters.variables import Secret, SettingsError, value
from tickcast.evaluation.backtest import EvaluationError
from tickcast.model.training import TrainingError

MAX_SMOKE_S = 86_400
_LAST_LINE_IS_JSON = ("smoke", "drills", "backfill", "retrain", "evaluate")
_REFUSALS = (OptionsError, StateInUse, evaluate.EvaluationRefused, RecordingError)
_FAILURES = (
    *(ProcessFailed, FunctionFailed, smoke.WarmUpFailed, DrillFailed, gaps.NotRunning, explain.NotExplained),
    *(EvaluationError, TrainingError, MigrationFailed, RegistryError, PointerRace),
)


def run(asked: Options, progress: Progress) -> int:
    """Start the system and show its status until a signal comes."""
    progress.say(f"[bold]tickcast[/bold]: starting, feed: {asked.label}")
    state = StateFolder(asked.feed)
    progress.say(f"  logs are in {state.logs}")
    try:
        with System(asked, state, progress) as system:
            try:
                status.show(system, progress)
            finally:
                progress.say("stopping …")
    except KeyboardInterrupt:
        progress.say("stopped")
    return 0


def run_smoke(asked: Options, seconds: int, progress: Progress) -> int:
    """Measure a throw-away system; the last line on stdout is the result."""
    state = throw_away("smoke")
    progress.say(f"[bold]tickcast smoke test[/bold]: {seconds} s, feed: {asked.label}")
    is_ok = False
    try:
        with System(asked, state, progress) as system:
            report = smoke.measure(system, seconds, progress)
        is_ok = report.ok
        Console().print(smoke.table(report))
        print(json_text.text(report.as_dict()), flush=True)
    finally:
        state.discard(keep_logs=not is_ok)
        if not is_ok:
            progress.say(f"logs are in {state.logs}")
    return 0 if is_ok else 1


def run_drills(names: list[str], progress: Progress) -> int:
    """Hurt a throw-away system in every way; the last line on stdout is the result."""
    drills = runner.chosen(names)
    state = throw_away("drills")
    progress.say(f"[bold]tickcast drills[/bold]: {', '.join(drill.name for drill in drills)}")
    is_ok = False
    try:
        with System(Options(), state, progress) as system:
            results = runner.run(system, drills, progress)
        told = runner.summary(results)
        is_ok = told["ok"]
        _wide_console().print(runner.table(results))
        print(json_text.text(told), flush=True)
    finally:
        state.discard(keep_logs=not is_ok)
        if not is_ok:
            progress.say(f"logs are in {state.logs}")
    return 0 if is_ok else 1


def run_evaluate(asked: argparse.Namespace, progress: Progress) -> int:
    """Judge a model on recordings; the last line on stdout is the result."""
    progress.say("[bold]tickcast evaluate[/bold]: reading, training, judging")
    judgement = evaluate.evaluate(asked.session, asked.train, asked.latency_ms)
    evaluate.draw(judgement, asked.picture)
    evaluate.show(judgement, _wide_console())
    progress.say(f"the picture is {asked.picture}")
    print(evaluate.last_line(judgement), flush=True)
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local", description="The system on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    options.add_arguments(commands.add_parser("run", help="start everything, show its status until Ctrl-C"))
    smoking = commands.add_parser("smoke", help="start everything aside, measure it from outside, stop it")
    options.add_arguments(smoking)
    smoking.add_argument(
        "--seconds", type=options.number_of("SECONDS"), default=60, help="to measure, after warm-up"
    )
    drilling = commands.add_parser("drills", help="start everything aside, hurt it, account for every trade")
    drilling.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these drills alone")
    asking = commands.add_parser("gaps", help="the trades that are missing in the running system")
    asking.add_argument("--url", default="", help="of another system's API, such as one in AWS")
    explaining = commands.add_parser("explain", help="a prediction in words, and made again from bronze")
    explaining.add_argument("id", nargs="?", default="", help="of the prediction, like BTCUSDT-1723161253000")
    explaining.add_argument("--url", default="", help="of another system's API; its key is in KEY")
    evaluate.add_arguments(commands.add_parser("evaluate", help="judge a model on recordings"))
    filling = commands.add_parser("backfill", help="history into the running system, or into one in AWS")
    backfill.add_arguments(filling)
    retrain.add_arguments(commands.add_parser("retrain", help="history, a challenger, the gate: the loop"))
    for name, what in models.COMMANDS.items():
        models.add_arguments(commands.add_parser(name, help=what), name)
    given = parser.parse_args(arguments)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    if "MAKELEVEL" in os.environ:  # else killing make would leave the system running
        die_with_parent(signal.SIGTERM)
    progress = Progress(Console(stderr=given.command in _LAST_LINE_IS_JSON))
    try:
        return _carry_out(given, progress)
    except _REFUSALS as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return 2
    except _FAILURES as error:
        print(f"tickcast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _carry_out(given: argparse.Namespace, progress: Progress) -> int:
    if given.command == "drills":
        return run_drills(given.only, progress)
    if given.command == "gaps":
        return gaps.show(given.url, _wide_console())
    if given.command == "backfill":
        return backfill.run(backfill.from_arguments(given), progress)
    if given.command == "retrain":
        return retrain.run(retrain.from_arguments(given), progress)
    if given.command in models.COMMANDS:
        return models.run(given.command, given, _wide_console())
    if given.command == "explain":
        return explain.show(given.id, given.url, _api_key(), _wide_console())
    if given.command == "evaluate":
        return run_evaluate(given, progress)
    asked = options.from_arguments(given)
    if given.command == "run":
        return run(asked, progress)
    if not 1 <= given.seconds <= MAX_SMOKE_S:
        raise OptionsError(f"SECONDS is {given.seconds}; it should be a whole number from 1 to {MAX_SMOKE_S}")
    return run_smoke(asked, given.seconds, progress)


def _api_key() -> str:
    """The key of an API elsewhere, from KEY. Raises `OptionsError`."""
    try:
        return str(value("KEY", os.environ.get("KEY", ""), Secret))
    except SettingsError as error:
        raise OptionsError(str(error)) from None


def _wide_console() -> Console:
    """For tables that are to stay whole where there is no terminal to fit them into."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
