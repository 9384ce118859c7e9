"""What a person sees in each condition of the system, on a desktop, in the dark and on a phone. The pictures
are in `out/dashboard/`; PICTURE names a file for the README's, of the system as it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.dashboard.accessibility import violations
from tests.dashboard.conditions import CONDITIONS
from tests.dashboard.conftest import Open
from tests.dashboard.tab import DARK, PHONE, Look
from tests.fixtures.paths import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

LOOKS = {"light": Look(), "dark": DARK, "phone": PHONE}
NO_WORDS = (
    "undefined",
    "NaN",
    "null",
    r"\[object",
    "[a-z]+_quotes",
    "warming_up",
    "model_",
    "_support",
    "stale_",
)
PICTURE = os.environ.get("PICTURE")


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_said_in_words(open_dashboard: Open, pictures: Path, name: str) -> None:
    condition = CONDITIONS[name]
    tab = open_dashboard(condition.answers, key=condition.key)
    tab.says(*condition.says)
    tab.settle()
    assert re.findall(rf".*(?:{'|'.join(NO_WORDS)}).*", tab.text) == []
    for hidden in condition.hides:
        tab.never_says(hidden)
    found: list[str] = []
    for look_name, look in (
        LOOKS.items() if PICTURE or condition.in_all_looks else [("light", LOOKS["light"])]
    ):
        tab.resize(look)
        tab.picture(pictures / f"{name}-{look_name}.png")
        assert tab.overflow_px() == 0, f"{look_name}: wider than the window"
        found += [f"{look_name}: {line}" for line in violations(tab.page)]
    assert found == []
    assert tab.problems == []
    if PICTURE and name == "provisional":
        tab.resize(Look(height=1330))  # down to the plots of skill
        tab.picture(ROOT / PICTURE, whole=False)
