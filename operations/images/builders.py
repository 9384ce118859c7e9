"""The images and the programs that build them: docker, podman or buildah, the first that works."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from local.commands.command import Command, ExitStatus
from local.system.state_folder import ROOT
from operations.failures import OperationFailed, OperationRefused

BUILDERS = ("docker", "podman", "buildah")
PLATFORMS = ("linux/amd64", "linux/arm64")  # whose packages have hashes in requirements.lock


class Image(NamedTuple):
    """An image of the Dockerfile in `folder`; its context is the repository's root."""

    name: str
    folder: str

    @property
    def dockerfile(self) -> str:
        return f"{self.folder}/Dockerfile"

    @property
    def ignored(self) -> str:
        """The file with the patterns of what stays out of the context."""
        return f"{self.dockerfile}.dockerignore"


IMAGES = (Image("tickcast-ingest", "ingest_ecs"), Image("tickcast-migrations", "migrations"))


def works(builder: str) -> bool:
    """Whether `builder` is installed and, of docker, whether its engine answers and has BuildKit, without
    which it does not know `COPY --chmod`."""
    if shutil.which(builder) is None:
        return False
    commands = [[builder, "version"], *([[builder, "buildx", "version"]] if builder == "docker" else [])]
    return not any(
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        for command in commands
    )


def choose(wanted: str = "", does_work: Callable[[str], bool] = works) -> str:
    """The builder `wanted`, by default the first that works. Raises `OperationRefused`."""
    if wanted:
        if wanted not in BUILDERS:
            raise OperationRefused(f"BUILDER is {wanted!r}; it should be one of {', '.join(BUILDERS)}")
        if not does_work(wanted):
            raise OperationRefused(
                f"BUILDER={wanted} does not run here: `{wanted} version` fails"
                + (", or `docker buildx version`" if wanted == "docker" else "")
            )
        return wanted
    for builder in BUILDERS:
        if does_work(builder):
            return builder
    raise OperationRefused(
        "nothing here builds images: install docker (and start its engine), podman or buildah. Only the "
        "deployment to AWS and docker compose need images; `make run` and the tests do not"
    )


def build_command(
    builder: str, image: Image, *, base: str = "", platform: str = "", options: Sequence[str] = ()
) -> list[str]:
    """The command that builds `image`, from the repository's root. `base` replaces the base image. Raises
    `OperationRefused`."""
    command = [builder, "bud" if builder == "buildah" else "build"]
    command += ["--file", image.dockerfile, "--tag", image.name]
    if builder == "docker":  # finds the ignored file by itself, and keeps the health check
        if base:
            raise OperationRefused("BASE is for podman and buildah; docker builds on the pinned base alone")
    else:
        command += ["--format", "docker", "--layers", "--ignorefile", image.ignored]
    if base:
        command += ["--from", base]
    if platform:
        command += ["--platform", platform]
    return [*command, *options, "."]


def build(command: Sequence[str], image: Image) -> None:
    """Run a `build_command`, its output on stderr. Raises `OperationFailed`."""
    done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
    if done.returncode:
        raise OperationFailed(f"{image.name} was not built: `{shlex.join(command)}` failed, see above")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--builder", default="", help=f"{', '.join(BUILDERS)}; default: the first that works")
    parser.add_argument("--base", default="", help="an image in place of the pinned base")
    parser.add_argument("--platform", default="", help="linux/amd64 or linux/arm64; default: this machine's")
    parser.add_argument("--options", default="", help="further options of the builder")


def _run(given: argparse.Namespace) -> ExitStatus:
    if given.platform and given.platform not in PLATFORMS:
        raise OperationRefused(f"PLATFORM is {given.platform!r}; it should be one of {', '.join(PLATFORMS)}")
    try:
        options = shlex.split(given.options)
    except ValueError as error:
        raise OperationRefused(f"BUILD_OPTIONS is {given.options!r}: {error}") from None
    builder = choose(given.builder)
    for image in IMAGES:
        command = build_command(builder, image, base=given.base, platform=given.platform, options=options)
        print(f"images: {image.name} with {builder}", file=sys.stderr)
        build(command, image)
    print(f"images: built {' and '.join(image.name for image in IMAGES)}")
    return ExitStatus.OK


COMMAND = Command("images", "build the container images", _add_arguments, _run)
