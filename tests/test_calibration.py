"""Simulations with known truth at reduced size: how often the intervals hold it. `make calibrate` runs them in full."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.calibration import run
from experiments.calibration.settings import ONCE_WORLDS, TUNING_WORLDS, Setting, all_sets
from experiments.calibration.simulations import coverage, null_against_null
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.inference.simulation import Design, Simulation

pytestmark = pytest.mark.checkout

TAU, REPEATS = 0.1, 200
NOISE = 2.5 * float(np.sqrt(0.95 * 0.05 / REPEATS))  # 0.039
WORLDS = {**TUNING_WORLDS, **ONCE_WORLDS}
DESIGN = Design((28, 22, 20, 20, 18, 17, 16, 15, 15, 14, 14, 12, 10, 9, 8, 6, 3, 2, 1))


def setting(name: str, **changes: float) -> Setting:
    return Setting(name, replace(WORLDS[name], **changes), "tests", DESIGN)


@pytest.mark.parametrize("name", ["nothing", "moderate", "runs in step", "family by family"])
def test_both_intervals_hold_the_truth(name: str) -> None:
    found = coverage(setting(name), REPEATS)
    for below, above, _ in (found.these, found.beyond):
        assert 1 - below - above > 0.93 - NOISE
        assert below < 0.07 + NOISE and above < 0.07 + NOISE
    assert found.narrowest > 1e-3


def test_items_taken_for_independent_would_not_pass() -> None:
    """The same simulation refuses an interval that sells a family's effect as that of many items."""
    found = coverage(setting("family by family"), REPEATS)
    assert found.independent < 0.6
    assert found.beyond.width > 3 * found.these.width


def test_runs_taken_for_alike_would_not_pass() -> None:
    rng, simulation = np.random.default_rng(0), Simulation(WORLDS["runs in step"], DESIGN)
    held = 0
    for _ in range(100):
        drawn = simulation.draw(rng)
        arms = [share_arm(arm.hits(TAU)) for arm in (drawn.method, drawn.null)]
        fixed = [replace(arm, deviations=np.zeros_like(arm.deviations)) for arm in arms]
        these, _ = gain_intervals(fixed[0], fixed[1], DESIGN.families)
        assert these is not None
        held += these[0] <= drawn.gain <= these[1]
    assert held < 70


def test_grpo_against_grpo_holds_0_on_the_shipped_seeds() -> None:
    for row in null_against_null(every=10):
        assert row.these[0] >= 0.9 and row.beyond[0] >= 0.95  # splits of ten seeds overlap: no independent trials
        assert row.beyond[1] > row.these[1]


def test_three_seeds_cost_more_than_five() -> None:
    widths = []
    for seeds in (3, 5):
        simulation = Simulation(WORLDS["runs in step"], replace(DESIGN, seeds=seeds))
        rng, found = np.random.default_rng(4), []
        for _ in range(40):
            drawn = simulation.draw(rng)
            arms = [share_arm(arm.hits(TAU)) for arm in (drawn.method, drawn.null)]
            these, _ = gain_intervals(arms[0], arms[1], DESIGN.families)
            assert these is not None
            found.append(these[1] - these[0])
        widths.append(np.mean(found))
    assert widths[1] < 0.7 * widths[0]


def test_the_tables_of_the_document_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--only", "not claimed", "--repeats", "20", "--workers", "1"])
    run.main()
    printed = capsys.readouterr().out
    page = (Path(__file__).resolve().parents[1] / "docs/reference/statistics.md").read_text(encoding="utf-8")
    assert "### Not claimed: 9 settings, 20 experiments each" in printed
    assert printed.count("| 1 family in 30 lifted |") == 3
    missing = [
        start
        for settings in all_sets().values()
        for each in settings
        if (start := f"| {each.design_name} | {each.world_name} | ") not in page
    ]
    assert missing == []
