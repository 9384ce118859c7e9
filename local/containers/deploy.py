"""`python -m local.containers.deploy`: deploy the app onto the emulator of docker-compose.yml, train a first
model, and leave what the other containers have to know in `SHARED`; then end.

It may be run again: a deployment without changes and a model that is there are left as they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from cdk.variables import chosen
from ingest_ecs.settings import IngestSettings
from local.containers import INGEST_VARIABLES, SHARED, SYSTEM
from local.system import http_json
from local.system.cloud import Cloud, FunctionFailed, environment
from local.system.emulator import EMULATORS
from local.system.first_model import FirstModel
from local.system.options import Options
from local.system.processes import Processes, ProcessFailed
from local.system.progress import Progress
from local.system.servers import EXCHANGE_API_KEY, stream_variables
from local.system.state_folder import StateFolder
from local.system.variables import local_variables
from tickcast.adapters import json_text

PUBLISHED = "http://127.0.0.1:4566"  # the emulator's address outside of the containers


class Addresses(NamedTuple):
    """Where the other containers are."""

    cloud: str
    exchange: str
    redis: str
    database: str

    def context(self, symbols: list[str]) -> dict[str, str]:
        """The context of the CDK app."""
        return {
            "redis_host": self.redis,
            "redis_port": "6379",
            "database_host": self.database,
            "database_port": "5432",
            "symbols": ",".join(symbols),
            "rest_url": self.exchange,
        }


def ingest_variables(outputs: Mapping[str, str], exchange: str, symbols: list[str]) -> dict[str, str]:
    """What the ingest task reads, but for AWS' own variables."""
    variables = local_variables(
        bucket=outputs["BucketName"],
        stream=outputs["StreamName"],
        symbols=",".join(symbols),
        rest_url=exchange,
    )
    changed = {
        "SOURCE": "sim",
        **stream_variables(exchange),
        "BUSY_SYMBOL": symbols[0],
        "BINANCE_API_KEY": EXCHANGE_API_KEY,
        "POWERTOOLS_SERVICE_NAME": "ingest_ecs",
        "HEALTH_HOST": "0.0.0.0",
        "HEALTH_PORT": "8080",
    }
    return chosen(IngestSettings, variables | changed)


def shell_lines(variables: Mapping[str, str]) -> str:
    """`variables` for the shell's `.`, which exports them."""
    quoted = {name: "'" + text.replace("'", "'\\''") + "'" for name, text in variables.items()}
    return "".join(f"export {name}={text}\n" for name, text in quoted.items())


def write(path: Path, text: str) -> None:
    """Write `path` at once: a reader sees all of it or none."""
    made = path.with_suffix(".new")
    made.write_text(text, "utf-8")
    made.replace(path)


def deploy(addresses: Addresses, state: StateFolder, progress: Progress) -> None:
    """Raises `ProcessFailed` or `FunctionFailed`."""
    sent = http_json.get(f"{addresses.exchange}/local/sent").body
    symbols = list(sent["symbols"])
    processes = Processes(state.path, state.logs, environment(addresses.cloud, state))
    cloud = Cloud(EMULATORS[Options().emulator], addresses.cloud, processes, state)
    with progress.step("CDK synthesis and bootstrap"):
        cloud.finish(cloud.start_bootstrap(), cloud.start_synthesis(addresses.context(symbols)))
    with progress.step("CloudFormation deployment"):
        cloud.deploy()
    outputs = cloud.outputs()
    first = FirstModel(symbols, (), (), Options().seed, sent["epoch_us"], state.path / "model-origin")
    if not first.has_champion(cloud, outputs, progress):
        first.train(cloud, outputs, progress)
    key = cloud.api_key(outputs["ApiKeyId"])
    about = {
        "api_url": outputs["ApiUrl"],
        "api_key": key,
        "exchange_url": addresses.exchange,
        "symbols": symbols,
    }
    write(SHARED / SYSTEM, json_text.text(about))
    write(SHARED / INGEST_VARIABLES, shell_lines(ingest_variables(outputs, addresses.exchange, symbols)))
    api = outputs["ApiUrl"].replace(addresses.cloud, PUBLISHED).rstrip("/")
    progress.say(f'API={api} KEY={key}\n  curl -s -H "x-api-key: $KEY" "$API/predictions/{symbols[0]}"')


def main() -> int:
    addresses = Addresses(
        cloud=os.environ["AWS_ENDPOINT_URL"],
        exchange=os.environ["EXCHANGE_URL"],
        redis=os.environ["REDIS_HOST"],
        database=os.environ["DATABASE_HOST"],
    )
    state = StateFolder("containers")
    state.open()
    try:
        state.prepare()
        deploy(addresses, state, Progress(Console()))
    except (ProcessFailed, FunctionFailed) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    finally:
        state.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
