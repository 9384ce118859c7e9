"""What the API serves as it is, made into files that need nothing else: the dashboard, the OpenAPI document.

The page is `layers/site/page.html` with its style and script, and the chart library's, put in their places.
So a browser fetches one file, and a policy by digests can forbid it everything else. The document is written
in YAML, for people, and served in JSON, for programs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "layers" / "site"
CHARTS = ROOT / "node_modules" / "uplot" / "dist"
PACKAGE = "tickcast_site"  # where a function finds them


def page() -> str:
    """The dashboard. Raises FileNotFoundError while the chart library is not installed."""
    parts = {
        "charts.css": CHARTS / "uPlot.min.css",
        "page.css": SITE / "page.css",
        "charts.js": CHARTS / "uPlot.iife.min.js",
        "page.js": SITE / "page.js",
    }
    if not CHARTS.is_dir():
        raise FileNotFoundError(f"no chart library at {CHARTS}: run `make setup` first")
    template = (SITE / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(.+?)\}\}", lambda place: parts[place[1]].read_text("utf-8"), template)


def openapi() -> str:
    """The OpenAPI document in JSON."""
    return json.dumps(yaml.safe_load((SITE / "openapi.yaml").read_text("utf-8")), separators=(",", ":"))


def build(destination: Path) -> None:
    """Writes the files as a Python package below the layer `destination`."""
    package = destination / "python" / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    files = {"__init__.py": "", "index.html": page(), "openapi.json": openapi()}
    for name, text in files.items():
        (package / name).write_text(text, "utf-8")
