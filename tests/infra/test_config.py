"""The environments' configuration: mistakes are errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import aws_cdk
import pytest
from pydantic import ValidationError

from app import compose
from cdk.config import Environment, load


def test_an_unknown_environment_names_the_known() -> None:
    with pytest.raises(ValueError, match="no environment 'staging': one of dev, local, prod"):
        load("staging")


def test_a_mistyped_setting_is_an_error() -> None:
    with pytest.raises(ValidationError, match="shard"):
        Environment.model_validate({"name": "dev", "stream": {"shard": 2}})


def test_defaults() -> None:
    environment = Environment(name="dev")
    assert environment.region == "ap-northeast-1"
    assert environment.functions.predict_stream.reserved_concurrency is None
    assert load("local").aws is None
    assert load("prod").aws is not None


@pytest.mark.parametrize("prediction", [{"fee_bp": -1}, {"min_confidence": 0.4}, {"min_confidence": 1}])
def test_terms_that_make_no_sense_are_errors(prediction: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(prediction))):
        Environment.model_validate({"name": "dev", "prediction": prediction})


def test_missing_layers_say_how_to_build_them(tmp_path: Path) -> None:
    app = aws_cdk.App(
        context={"env": "local", "layers_dir": str(tmp_path / "nowhere")}, outdir=str(tmp_path / "out")
    )
    with pytest.raises(FileNotFoundError, match="run `make layers ENV=local` first"):
        compose(app)
