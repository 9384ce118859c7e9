"""Prometheus' rules and Grafana's dashboard ask only for metrics that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.registry import Collector

from ingest_ecs.health import _Metrics
from ingest_ecs.kinesis_writer import Counts
from local.containers import exporter
from tests.fixtures.paths import ROOT
from tests.local.containers import samples
from tests.local.containers.samples import SYMBOL

CONTAINERS = ROOT / "local" / "containers"
DASHBOARDS = sorted((CONTAINERS / "grafana" / "dashboards").glob("*.json"))
RULES = yaml.safe_load((CONTAINERS / "prometheus" / "rules.yml").read_text("utf-8"))
PROVISIONING = CONTAINERS / "grafana" / "provisioning"
METRIC = re.compile(r"\btickcast[a-z0-9_:]*")


def exported() -> set[str]:
    """The names of all metrics of the ingest task and the exporter."""
    report = {
        "counts": {"connections": 1, **vars(Counts())},
        "bad_frames": {"SbeError": 1},
        "symbols": {SYMBOL: {"last_tick_age_s": 0.1}},
        "reference": {"age_s": {SYMBOL: 0.1}, "connections": 1},
        "live": True,
        "ready": True,
        "waiting_records": 0,
    }
    ingest: Collector = _Metrics(lambda: report)
    found = [
        *ingest.collect(),
        *exporter.of_health(samples.SERVICES),
        *exporter.of_prediction(SYMBOL, samples.PREDICTION),
        *exporter.of_accuracy(SYMBOL, samples.accuracy()),
        *exporter.of_exchange(samples.SENT),
    ]
    return {sample.name for metric in found for sample in metric.samples} | {"tickcast_source_up"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    for file in DASHBOARDS:
        yield from json.loads(file.read_text("utf-8"))["panels"]


def test_rules_ask_for_metrics_that_exist() -> None:
    known = exported()
    for rule in rules():
        used = set(METRIC.findall(rule["expr"]))
        assert used <= known, rule
        if "record" not in rule:
            assert rule["annotations"]["summary"]


def test_dashboards_ask_for_metrics_that_exist() -> None:
    known = exported() | {rule["record"] for rule in rules() if "record" in rule}
    used = {
        name for panel in panels() for t in panel.get("targets", []) for name in METRIC.findall(t["expr"])
    }
    assert used <= known
    assert len(used) > 20


def test_panels_do_not_overlap_and_use_the_provisioned_source() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text("utf-8"))[
        "datasources"
    ]
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_promtool_accepts_the_rules_and_their_tests() -> None:
    promtool = shutil.which(os.environ.get("PROMTOOL", "promtool"))
    if promtool is None:
        pytest.skip("no promtool: it comes with Debian's package prometheus, or set PROMTOOL")
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            [promtool, *arguments], cwd=CONTAINERS / "prometheus", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
