"""Models carried from one emulated bucket on disk into the next; the bucket is moto's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.system import model_backup, state_folder
from local.system.state_folder import StateFolder
from tests.fixtures.aws import BUCKET


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    monkeypatch.setattr(state_folder, "LOCAL", tmp_path)
    folder = StateFolder("sim")
    folder.path.mkdir()
    return folder


def write_bucket(state: StateFolder, model_id: str, *, with_pointer: bool = True) -> None:
    """The emulator's files on disk: objects under account and bucket, each with a sidecar."""
    bucket = state.s3 / "000000000000" / f"bucket-{model_id}"
    files = {f"models/{model_id}/model.onnx": model_id, "bronze/old.avro": "ticks"}
    if with_pointer:
        files[model_backup.POINTER] = f'{{"model_id": "{model_id}"}}'
    for key, text in files.items():
        path = bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.with_name(path.name + ".meta.json").write_text("{}")


def objects(s3: Any) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_models_are_restored_and_the_rest_is_deleted(state: StateFolder, s3: Any) -> None:
    write_bucket(state, "m1")
    model_backup.save(state)
    assert list(state.s3.iterdir()) == []
    assert model_backup.restore(state, s3, BUCKET) == 1
    assert objects(s3) == ["models/current.json", "models/m1/model.onnx"]
    assert s3.get_object(Bucket=BUCKET, Key="models/m1/model.onnx")["Body"].read() == b"m1"


def test_a_run_killed_before_the_models_were_restored_loses_none(state: StateFolder, s3: Any) -> None:
    write_bucket(state, "m1")
    model_backup.save(state)
    write_bucket(state, "m1", with_pointer=False)  # the pointer is restored last
    model_backup.save(state)
    model_backup.restore(state, s3, BUCKET)
    assert "models/current.json" in objects(s3)


def test_newer_models_replace_saved_ones(state: StateFolder, s3: Any) -> None:
    for model_id in ("m1", "m2"):
        write_bucket(state, model_id)
        model_backup.save(state)
    model_backup.restore(state, s3, BUCKET)
    assert objects(s3) == ["models/current.json", "models/m2/model.onnx"]


def test_a_first_run_has_no_models_to_restore(state: StateFolder, s3: Any) -> None:
    model_backup.save(state)
    assert model_backup.restore(state, s3, BUCKET) == 0


def test_models_are_fetched_from_an_emulator_that_keeps_no_files(state: StateFolder, s3: Any) -> None:
    model_backup.fetch(state, s3, BUCKET)  # without a pointer there is nothing to save
    assert not state.models.exists()
    s3.put_object(Bucket=BUCKET, Key="models/m1/model.onnx", Body=b"m1")
    s3.put_object(Bucket=BUCKET, Key=model_backup.POINTER, Body=b"{}")
    s3.put_object(Bucket=BUCKET, Key="bronze/old.avro", Body=b"ticks")
    model_backup.fetch(state, s3, BUCKET)
    s3.delete_object(Bucket=BUCKET, Key="models/m1/model.onnx")
    s3.put_object(Bucket=BUCKET, Key="models/m2/model.onnx", Body=b"m2")
    model_backup.fetch(state, s3, BUCKET)
    found = {path.relative_to(state.models).as_posix() for path in state.models.rglob("*") if path.is_file()}
    assert found == {"current.json", "m2/model.onnx"}
    model_backup.save(state)  # as the next run does; it does not lose them
    assert model_backup.restore(state, s3, BUCKET) == 1
