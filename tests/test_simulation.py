"""The simulation's truth against closed forms and against many draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from unlearnbench.scoring.inference.simulation import Design, Simulation, World

TAU = 0.1
STILL = World(family=0, item=0, run=0, family_run=0, item_run=0)


def test_chance_of_conversion_without_spread_is_the_binomials() -> None:
    """Runs that do nothing leave an item and its probe independent."""
    design = Design((1,), seeds=3, null_seeds=3, samples=32)
    for rate in (0.15, 0.3, 0.5):
        world = replace(STILL, base=float(np.log(rate / (1 - rate))))
        one = float(stats.binom.sf(7, 32, rate))
        assert Simulation(world, design).null_rate == pytest.approx(one**2, abs=2e-3)  # linear between logits
        assert Simulation(world, design, probed=False).null_rate == pytest.approx(one, abs=2e-3)


@pytest.mark.parametrize("probed", [True, False])
def test_expected_gain_is_the_mean_of_many_draws(probed: bool) -> None:
    world = World(shift=1.8, shift_family=0.8, shift_item=0.6, jump=0.1, unrest=1.5, failing=0.3)
    simulation = Simulation(world, Design((3, 8, 1, 12, 6), seeds=3, null_seeds=4), probed)
    rng = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(800):
        drawn = simulation.draw(rng)
        found.append(drawn.method.hits(TAU, probed=probed).mean() - drawn.null.hits(TAU, probed=probed).mean())
        expected.append(drawn.gain)
    apart = np.array(found) - expected
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(800)
    assert abs(np.mean(expected) - simulation.gain) < 4 * np.std(expected) / np.sqrt(800)


def test_a_family_and_a_run_move_their_items_together() -> None:
    world = replace(STILL, base=0.0, family=2.0, run=1.0)
    drawn = Simulation(world, Design((200, 200), seeds=4, null_seeds=2, samples=128)).draw(np.random.default_rng(1))
    logits = np.log(drawn.method.items.correct + 0.5) - np.log(drawn.method.items.n - drawn.method.items.correct + 0.5)
    families = np.array([logits[:200].mean(axis=0), logits[200:].mean(axis=0)])
    assert logits[:200].std(axis=0).max() < 0.5  # items of a family differ by sampling alone
    assert np.ptp(families[0] - families[1]) < 0.15  # a run moves both families alike
    assert np.ptp(families.mean(axis=0)) > 0.3


def test_same_key_same_draw_and_the_shapes_of_a_design() -> None:
    design = Design.of(["b", "a", "b"], seeds=3, null_seeds=5, samples=64)
    assert design.sizes == (1, 2) and design.families == ["0000", "0001", "0001"]
    first, second = (Simulation(World(), design).draw(np.random.default_rng(7)) for _ in range(2))
    assert first.method.items.correct.shape == (3, 3) and first.null.probes.correct.shape == (3, 5)
    assert (first.null.items.correct == second.null.items.correct).all() and first.null.items.n.max() == 64
    assert first.gain == 0.0  # a method that adds nothing


def test_probes_rise_by_the_share_that_reaches_them() -> None:
    simulation = Simulation(World(shift=2.5, shift_family=0.8, shift_item=0.6), Design((40, 80, 60, 70)))
    rises = []
    for carried in (0.0, 1.0):
        drawn = simulation.draw(np.random.default_rng(3), carried)
        rises.append(float((drawn.method.probes.rates - drawn.null.probes.rates).mean()))
    items = drawn.method.items.rates - drawn.null.items.rates
    assert rises == pytest.approx([0, items.mean()], abs=0.03) and items.mean() > 0.15
    assert np.corrcoef(drawn.method.probes.rates - drawn.null.probes.rates, items)[0, 1] > 0.7


def test_a_method_that_reaches_no_probe_solves_and_converts_next_to_nothing() -> None:
    simulation = Simulation(World(shift=3.0), Design((40, 80, 60, 70)))
    drawn = simulation.draw(np.random.default_rng(5), 0.0)
    solved, hit = drawn.method.hits(TAU, probed=False).mean(), drawn.method.hits(TAU).mean()
    assert solved > 0.15 and hit < 0.15 * solved
