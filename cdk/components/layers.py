"""The Lambda layers, from what `layers.build` left in its folder."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Annotations, RemovalPolicy
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from layers.catalog import BUILT, OF_FUNCTION

RUNTIME = lambda_.Runtime.PYTHON_3_13
ARCHITECTURE = lambda_.Architecture.X86_64
CORE = Path(__file__).resolve().parents[2] / "layers" / "core"


class Layers(Construct):
    """The layer `core` from the repository and those that are built from `folder`."""

    def __init__(self, scope: Construct, construct_id: str, *, folder: Path, environment_name: str) -> None:
        super().__init__(scope, construct_id)
        folders = {"core": CORE} | {name: folder / name for name in BUILT}
        for path in folders.values():
            if not path.is_dir():
                # An error of the construct, not an exception: `cdk bootstrap` and `cdk destroy` go through
                # the app in a fresh clone too, and only what deploys or synthesises is refused.
                Annotations.of(self).add_error(
                    f"no layer at {path}: run `make layers ENV={environment_name}` first"
                )
        folders = {name: path if path.is_dir() else CORE for name, path in folders.items()}
        self._versions = {
            name: lambda_.LayerVersion(
                self,
                name.capitalize(),
                description=f"tickcast: {name}",
                # Bytecode appears whenever tests run and would change the asset, so the layer, every time.
                code=lambda_.Code.from_asset(str(path), exclude=["**/__pycache__"]),
                compatible_runtimes=[RUNTIME],
                compatible_architectures=[ARCHITECTURE],
                removal_policy=RemovalPolicy.DESTROY,
            )
            for name, path in folders.items()
        }

    def of(self, function: str) -> list[lambda_.ILayerVersion]:
        """The layers of one function, by the catalog."""
        return [self._versions[name] for name in OF_FUNCTION[function]]
