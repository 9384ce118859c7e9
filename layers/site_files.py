"""The static files of the API: the dashboard and the OpenAPI document (`layers.openapi`), one for each way
of authorisation.

The page is `layers/site/page.html` with its styles and scripts inserted where it names them, those of
the chart library included. So a browser fetches one file, and a policy by digests can forbid everything else.
"""

from __future__ import annotations

import re
from pathlib import Path

from layers import openapi

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "layers" / "site"
CHARTS = ROOT / "node_modules" / "uplot" / "dist"
LIBRARY = {"charts.css": CHARTS / "uPlot.min.css", "charts.js": CHARTS / "uPlot.iife.min.js"}
PACKAGE = "tickcast_site"  # from which the function reads them


def page() -> str:
    """The dashboard. Raises FileNotFoundError while the chart library is not installed."""
    if not CHARTS.is_dir():
        raise FileNotFoundError(f"no chart library at {CHARTS}: run `make setup` first")
    template = (SITE / "page.html").read_text("utf-8")
    return re.sub(
        r"\{\{(.+?)\}\}",
        lambda place: (LIBRARY.get(place[1]) or SITE / place[1]).read_text("utf-8"),
        template,
    )


def build(destination: Path) -> None:
    """Write the files as a Python package into the layer `destination`."""
    package = destination / "python" / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    files = {"__init__.py": "", "index.html": page()}
    files |= {f"openapi.{each}.json": openapi.text(each) for each in openapi.SECURITY}
    for name, text in files.items():
        (package / name).write_text(text, "utf-8")
