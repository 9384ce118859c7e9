"""Imports go one way: handlers, ingest and local → adapters → core → the standard library and numpy."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "layers" / "core" / "python" / "tickcast"
core_modules = sorted(CORE.glob("*.py"))
adapter_modules = sorted((CORE / "adapters").glob("*.py"))
# No I/O and no clock: what could do either is not imported.
BANNED = {"socket", "asyncio", "urllib", "http", "subprocess", "os", "time", "datetime"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)


@pytest.mark.parametrize("path", core_modules, ids=lambda p: p.stem)
def test_core_needs_the_standard_library_and_numpy_alone(path: Path) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names | {"numpy", "tickcast"}, name
        assert not name.startswith("tickcast.adapters"), name
        assert top not in BANNED, name


@pytest.mark.parametrize("path", adapter_modules, ids=lambda p: p.stem)
def test_adapters_know_no_handler(path: Path) -> None:
    for name in imported(path):
        assert name.split(".")[0] not in {"lambdas", "ingest_ecs", "local", "cdk", "tests"}, name


def test_handlers_are_thin() -> None:
    handlers = sorted(ROOT.glob("lambdas/*/handler.py"))
    assert len(handlers) >= 4
    for handler in handlers:
        assert len(handler.read_text().splitlines()) <= 60, handler
        for name in imported(handler):
            assert name.split(".")[0] not in {"ingest_ecs", "local", "cdk", "tests"}, name


def test_the_product_does_not_know_its_local_stand_ins() -> None:
    for path in (*ROOT.glob("ingest_ecs/*.py"), *ROOT.glob("cdk/**/*.py"), ROOT / "app.py"):
        for name in imported(path):
            assert name.split(".")[0] not in {"local", "tests"}, f"{path}: {name}"
