"""Cold starts: how long each handler's imports take, and the unzipped size of its layers.

Imports are timed in fresh processes, on this machine's interpreter; boto3, which the handlers get from
Lambda's runtime, counts here as well. Sizes are those of the layers built for Lambda.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import NamedTuple

from benchmarks.side_by_side import Effort
from layers import build, site_files
from layers.catalog import OF_FUNCTION, THIRD_PARTY
from local.system.cloud import REGION
from local.system.variables import local_variables

LARGEST_MB_MARK = 210
_RUNS = 5
_IMPORT = "import time; t = time.process_time(); import handler; print(time.process_time() - t)"
# The variables that the handlers read when they are imported; they connect to nothing.
_SETTINGS = local_variables(bucket="bench") | {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Weight(NamedTuple):
    """A function's cold start: CPU ms of its imports, MB unzipped (None: the layers could not be built)."""

    function: str
    import_ms: float
    size_mb: float | None


def measure(effort: Effort) -> list[Weight]:
    sizes = _layer_bytes() if effort.rounds > 1 else {}  # building may download for a minute
    return [
        Weight(name, _import_ms(name, min(_RUNS, effort.rounds)), _size_mb(name, sizes))
        for name in OF_FUNCTION
    ]


def _import_ms(function: str, runs: int) -> float:
    paths = [build.ROOT / "lambdas" / function, build.ROOT / "layers" / "core" / "python", build.ROOT]
    environment = os.environ | _SETTINGS | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    taken_s = [
        float(
            subprocess.run(
                [sys.executable, "-c", _IMPORT], env=environment, capture_output=True, check=True
            ).stdout
        )
        for _ in range(runs)
    ]
    return statistics.median(taken_s) * 1000


def _layer_bytes() -> dict[str, int]:
    """Sizes of the layers for Lambda, built if need be; empty when pip cannot fetch them."""
    folder = build.BUILD / "aws"
    try:
        for name in THIRD_PARTY:
            build.build(build.ROOT / "layers" / name / "requirements.txt", "aws", folder / name)
    except subprocess.CalledProcessError:
        return {}
    site_files.build(folder / "site")
    sizes = {name: build.size_bytes(folder / name) for name in (*THIRD_PARTY, "site")}
    return sizes | {"core": build.size_bytes(build.ROOT / "layers" / "core")}


def _size_mb(function: str, layer_bytes: dict[str, int]) -> float | None:
    if not layer_bytes:
        return None
    own = build.size_bytes(build.ROOT / "lambdas" / function)
    return (own + sum(layer_bytes[name] for name in OF_FUNCTION[function])) / 1e6
