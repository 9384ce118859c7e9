"""A real Prometheus scrapes the running system, by the configuration of docker-compose.yml.

Skipped without Prometheus: it is Debian's package `prometheus`, or PROMETHEUS names the program.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from local.containers import exporter
from local.system import http_json, servers
from local.system.servers import HOST
from local.system.system import System
from tests.fixtures.paths import ROOT
from tests.fixtures.running_system import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONTAINERS = ROOT / "local" / "containers"
DASHBOARD = json.loads((CONTAINERS / "grafana" / "dashboards" / "tickcast.json").read_text("utf-8"))
QUERIES = {
    target["expr"]: panel["title"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
}
QUIET = {"Refused frames"}  # panels without a value while all is well


class Prometheus:
    """The server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str) -> Any:
        """The `data` of a response. Raises OSError while it does not answer."""
        body = http_json.get(f"{self.url}/api/v1/{path}").body
        assert body["status"] == "success", body
        return body["data"]

    def value(self, expression: str) -> list[Any]:
        return list(self.ask(f"query?query={quote(expression)}")["result"])


def targets_of(config: dict[str, Any], **addresses: str) -> dict[str, Any]:
    """`config` with the targets of each job at other addresses, scraped more often."""
    jobs = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [addresses[job["job_name"]]]}]}
        for job in config["scrape_configs"]
    ]
    rules = [str(CONTAINERS / "prometheus" / name) for name in config["rule_files"]]
    often = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    return {"global": often, "rule_files": rules, "scrape_configs": jobs}


@pytest.fixture
def prometheus(system: System, tmp_path: Path) -> Iterator[Prometheus]:
    program = shutil.which(os.environ.get("PROMETHEUS", "prometheus"))
    if program is None:
        pytest.skip("no Prometheus: it is Debian's package prometheus, or set PROMETHEUS")
    own, reports = servers.free_ports(2)
    about = {
        "api_url": system.api_url,
        "api_key": system.api_key,
        "exchange_url": system.exchange_url,
        "symbols": list(system.symbols),
    }
    end = exporter.serve(reports, about, HOST)
    (ingest,) = system.ingest.values()
    config = targets_of(
        yaml.safe_load((CONTAINERS / "prometheus" / "prometheus.yml").read_text("utf-8")),
        ingest=ingest.removeprefix("http://"),
        exporter=f"{HOST}:{reports}",
        prometheus=f"{HOST}:{own}",
    )
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    command = [
        program,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={HOST}:{own}",
    ]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(f"http://{HOST}:{own}")
        finally:
            process.terminate()
            process.wait(30)
            end()


def test_every_target_query_and_rule_works(prometheus: Prometheus, system: System) -> None:
    def targets() -> dict[str, str]:
        try:
            found = prometheus.ask("targets")["activeTargets"]
        except (OSError, ValueError):
            return {}
        return {target["labels"]["job"]: target["health"] for target in found}

    eventually(lambda: set(targets().values()) == {"up"} and len(targets()) == 3)
    eventually(lambda: not prometheus.value("tickcast_source_up == 0"))
    for query, title in QUERIES.items():
        if title not in QUIET:
            eventually(partial(prometheus.value, query), patience_s=200)
        prometheus.value(query)  # raises for one that is not valid
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 10
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["name"]: "ok" for rule in rules}
    (received,) = prometheus.value("sum(tickcast_ingest_ticks_in_total)")
    assert float(received["value"][1]) > 0
