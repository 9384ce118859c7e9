"""The walkthroughs, followed on the running system: every block that is marked as `sh` or `python`, in the
order of the page, in one shell with the variables that `make run` prints. All others are followed by hand."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from localstack_client.session import Session
from rich.console import Console

from local.commands import explain
from local.commands.command import ExitStatus
from local.system import cloud
from local.system.api import Api
from local.system.system import System
from tests.docs.documents import Document, document, documents
from tests.fixtures.paths import ROOT
from tests.fixtures.running_system import eventually
from tickcast.adapters.registry import model_registry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PAGES = ("README.md", "docs/walkthroughs/first-two-days.md", "docs/walkthroughs/trusting.md")
# What is installed stays as it is: make would install again where a requirement is newer than its stamp. A
# response that is an error fails, but for that of /health, which is 503 while anything is not well.
SHELL = """
make() {
    command make --no-print-directory -o .venv/.stamp -o .build/ministack-venv/.stamp \\
        -o .build/localstack-venv/.stamp -o node_modules/.stamp "$@"
}
curl() {
    case "$*" in
        */health) command curl "$@" ;;
        *) command curl --fail-with-body "$@" ;;
    esac
}
"""


@pytest.fixture
def lifted(system: System, aws: Session) -> Iterator[None]:
    """The champion as it was: not held by a page that failed on the way."""
    yield
    model_registry.hold(aws.client("s3"), system.outputs["BucketName"], None)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_followed(name: str, system: System, aws: Session, lifted: None) -> None:
    page = document(name)
    wait_until_it_has_run_for_minutes(system, aws)
    for interpreter, text in programs(page):
        done = subprocess.run(
            interpreter,
            cwd=ROOT,
            input=text,
            env=os.environ | variables(system.api_url, system.api_key),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), f"nothing was printed by\n{text}"


def test_every_marked_block_is_followed() -> None:
    """One that no test runs is to have no mark, so that a mark means something."""
    marked = {page.name for page in documents() if page.blocks_of("sh")}
    assert marked == set(PAGES)


def programs(page: Document) -> Iterator[tuple[list[str], str]]:
    """What to run, and its input: the commands of the page as one program, then each block of Python."""
    if commands := page.blocks_of("sh"):
        yield ["bash", "-euo", "pipefail", "-s"], SHELL + "".join(commands)
    for block in page.blocks_of("python"):
        yield [sys.executable, "-"], block


def variables(api_url: str, api_key: str) -> dict[str, str]:
    """Those of the line that `make run` prints, and those that the client reads."""
    api = api_url.rstrip("/")
    sources = os.pathsep.join([str(ROOT / "clients" / "python" / "src"), os.environ.get("PYTHONPATH", "")])
    return {"API": api, "KEY": api_key, "TICKCAST_API": api, "TICKCAST_KEY": api_key, "PYTHONPATH": sources}


def wait_until_it_has_run_for_minutes(system: System, aws: Session) -> None:
    """As it has when a reader comes to that point: the data of the day has been reported, and bronze has what
    the oldest prediction of two minutes was made from."""
    cloud.invoke(aws.client("lambda"), system.outputs["ReportConditionFunction"], {})
    api = Api(system.api_url, system.api_key)

    def explained() -> bool:
        listed = api.body("predictions/BTCUSDT/history", limit=120)["predictions"]
        if not listed:
            return False
        quiet = Console(file=io.StringIO())
        return explain.show(listed[-1]["id"], system.api_url, system.api_key, quiet) is ExitStatus.OK

    eventually(explained, 180)
