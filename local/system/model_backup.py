"""Models across runs: from the last run's bucket on disk into the one just deployed.

CloudFormation creates the bucket each time and refuses one that exists already, so the models are saved
before the emulator starts and restored, by the S3 API, after the deployment. The pointer is restored last; a
run that is killed in between loses nothing, since a bucket without a pointer does not replace the saved
models.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from local.system.state_folder import StateFolder

POINTER = "models/current.json"
_SIDECAR = ".meta.json"  # the emulator's metadata of an object


def save(state: StateFolder) -> None:
    """Move the models out of the emulator's S3 folder and empty it. Call before the emulator starts."""
    for pointer in state.s3.glob(f"*/*/{POINTER}"):
        shutil.rmtree(state.models, ignore_errors=True)
        pointer.parent.rename(state.models)
    shutil.rmtree(state.s3, ignore_errors=True)
    state.s3.mkdir()


def restore(state: StateFolder, s3: Any, bucket: str) -> int:
    """Put the saved models into `bucket`; the number of models."""
    if not state.models.is_dir():
        return 0
    files = [path for path in state.models.rglob("*") if path.is_file() and not path.name.endswith(_SIDECAR)]
    for path in sorted(files, key=lambda path: _key(state, path) == POINTER):
        s3.put_object(Bucket=bucket, Key=_key(state, path), Body=path.read_bytes())
    return sum(path.suffix == ".onnx" for path in files)


def _key(state: StateFolder, path: Path) -> str:
    return f"models/{path.relative_to(state.models).as_posix()}"
