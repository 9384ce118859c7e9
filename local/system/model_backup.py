"""Models across runs: from the last run's bucket on disk into the one just deployed.

CloudFormation creates the bucket each time and refuses one that exists already, so the models are saved
before the emulator starts and restored, by the S3 API, after the deployment. The pointer is restored last; a
run that is killed in between loses nothing, since a bucket without a pointer does not replace the saved
models.

An emulator that does not keep objects where they are found (`Emulator.keeps_objects`) is asked for the models
before it stops; those trained in a run that is killed are lost then, the earlier ones are not.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from local.system.state_folder import StateFolder
from tickcast.adapters.lake.objects import list_objects

_PREFIX = "models/"
POINTER = f"{_PREFIX}current.json"
_SIDECAR = ".meta.json"  # the emulator's metadata of an object


def save(state: StateFolder) -> None:
    """Move the models out of the emulator's S3 folder and empty it. Call before the emulator starts."""
    for pointer in state.s3.glob(f"*/*/{POINTER}"):
        shutil.rmtree(state.models, ignore_errors=True)
        pointer.parent.rename(state.models)
    shutil.rmtree(state.s3, ignore_errors=True)
    state.s3.mkdir()


def fetch(state: StateFolder, s3: Any, bucket: str) -> None:
    """Save the models in `bucket`, if it has a pointer, by the S3 API. Call before the emulator stops."""
    keys = [stored.key for stored in list_objects(s3, bucket, _PREFIX)]
    if POINTER not in keys:
        return
    fetched = state.models.with_name("models.fetched")
    shutil.rmtree(fetched, ignore_errors=True)
    for key in keys:
        path = fetched / key.removeprefix(_PREFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    shutil.rmtree(state.models, ignore_errors=True)
    fetched.rename(state.models)


def restore(state: StateFolder, s3: Any, bucket: str) -> int:
    """Put the saved models into `bucket`; the number of models."""
    if not state.models.is_dir():
        return 0
    files = [path for path in state.models.rglob("*") if path.is_file() and not path.name.endswith(_SIDECAR)]
    for path in sorted(files, key=lambda path: _key(state, path) == POINTER):
        s3.put_object(Bucket=bucket, Key=_key(state, path), Body=path.read_bytes())
    return sum(path.suffix == ".onnx" for path in files)


def _key(state: StateFolder, path: Path) -> str:
    return f"{_PREFIX}{path.relative_to(state.models).as_posix()}"
