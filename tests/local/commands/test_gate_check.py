"""`make gate-check`, smaller: the intervals of the gate hold what they claim where the truth is known."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from local.commands import gate_check
from local.commands.command import ExitStatus
from local.commands.gate_check import Slopes, fitted, miss_rate, promoted, simulate

pytestmark = pytest.mark.slow  # all of it together

SAMPLES = 60


@pytest.fixture(scope="module")
def slopes() -> Slopes:
    return fitted(50)


def test_inputs_drive_the_simulated_price_as_far_as_said(slopes: Slopes) -> None:
    assert slopes.imbalance[0] == pytest.approx(0.34, abs=0.05)
    assert slopes.second[0] == pytest.approx(0.12, abs=0.04)
    market = simulate(np.random.default_rng(1), 20 * 3600, in_spells=True)
    worked = (market.second * market.moves_bp[:, 0])[: 70 * 1000].reshape(70, 1000).mean(axis=1)
    assert worked.min() < 0.07 < 0.2 < worked.max()  # in some quarters of an hour, and in others not


@pytest.mark.parametrize(("in_spells", "most"), [(False, 0.12), (True, 0.2)])
def test_intervals_of_a_day_miss_the_truth_about_as_often_as_they_should(
    slopes: Slopes, in_spells: bool, most: float
) -> None:
    """With blocks of 20 s it would be .13 and .61. The bounds leave room for the few samples."""
    found = miss_rate(gate_check.DAY_H, SAMPLES, slopes, in_spells=in_spells)
    assert found.rate <= most
    assert found.half_width > 1.7 * found.deviation


def test_a_first_model_is_admitted_for_its_skill(slopes: Slopes) -> None:
    assert promoted(20, slopes, {"line": 1.0, "second": 2.0}) >= 0.9
    assert promoted(20, slopes, {"line": 2.0, "second": 0.0}) <= 0.15
    assert promoted(5, slopes, {"line": 0.0, "second": 5.0}) == 0


def test_the_last_line_has_the_figures_and_the_status_follows_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_check, "SAMPLES", {1.0: 2, 4.0: 2, gate_check.DAY_H: 2})
    monkeypatch.setattr(gate_check, "FIRST_MODELS", 2)
    for least, status in ((0.0, ExitStatus.OK), (1.1, ExitStatus.FAILED)):
        monkeypatch.setattr(gate_check, "LEAST_PROMOTED", least)
        monkeypatch.setattr(gate_check, "MOST_CLUSTERED", 1.0)
        monkeypatch.setattr(gate_check, "MOST_IN_SPELLS", 1.0)
        assert gate_check.run(argparse.Namespace()) is status
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert report.keys() >= {"miss_rate_clustered", "miss_rate_spells", "promoted_first_model_4h"}
