"""`make test`: all tests, in two runs of pytest at once.

The tests of the running system come one by one and mostly wait. All others run meanwhile on several
processes, which yield the processor to the system, and are reported afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from local.system.processes import die_with_parent

LOG = Path(__file__).resolve().parents[1] / ".build" / "tests.log"
PYTEST = (sys.executable, "-m", "pytest")
LOWEST_PRIORITY = 19
INTERRUPTED = 130


def main(options: list[str]) -> int:
    """Run all tests, those without the running system with these `options` of pytest; the exit status."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w+", encoding="utf-8") as log:
        command = [*PYTEST, "-q", *options, "-m", "not (fuzz or emulated)"]
        others = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_yield_to_others)
        those = subprocess.Popen([*PYTEST, "-m", "emulated and not fuzz"], preexec_fn=_end_with_this)
        try:
            on_system = those.wait()
            print(f"test: the tests without a running system, as in {LOG}", flush=True)
            elsewhere = others.wait()
        except KeyboardInterrupt:  # both runs were interrupted, too, and stop what they started
            those.wait()
            others.wait()
            return INTERRUPTED
        log.seek(0)
        sys.stdout.writelines(log)
    print(f"test: exit status {on_system} on the running system, {elsewhere} without")
    return on_system or elsewhere


def _end_with_this() -> None:
    die_with_parent(signal.SIGTERM)  # SIGINT is ignored in the background of a script


def _yield_to_others() -> None:
    _end_with_this()
    os.nice(LOWEST_PRIORITY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
