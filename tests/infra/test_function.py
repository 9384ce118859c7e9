"""A function's variables: those that its settings name, all of them and no other."""

from __future__ import annotations

from pathlib import Path

import aws_cdk
import pytest

from cdk.components.function import Function
from cdk.components.hot_store import LocalServer
from cdk.components.layers import Layers
from cdk.config import load
from layers.catalog import BUILT
from tests.fixtures.settings import VARIABLES
from tickcast.adapters.settings import PlanBackfillSettings, PromoteModelSettings, Settings


def function_of(folder: Path, name: str, settings: type[Settings]) -> tuple[aws_cdk.App, Function]:
    for layer in BUILT:
        (folder / layer).mkdir()
    app = aws_cdk.App(outdir=str(folder / "out"))
    stack = aws_cdk.Stack(app, "tickcast")
    return app, Function(
        stack,
        name,
        description="Under test",
        settings=settings,
        environment=load("local"),
        layers=Layers(stack, "Layers", folder=folder, environment_name="local"),
        variables={name: text for name, text in VARIABLES.items() if not name.startswith("REDIS_")},
        vpc=None,
    )


def test_a_variable_that_nothing_sets_fails_the_synthesis(tmp_path: Path) -> None:
    app, _ = function_of(tmp_path, "plan_backfill", PlanBackfillSettings)
    with pytest.raises(RuntimeError, match="plan_backfill reads REDIS_HOST, which nothing sets"):
        app.synth()


def test_a_grant_sets_the_other_variables(tmp_path: Path) -> None:
    app, function = function_of(tmp_path, "plan_backfill", PlanBackfillSettings)
    LocalServer("127.0.0.1", 6379).grant(function, "reader")
    app.synth()


def test_a_grant_of_what_the_function_does_not_read_is_an_error(tmp_path: Path) -> None:
    _, function = function_of(tmp_path, "promote_model", PromoteModelSettings)
    with pytest.raises(ValueError, match="PromoteModel does not read REDIS_HOST"):
        LocalServer("127.0.0.1", 6379).grant(function, "reader")
