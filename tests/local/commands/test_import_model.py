"""`make import-model`: what it reads, what it asks for, what it says."""

from __future__ import annotations

import argparse
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from local.commands import import_model
from local.commands.deployment import Deployment
from local.system.cloud import FunctionFailed
from local.system.options import OptionsError
from tests.fixtures.aws import BUCKET
from tests.fixtures.imported import document, linear
from tickcast.model.forecast import HORIZONS_S

NOW = datetime(2026, 11, 27, tzinfo=UTC)
WEIGHTS = np.full((2, 4), 0.1)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.json"
    path.write_text(json.dumps(document()), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear(WEIGHTS))
    return path


class Functions:
    """AWS Lambda with one function, which gives `answer`."""

    def __init__(self, answer: Any, *, is_error: bool = False) -> None:
        self.answer = answer
        self.is_error = is_error
        self.requests: list[Any] = []

    def invoke(self, FunctionName: str, Payload: str) -> dict[str, Any]:  # noqa: N803
        self.requests.append((FunctionName, json.loads(Payload)))
        error = {"FunctionError": "Unhandled"} if self.is_error else {}
        return {"Payload": io.BytesIO(json.dumps(self.answer).encode())} | error


def deployment_with(s3: Any, functions: Functions) -> Deployment:
    outputs = {"BucketName": BUCKET, "TrainModelFunction": "train"}
    return Deployment("here", outputs, {"s3": s3, "lambda": functions}.__getitem__)


def test_a_model_is_staged_and_the_function_is_asked(s3: Any, file: Path, card: Path) -> None:
    functions = Functions({"imported": True})
    submitted = import_model.submission([file], card, NOW)
    assert import_model.submit(deployment_with(s3, functions), submitted) == {"imported": True}
    assert re.fullmatch(r"20261127T000000Z-[0-9a-f]{8}", submitted.model_id)
    staged = s3.get_object(Bucket=BUCKET, Key=f"models/{submitted.model_id}/imported-0.onnx")["Body"].read()
    assert staged == file.read_bytes()
    asked = {"model_id": submitted.model_id, "files": 1, "description": document()}
    assert functions.requests == [("train", {"import": asked})]


def test_a_file_for_each_instant_is_staged_in_its_order(s3: Any, tmp_path: Path, card: Path) -> None:
    paths = []
    for horizon_s in HORIZONS_S:
        paths.append(tmp_path / f"{horizon_s:02}s.onnx")
        paths[-1].write_bytes(linear(WEIGHTS[:, :1] * horizon_s))
    submitted = import_model.submission(paths, card, NOW)
    assert submitted.files == tuple(path.read_bytes() for path in paths)


def test_an_error_of_the_function_is_raised(s3: Any, file: Path, card: Path) -> None:
    functions = Functions({"errorType": "OperationalError", "errorMessage": "no route"}, is_error=True)
    submitted = import_model.submission([file], card, NOW)
    with pytest.raises(FunctionFailed, match="no route"):
        import_model.submit(deployment_with(s3, functions), submitted)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "is not JSON"),
        ("[]", "the model's description: Expected `object`, got `array`"),
        (json.dumps(document(learned_to="2027-01-01")), "which is in the future (docs/model.md"),
        (json.dumps(document(inputs=["imbalance"])), "its input x has 2 columns, its description names 1"),
    ],
)
def test_what_cannot_be_imported_is_refused_before_anything_is_sent(
    file: Path, card: Path, text: str, named: str
) -> None:
    card.write_text(text, "utf-8")
    with pytest.raises(OptionsError, match=re.escape(named)):
        import_model.submission([file], card, NOW)


def test_a_missing_file_is_named(file: Path, card: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"FILE .*other\.onnx: No such file"):
        import_model.submission([tmp_path / "other.onnx"], card, NOW)
    with pytest.raises(OptionsError, match=r"CARD .*other\.json: No such file"):
        import_model.submission([file], tmp_path / "other.json", NOW)


def test_a_model_that_fails_on_random_rows_is_refused(tmp_path: Path, card: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(linear(np.full((2, 4), np.nan)))
    with pytest.raises(OptionsError, match="is not finite"):
        import_model.submission([path], card, NOW)


def found(**fields: Any) -> dict[str, Any]:
    by_horizon = {str(h): {"skill": 0.05, "direction": 0.6} for h in HORIZONS_S}
    calibration = {str(h): {"interval_width": 1.1, "direction_slope": 1.5} for h in HORIZONS_S}
    imported = {"name": "mine", "symmetric": False, "asymmetry": 0.25, "run_ms": 0.2}
    card = {"imported": imported, "test": by_horizon, "calibration": calibration}
    about = {"model_id": "m2", "challenger": "m2", "in_force": "m1", "status": "kept", "sentence": "Better."}
    return {"imported": True, "why": None, "card": card} | about | fields


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "It runs in the shadow of m1"),
        ({"challenger": None}, "It does not run in shadow. `make promote ID=m2`"),
        ({"challenger": None, "in_force": None}, "No model is active that it could shadow"),
        ({"challenger": None, "status": "outdated"}, "The champion changed meanwhile"),
    ],
)
def test_what_became_of_it_is_said(fields: dict[str, Any], named: str) -> None:
    first, second = import_model.lines(found(**fields))
    assert first == "It is not symmetric (moves differ by 25.0%); 20 rows take 0.2 ms. Better."
    assert second.startswith(named)


def test_figures_are_shown_by_horizon() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(import_model.table(found()["card"]))
    text = console.export_text()
    assert all(each in text for each in ("mine", "10 s", "0.050", "0.600", "1.100", "1.500"))
    assert import_model.lines({"imported": False, "why": "it is slow"}) == ["Not imported: it is slow."]


def test_a_name_is_shown_as_it_is(
    s3: Any, file: Path, card: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "mine [/b] [red]"
    card.write_text(json.dumps(document(name=name)), "utf-8")
    answer = found()
    answer["card"]["imported"]["name"] = name
    there = deployment_with(s3, Functions(answer))
    monkeypatch.setattr("local.commands.deployment.existing", lambda aws: there)
    import_model.run(argparse.Namespace(file=[file], card=card, aws=""))
    assert capsys.readouterr().err.count(name) == 2


def test_the_arguments_are_those_of_make(file: Path, card: Path) -> None:
    parser = argparse.ArgumentParser()
    import_model.add_arguments(parser)
    given = parser.parse_args(["--file", str(file), str(file), "--card", str(card), "--aws", "dev"])
    assert (given.file, given.card, given.aws) == ([file, file], card, "dev")
