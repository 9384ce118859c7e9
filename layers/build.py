"""Builds the layers but `core`: `python -m layers.build --target local|aws`.

Lambda runs Python 3.13 on x86_64 Linux, the emulator runs functions on the interpreter that runs it; hence
two targets, each in `.build/layers/<target>/<layer>/python`. Neither needs Docker: pip fetches wheels for the
target's platform. A layer is built in a temporary folder and moved into place, with its stamp written last,
so that an interrupted build is never taken for a layer. It is rebuilt only when its stamp no longer matches:
when its requirements, the target's interpreter or this file have changed. The layer `site` is a few files
(`layers.site_files`), written each time.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from layers import site_files
from layers.catalog import OF_FUNCTION, THIRD_PARTY

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build" / "layers"
TARGETS = ("local", "aws")

# Several platform tags at once: pip takes each literally, and no one of them covers all wheels we pin.
LAMBDA_PYTHON = "3.13"
LAMBDA_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)

# Lambda's limit for a function with its layers, unzipped.
LIMIT_BYTES = 250 * 1024 * 1024

# Not needed at run time: tests, bytecode, entry points, C headers, stubs, install records. Of onnx's tests,
# `onnx/backend/test` alone holds thousands of files; importing onnx does not touch it.
DROPPED = (
    "bin",
    "**/tests",
    "**/__pycache__",
    "onnx/backend/test",
    "numpy/_core/include",
    "**/*.pyc",
    "**/*.pyi",
    "*.dist-info/RECORD",
)


def pip_arguments(target: str) -> list[str]:
    """The arguments of `pip install` that choose wheels for `target`."""
    arguments = ["--no-deps", "--only-binary=:all:", "--no-compile"]
    if target == "aws":
        arguments += ["--implementation=cp", f"--python-version={LAMBDA_PYTHON}"]
        arguments += [f"--platform={platform}" for platform in LAMBDA_PLATFORMS]
    return arguments


def stamp_of(requirements: Path, target: str) -> str:
    """A digest of all that decides a layer's content: equal stamps, equal layers."""
    interpreter = f"{sysconfig.get_platform()} {sys.version_info[:2]}" if target == "local" else LAMBDA_PYTHON
    digest = hashlib.sha256(f"{target}\0{interpreter}\0".encode())
    digest.update(Path(__file__).read_bytes())
    digest.update(requirements.read_bytes())
    return digest.hexdigest()


def strip(folder: Path) -> None:
    """Removes files from an installed tree that no function needs at run time."""
    for pattern in DROPPED:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def size_bytes(folder: Path) -> int:
    """The size of a tree as Lambda counts it: the sum of its files, bytecode aside (never uploaded)."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def build(requirements: Path, target: str, destination: Path) -> bool:
    """Builds one layer into `destination`; False if it is up to date. Raises CalledProcessError."""
    stamp, stamp_file = stamp_of(requirements, target), destination.with_suffix(".stamp")
    if destination.is_dir() and stamp_file.is_file() and stamp_file.read_text("utf-8") == stamp:
        return False
    aside = destination.with_suffix(".partial")
    stamp_file.unlink(missing_ok=True)
    for leftover in (aside, destination):
        shutil.rmtree(leftover, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += [*pip_arguments(target), "--target", str(aside / "python"), "--requirement", str(requirements)]
    subprocess.run(command, check=True)
    strip(aside / "python")
    aside.rename(destination)
    stamp_file.write_text(stamp, "utf-8")
    return True


def too_large(layer_bytes: Mapping[str, int], function_bytes: Mapping[str, int]) -> list[str]:
    """Prints each function's total with its layers; returns those above Lambda's limit."""
    over = []
    for function, names in OF_FUNCTION.items():
        total = function_bytes.get(function, 0) + sum(layer_bytes[name] for name in names)
        print(f"layers: {function:18} {total / 1e6:6.1f} MB = {' + '.join(names)}")
        if total > LIMIT_BYTES:
            over.append(function)
    return over


def main() -> int:
    """Builds what is missing or outdated and prints sizes; exit status 1 on a failure or too large a size."""
    parser = argparse.ArgumentParser(prog="python -m layers.build", description="Builds the Lambda layers.")
    parser.add_argument("--target", choices=TARGETS, required=True)
    target = parser.parse_args().target
    layer_bytes = {"core": size_bytes(ROOT / "layers" / "core")}
    for name in THIRD_PARTY:
        destination = BUILD / target / name
        print(f"layers: {name} for {target} …", flush=True)
        try:
            built = build(ROOT / "layers" / name / "requirements.txt", target, destination)
        except subprocess.CalledProcessError as error:
            print(f"layers: {name}: pip failed with status {error.returncode}; see above", file=sys.stderr)
            return 1
        layer_bytes[name] = size_bytes(destination)
        print(f"layers: {name} {layer_bytes[name] / 1e6:.1f} MB, {'built' if built else 'up to date'}")
    site_files.build(BUILD / target / "site")
    layer_bytes["site"] = size_bytes(BUILD / target / "site")
    over = too_large(layer_bytes, {name: size_bytes(ROOT / "lambdas" / name) for name in OF_FUNCTION})
    if over:
        limit_mb = LIMIT_BYTES / 1e6
        print(f"layers: above Lambda's {limit_mb:.0f} MB unzipped: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
