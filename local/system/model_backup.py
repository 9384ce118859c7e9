"""Models across runs: from the last run's bucket on disk into the one just deployed.

CloudFormation makes the bucket anew each time and will not take over one that exists already, so the models
are moved aside before the emulator starts and put back, by the S3 API, after the deployment. The pointer
goes last both ways; a run that is killed in between loses nothing, since a bucket without a pointer is not
taken for a newer state than what was moved aside.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from local.system.state_folder import StateFolder

POINTER = "models/current.json"
_SIDECAR = ".meta.json"  # what the emulator stores about an object, beside it


def set_aside(state: StateFolder) -> None:
    """Move the models out of the emulator's S3 folder, which is emptied. To be called before it starts."""
    for pointer in state.s3.glob(f"*/*/{POINTER}"):
        shutil.rmtree(state.models, ignore_errors=True)
        pointer.parent.rename(state.models)
    shutil.rmtree(state.s3, ignore_errors=True)
    state.s3.mkdir()


def put_back(state: StateFolder, s3: Any, bucket: str) -> int:
    """Put the models kept aside into `bucket`; how many there are."""
    if not state.models.is_dir():
        return 0
    files = [path for path in state.models.rglob("*") if path.is_file() and not path.name.endswith(_SIDECAR)]
    for path in sorted(files, key=lambda path: _key(state, path) == POINTER):
        s3.put_object(Bucket=bucket, Key=_key(state, path), Body=path.read_bytes())
    return sum(path.suffix == ".onnx" for path in files)


def _key(state: StateFolder, path: Path) -> str:
    return f"models/{path.relative_to(state.models).as_posix()}"
