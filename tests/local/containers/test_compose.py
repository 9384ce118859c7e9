"""`docker-compose.yml` without Docker: what it names exists, everything is pinned, contained and has a health
check."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
import yaml

from local.containers import SHARED
from tests.fixtures.paths import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"migrate", "deploy"}
WRITES = {"deploy": "the CDK keeps its packages next to its code", "localstack": "not ours"}
PINNED = re.compile(r"[a-z./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
EACH = pytest.mark.parametrize("name", SERVICES)


def dockerfile(service: dict[str, Any]) -> str:
    return (ROOT / service["build"]["dockerfile"]).read_text("utf-8") if "build" in service else ""


@EACH
def test_images_are_pinned_or_built_here(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.fullmatch(service["image"]) or re.search("^FROM .*@sha256:", dockerfile(service), re.M)


@EACH
def test_containers_cannot_harm_their_host(name: str) -> None:
    service = SERVICES[name]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    if name == "localstack":
        return
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in WRITES)
    user = service.get("user") or re.findall("^USER (.*)$", dockerfile(service), re.M)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert "docker.sock" not in str(service)


@EACH
def test_services_wait_for_what_they_need(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        has_check = "healthcheck" in other or "HEALTHCHECK" in dockerfile(other)
        assert has_check is (needed not in ONE_SHOT)
        expected = {"service_completed_successfully"} if needed in ONE_SHOT else {"service_healthy"}
        if (name, needed) == ("prometheus", "ingest"):
            expected = {"service_started"}  # what is unhealthy is for Prometheus to show
        assert how["condition"] in expected


def test_commands_name_modules_that_exist() -> None:
    modules = re.findall(r"-m', '(local[\w.]*|ingest_ecs)'", str(SERVICES))
    assert {"local.exchange", "local.containers.deploy", "local.containers.exporter"} <= set(modules)
    for module in modules:
        assert importlib.util.find_spec(module), module


def test_mounts_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                assert (ROOT / source).is_dir()
            else:
                assert source in COMPOSE["volumes"] and target == str(SHARED)


def test_what_is_shared_can_be_written_by_the_deployment() -> None:
    assert f"--owner=10001 --group=10001 .local .build/jsii {SHARED}" in dockerfile(SERVICES["deploy"])


def test_prometheus_scrapes_services_where_they_listen() -> None:
    config = yaml.safe_load(
        (ROOT / "local" / "containers" / "prometheus" / "prometheus.yml").read_text("utf-8")
    )
    targets = {
        job["job_name"]: target
        for job in config["scrape_configs"]
        for each in job["static_configs"]
        for target in each["targets"]
    }
    assert targets["exporter"] == f"exporter:{SERVICES['exporter']['command'][-1]}"
    assert targets["ingest"] == "ingest:8080"
    assert "HEALTH_PORT=8080" in dockerfile(SERVICES["ingest"])
