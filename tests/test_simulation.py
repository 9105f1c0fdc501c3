"""The simulation's truth against enumeration and against many draws."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from unlearnbench.scoring.conversion_rule import conversion_arm, converted
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.simulation import Design, Simulation, World, uneven_sizes

TAU = 0.1
STILL = World(family=0, item=0, run=0, family_run=0, item_run=0)


def test_chance_of_conversion_by_enumeration() -> None:
    """Runs without spread are binomial: every outcome of three runs of 8 samples, by the rule itself."""
    design = Design((1,), seeds=3, null_seeds=3, samples=8)
    outcomes = np.array(list(product(range(9), repeat=3)))
    hit = converted(Cells(outcomes, np.full_like(outcomes, 8)), TAU)
    for rate in (0.15, 0.3, 0.5):
        world = replace(STILL, base=float(np.log(rate / (1 - rate))))
        expected = stats.binom.pmf(outcomes, 8, rate).prod(axis=1) @ hit
        assert Simulation(world, design).null_rate == pytest.approx(expected, abs=2e-3)  # linear between logits


def test_expected_gain_is_the_mean_of_many_draws() -> None:
    world = World(shift=1.8, shift_family=0.8, shift_item=0.6, jump=0.1, unrest=1.5, failing=0.3)
    simulation = Simulation(world, Design((3, 8, 1, 12, 6), seeds=3, null_seeds=4))
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(800):
        drawn = simulation.draw(rng)
        null = conversion_arm(drawn.null, TAU, 3).values.mean()
        found.append(converted(drawn.method, TAU).mean() - null)
        expected.append(drawn.gain)
    apart = np.array(found) - expected
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(800)
    assert abs(np.mean(expected) - simulation.gain) < 4 * np.std(expected) / np.sqrt(800)


def test_a_family_and_a_run_move_their_items_together() -> None:
    world = replace(STILL, base=0.0, family=2.0, run=1.0)
    drawn = Simulation(world, Design((200, 200), seeds=4, null_seeds=2, samples=128)).draw(np.random.default_rng(1))
    logits = np.log(drawn.method.correct + 0.5) - np.log(drawn.method.n - drawn.method.correct + 0.5)
    families = np.array([logits[:200].mean(axis=0), logits[200:].mean(axis=0)])
    assert logits[:200].std(axis=0).max() < 0.5  # items of a family differ by sampling alone
    assert np.ptp(families[0] - families[1]) < 0.15  # a run moves both families alike
    assert np.ptp(families.mean(axis=0)) > 0.3


def test_same_key_same_draw_and_the_shapes_of_a_design() -> None:
    design = Design.of(["b", "a", "b"], seeds=3, null_seeds=5, samples=64)
    assert design.sizes == (1, 2) and design.families == ["0000", "0001", "0001"]
    first, second = (Simulation(World(), design).draw(np.random.default_rng(7)) for _ in range(2))
    assert first.method.correct.shape == (3, 3) and first.null.correct.shape == (3, 5)
    assert (first.null.correct == second.null.correct).all() and first.null.n.max() == 64
    assert first.gain == 0.0  # a method that adds nothing


def test_uneven_sizes_add_up() -> None:
    sizes = uneven_sizes(250, 16, np.random.default_rng(0))
    assert sum(sizes) == 250 and len(sizes) == 16 and min(sizes) >= 1 and np.std(sizes) > 2


def test_twins_rise_by_the_share_that_reaches_them() -> None:
    simulation = Simulation(World(shift=2.5, shift_family=0.8, shift_item=0.6), Design((40, 80, 60, 70)))
    rises = []
    for carried in (0.0, 0.5, 1.0):
        drawn = simulation.draw_twins(np.random.default_rng(3), carried)
        assert drawn.owner.tolist() == np.repeat(np.arange(250), 2).tolist()
        rises.append(float((drawn.twins.rates - drawn.null_twins.rates).mean()))
    items = float((drawn.method.rates - drawn.null.rates).mean())
    assert rises == pytest.approx([0, items / 2, items], abs=0.03) and items > 0.15
    together = np.corrcoef(drawn.twins.rates[::2] - drawn.null_twins.rates[::2], drawn.method.rates - drawn.null.rates)
    assert together[0, 1] > 0.7
