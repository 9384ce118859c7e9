"""Imports go one way: handlers, ingest and local → functions → adapters → the pure rooms, and in those
market ← features ← model ← evaluation, serving."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.paths import ROOT

PACKAGE = ROOT / "layers" / "core" / "python" / "tickcast"
# What each room may import of the package besides itself. At the top are `sbe` and `units`, without imports.
ROOMS = {
    "": set(),
    "market": {""},
    "features": {"", "market"},
    "model": {"", "market", "features"},
    "evaluation": {"", "market", "features", "model"},
    "serving": {"", "market", "features", "model"},
    "adapters": {"", "market", "features", "model", "evaluation", "serving"},
    "functions": {"", "market", "features", "model", "evaluation", "serving", "adapters"},
}
PURE = {"", "market", "features", "model", "evaluation", "serving"}
# No I/O and no clock: what could do either is not imported.
BANNED = {"socket", "asyncio", "urllib", "http", "subprocess", "os", "time", "datetime"}
LIBRARIES = {"numpy", "msgspec"}
OUTSIDE = {"lambdas", "ingest_ecs", "local", "cdk", "operations", "tests", "benchmarks"}
modules = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that `path` imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The room of a module of the package: "market" of tickcast.market.wire, "" of tickcast.sbe."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def module_name(path: Path) -> str:
    return ".".join(("tickcast", *path.relative_to(PACKAGE).with_suffix("").parts))


def test_every_module_is_in_a_room() -> None:
    assert len(modules) > 50
    folders = {path.relative_to(PACKAGE).parts[0] for path in modules if path.parent != PACKAGE}
    assert folders == ROOMS.keys() - {""}


@pytest.mark.parametrize("path", modules, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(module_name(path))
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in OUTSIDE, name
        if top == "tickcast":
            assert room_of(name) in ROOMS[room] | {room}, f"{room or 'the top'} imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in modules if room_of(module_name(path)) in PURE], ids=module_name
)
def test_pure_rooms_need_the_standard_library_numpy_and_msgspec_alone(path: Path) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names | LIBRARIES | {"tickcast"}, name
        assert top not in BANNED, name


def test_handlers_are_thin() -> None:
    handlers = sorted(ROOT.glob("lambdas/*/handler.py"))
    assert len(handlers) >= 4
    for handler in handlers:
        assert len(handler.read_text().splitlines()) <= 60, handler
        for name in imported(handler):
            assert name.split(".")[0] not in OUTSIDE, name


def test_every_handler_has_a_use_case_of_its_name() -> None:
    for handler in sorted(ROOT.glob("lambdas/*/handler.py")):
        assert f"tickcast.functions.{handler.parent.name}" in set(imported(handler)), handler


def test_the_product_does_not_know_its_local_stand_ins() -> None:
    for path in (*ROOT.glob("ingest_ecs/**/*.py"), *ROOT.glob("cdk/**/*.py"), ROOT / "app.py"):
        for name in imported(path):
            assert name.split(".")[0] not in {"local", "tests"}, f"{path}: {name}"
