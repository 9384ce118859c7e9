"""The CDK app: `cdk deploy --all -c env=local|dev|prod`.

It synthesises anywhere: no credentials, no git, no network, no Docker. What it needs to know comes as
context: `env` (default local); `symbols`, the exchange's `rest_url` and a file of `signals`, if not those of
the configuration; for local, `redis_host` and `redis_port`, `database_host` and `database_port` of the
servers in place of cache and database; `layers_dir`, if the layers are not where `make layers` builds them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aws_cdk

from cdk.components.database import LocalDatabase
from cdk.components.hot_store import LocalServer
from cdk.config import ConfigError, Environment, load
from cdk.stacks.app import AppStack, AwsAppStack
from cdk.stacks.data import AwsDataStack, DataStack
from cdk.stacks.network import NetworkStack
from tickcast.adapters.settings import Port
from tickcast.adapters.variables import HttpUrl, SettingsError, value

BUILT_LAYERS = Path(__file__).resolve().parent / ".build" / "layers"


def compose(app: aws_cdk.App) -> Environment:
    """Puts the stacks of the environment named in the context into `app`."""
    environment = load(
        _context(app, "env", "local"),
        symbols=_context(app, "symbols", ""),
        rest_url=_context(app, "rest_url", ""),
        signals=_context(app, "signals", ""),
    )
    compose_environment(app, environment)
    return environment


def compose_environment(app: aws_cdk.App, environment: Environment) -> None:
    """Puts the stacks of `environment` into `app`."""
    built = BUILT_LAYERS / ("aws" if environment.aws else "local")
    layers_folder = Path(_context(app, "layers_dir", str(built)))
    prefix = f"tickcast-{environment.name}"
    aws_cdk.Tags.of(app).add("application", "tickcast")
    aws_cdk.Tags.of(app).add("environment", environment.name)

    if environment.aws is None:
        AppStack(
            app,
            f"{prefix}-app",
            environment=environment,
            data=DataStack(app, f"{prefix}-data", environment=environment),
            hot_store=LocalServer(
                host=_context(app, "redis_host", "127.0.0.1"), port=_port(app, "redis_port", "6379")
            ),
            database=LocalDatabase(
                host=_context(app, "database_host", "127.0.0.1"),
                port=_port(app, "database_port", "5432"),
            ),
            layers_folder=layers_folder,
            # The CDK's own calls find the emulator by this variable; 4566 is where one listens by default.
            endpoint_url=value(
                "AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"), HttpUrl
            ),
        )
        return

    network = NetworkStack(app, f"{prefix}-network", environment=environment, config=environment.aws.network)
    data = AwsDataStack(
        app, f"{prefix}-data", environment=environment, config=environment.aws, vpc=network.vpc
    )
    AwsAppStack(
        app,
        f"{prefix}-app",
        environment=environment,
        config=environment.aws,
        data=data,
        vpc=network.vpc,
        layers_folder=layers_folder,
    )


def _context(app: aws_cdk.App, name: str, default: str) -> str:
    return str(app.node.try_get_context(name) or default)


def _port(app: aws_cdk.App, name: str, default: str) -> int:
    """Raises ValueError naming the context variable."""
    return int(value(name, _context(app, name, default), Port))


def main(app: aws_cdk.App) -> None:
    """Synthesises for the CDK's command line. Exits with a message where the configuration or the context
    cannot be used."""
    try:
        compose(app)
    except (ConfigError, SettingsError) as error:
        sys.exit(f"tickcast: {error}")
    app.synth()


if __name__ == "__main__":
    main(aws_cdk.App())
