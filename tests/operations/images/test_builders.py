"""How the images are built, without building them: the builder, the pinned base, the locked packages, and
what is in their contexts."""

from __future__ import annotations

import re
from pathlib import Path

import aws_cdk
import pytest
from aws_cdk import aws_ecr_assets as ecr_assets

from cdk.components.fargate_task import left_out
from operations.__main__ import main
from operations.failures import OperationRefused
from operations.images.builders import IMAGES, Image, build_command, choose
from tests.fixtures.paths import ROOT

BASE = re.compile(r"FROM public\.ecr\.aws/docker/library/python:3\.13-[a-z-]+@sha256:[0-9a-f]{64}")
EACH = pytest.mark.parametrize("image", IMAGES, ids=[image.folder for image in IMAGES])


def dockerfile(image: Image) -> str:
    return (ROOT / image.dockerfile).read_text("utf-8")


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", text, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_all_images_are_of_one_base_pinned_by_its_digest() -> None:
    texts = [*map(dockerfile, IMAGES), (ROOT / "local" / "containers" / "Dockerfile").read_text("utf-8")]
    (base,) = {line for text in texts for line in re.findall("^FROM .*$", text, re.MULTILINE)}
    assert BASE.fullmatch(base)


@EACH
def test_packages_are_installed_by_their_hashes(image: Image) -> None:
    assert "--require-hashes --requirement requirements.lock" in dockerfile(image)
    lock = (ROOT / image.folder / "requirements.lock").read_text("utf-8")
    assert pins(lock) == pins((ROOT / image.folder / "requirements.txt").read_text("utf-8"))
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


@EACH
def test_copied_files_can_be_read_whatever_the_umask_of_the_clone(image: Image) -> None:
    copied = re.findall("^COPY (.*)$", dockerfile(image), re.MULTILINE)
    assert copied
    assert all(each.startswith("--chmod=755 ") for each in copied)


def staged(image: Image, folder: Path) -> set[str]:
    """The files that the CDK stages for `image`, and Docker gets as its context."""
    app = aws_cdk.App(outdir=str(folder))
    stack = aws_cdk.Stack(app, "Stack")
    asset = ecr_assets.DockerImageAsset(
        stack, "Image", directory=str(ROOT), file=image.dockerfile, exclude=left_out(image.dockerfile)
    )
    (context,) = folder.glob(f"asset.{asset.asset_hash}")
    return {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}


def test_a_context_has_what_its_image_is_made_of(tmp_path: Path) -> None:
    ingest = staged(IMAGES[0], tmp_path / "ingest")
    assert {name.split("/")[0] for name in ingest} == {"ingest_ecs", "layers"}
    assert {"ingest_ecs/__main__.py", "ingest_ecs/requirements.lock", "ingest_ecs/Dockerfile"} <= ingest
    assert "layers/core/python/tickcast/market/wire.py" in ingest
    assert not [name for name in ingest if "__pycache__" in name]


def test_a_migration_rebuilds_only_its_own_image(tmp_path: Path) -> None:
    migrations = staged(IMAGES[1], tmp_path / "migrations")
    written = {f"migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    assert migrations == {
        *written,
        "migrations/Dockerfile",
        "migrations/requirements.lock",
        "layers/core/python/tickcast/adapters/postgres/rds_roots.pem",
    }
    assert not {name for name in staged(IMAGES[0], tmp_path / "ingest") if name.startswith("migrations")}


def test_the_first_builder_that_works_is_taken() -> None:
    assert choose(does_work=lambda builder: True) == "docker"
    assert choose(does_work=lambda builder: builder != "docker") == "podman"
    assert choose("buildah", does_work=lambda builder: True) == "buildah"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("", "install docker"), ("podman", "BUILDER=podman does not run here"), ("kaniko", "should be one of")],
)
def test_why_nothing_can_be_built(wanted: str, reason: str) -> None:
    with pytest.raises(OperationRefused, match=reason):
        choose(wanted, does_work=lambda builder: False)


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_builders_without_docker_s_conventions_are_told_them(builder: str) -> None:
    command = build_command(
        builder, IMAGES[0], base="python:3.13", platform="linux/arm64", options=["--quiet"]
    )
    assert command[:2] == [builder, "bud" if builder == "buildah" else "build"]
    for option, value in (
        ("--format", "docker"),  # an OCI image has no health check
        ("--ignorefile", "ingest_ecs/Dockerfile.dockerignore"),
        ("--from", "python:3.13"),
        ("--platform", "linux/arm64"),
    ):
        assert command[command.index(option) + 1] == value
    assert command[-2:] == ["--quiet", "."]


def test_docker_builds_on_the_pinned_base_alone() -> None:
    assert build_command("docker", IMAGES[1])[-1] == "."
    with pytest.raises(OperationRefused, match="BASE"):
        build_command("docker", IMAGES[1], base="python:3.13")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--platform", "sparc"], "PLATFORM is 'sparc'; it should be one of linux/amd64, linux/arm64"),
        (["--platform", "arm64"], "PLATFORM is 'arm64'"),
        (["--options", "--label 'a"], 'BUILD_OPTIONS is "--label \'a": No closing quotation'),
        (["--builder", "kaniko"], "BUILDER is 'kaniko'"),
    ],
)
def test_what_cannot_be_built_for_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["images", *arguments]) == 2
    assert message in capsys.readouterr().err
