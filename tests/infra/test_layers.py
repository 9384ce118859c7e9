"""The layers' builder without pip: what it strips, when it builds again, when a function is too large."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from layers import build
from layers.catalog import BUILT, MOST_LAYERS, OF_FUNCTION, THIRD_PARTY
from tests.fixtures.paths import ROOT


def write(file: Path, size: int = 1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    return file


def pins(file: Path) -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^\s;]+)", file.read_text("utf-8"), re.M)
    return {name.lower().replace("_", "-"): version for name, version in lines}


def test_strip_removes_what_no_function_needs(tmp_path: Path) -> None:
    dropped = (
        "numpy/tests/test_a.py",
        "numpy/linalg/tests/data/b.npy",
        "numpy/__pycache__/c.pyc",
        "onnx/backend/test/data/d.pb",
        "numpy/py.pyi",
        "numpy-2.dist-info/RECORD",
        "bin/f2py",
    )
    kept = (
        "numpy/testing/__init__.py",
        "numpy-2.dist-info/METADATA",
        "onnx/backend/base.py",
        "redis/bin/x.py",
    )
    for name in (*dropped, *kept):
        write(tmp_path / name)
    build.strip(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)


def test_size_counts_what_lambda_counts(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b.py", 100)
    write(tmp_path / "a" / "__pycache__" / "b.pyc", 1000)
    assert build.size_bytes(tmp_path) == 100


def test_stamp_follows_requirements_and_target(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("numpy==1\n", "utf-8")
    first = build.stamp_of(requirements, "aws")
    assert build.stamp_of(requirements, "aws") == first != build.stamp_of(requirements, "local")
    requirements.write_text("numpy==2\n", "utf-8")
    assert build.stamp_of(requirements, "aws") != first


def test_a_current_layer_is_kept_and_a_partial_one_rebuilt(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"tiny @ {wheel.as_uri()}\n", "utf-8")
    destination = tmp_path / "data"
    half = write(tmp_path / "data.partial" / "python" / "half.py")
    assert build.build(requirements, "local", destination)
    assert (destination / "python" / "tiny.py").is_file() and not half.exists()
    assert not build.build(requirements, "local", destination)
    (tmp_path / "data.stamp").unlink()  # as after a kill before the build was complete
    assert build.build(requirements, "local", destination)


def test_a_function_above_the_limit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = dict.fromkeys((*BUILT, "core"), 1)
    sizes |= {"data": 100 << 20, "inference": 100 << 20, "training": 60 << 20}
    assert build.too_large(sizes, {}) == ["train_model"]
    assert "train_model" in capsys.readouterr().out


def test_only_lambda_wheels_go_into_the_aws_layers() -> None:
    arguments = build.pip_arguments("aws")
    assert "--only-binary=:all:" in arguments and "--python-version=3.13" in arguments
    assert all("x86_64" in argument for argument in arguments if argument.startswith("--platform"))


def test_each_layer_is_used_and_pins_agree() -> None:
    assert set(BUILT) | {"core"} == {name for names in OF_FUNCTION.values() for name in names}
    tested = pins(ROOT / "constraints.txt")
    for file in (*ROOT.glob("layers/*/requirements.txt"), ROOT / "ingest_ecs" / "requirements.txt"):
        for name, version in pins(file).items():
            # What this interpreter does not need is not among what the tests ran with.
            assert tested.get(name, version) == version, f"{file}: {name}"
            assert name in tested or name == "async-timeout", f"{file}: {name}"


def test_no_function_has_more_layers_than_lambda_allows() -> None:
    assert max(map(len, OF_FUNCTION.values())) <= MOST_LAYERS


def of_layers(function: str) -> dict[str, str]:
    """The versions of the packages in a function's layers."""
    files = [ROOT / "layers" / name / "requirements.txt" for name in OF_FUNCTION[function]]
    return {name: version for file in files if file.is_file() for name, version in pins(file).items()}


def imported(file: Path) -> set[str]:
    """The first names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("function", OF_FUNCTION)
def test_a_function_imports_nothing_that_only_the_runtime_has(function: str) -> None:
    """Neither its handler nor what its packages need: the runtime's versions change without notice."""
    packages = importlib.metadata.packages_distributions()
    third_party = (
        imported(ROOT / "lambdas" / function / "handler.py") - {"tickcast"} - sys.stdlib_module_names
    )
    needed = {canonical(packages[module][0]) for module in third_party}
    pinned = of_layers(function)
    assert needed <= set(pinned), needed - set(pinned)
    for name in pinned:
        if name != "async-timeout":  # for interpreters older than Lambda's
            assert requirements_of(name) <= set(pinned) | NOT_IMPORTED, name


# Required by onnxruntime's metadata, and imported only by its tools, of which no function uses any.
NOT_IMPORTED = {"sympy", "coloredlogs", "mpmath"}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def requirements_of(name: str) -> set[str]:
    """What a package always needs on Lambda, by its metadata."""
    lambdas = {"python_version": "3.13", "python_full_version": "3.13.0", "extra": ""}
    lambdas |= {"platform_system": "Linux", "sys_platform": "linux", "implementation_name": "cpython"}
    found = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    return {canonical(each.name) for each in found if not each.marker or each.marker.evaluate(lambdas)}


def test_the_core_package_imports_only_what_layers_have() -> None:
    packages = importlib.metadata.packages_distributions()
    everywhere = {name for function in OF_FUNCTION for name in of_layers(function)}
    for file in ROOT.glob("layers/core/python/tickcast/**/*.py"):
        for module in imported(file) - {"tickcast", "tickcast_site"} - sys.stdlib_module_names:
            assert canonical(packages[module][0]) in everywhere, f"{file}: {module}"


def test_every_function_has_the_sdk_of_the_tests() -> None:
    """The runtime's own may lack what the code uses: `Retry(backoff_jitter=…)` is of urllib3 2."""
    tested = pins(ROOT / "constraints.txt")
    for function in OF_FUNCTION:
        for name in ("boto3", "botocore", "s3transfer", "urllib3"):
            assert of_layers(function)[name] == tested[name]


@pytest.mark.parametrize("target", build.TARGETS)
def test_a_built_layer_has_its_pins(target: str) -> None:
    checked = 0
    for name in THIRD_PARTY:
        requirements, folder = ROOT / "layers" / name / "requirements.txt", build.BUILD / target / name
        stamp = folder.with_suffix(".stamp")
        if not stamp.is_file() or stamp.read_text("utf-8") != build.stamp_of(requirements, target):
            continue
        found = {
            canonical(about.name): about.version
            for about in importlib.metadata.distributions(path=[str(folder / "python")])
        }
        for package, version in pins(requirements).items():
            assert found.get(package, version) == version, package
            assert package in found or package == "async-timeout", package
        checked += 1
    if not checked:
        pytest.skip(f"no layer of the target {target} is built: `make layers`")
