"""The layers' builder without pip: what it strips, when it builds again, when a function is too large."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from layers import build
from layers.catalog import BUILT, OF_FUNCTION
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
    product = pins(ROOT / "requirements.txt")
    for file in (*ROOT.glob("layers/*/requirements.txt"), ROOT / "ingest_ecs" / "requirements.txt"):
        for name, version in pins(file).items():
            assert product.get(name, version) == version, f"{file}: {name}"
