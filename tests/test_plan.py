"""What a run costs and can show: chance estimated from counts, power against a simulation of our own, the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from unlearnbench.cli.main import run as run_command
from unlearnbench.harness.cost import DEVICES, Precision
from unlearnbench.harness.plan import plan
from unlearnbench.io import tables
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.inference.power import Detectable, Strength, detectable
from unlearnbench.scoring.inference.simulation import Design, Simulation, World
from unlearnbench.scoring.inference.variance_components import _product, _product_apart, _product_same_run, world_of
from unlearnbench.splits import Split
from unlearnbench.splits.split import shipped_folder

# --- chance ---------------------------------------------------------------------------------------------------


def test_mean_products_by_brute_force() -> None:
    rates = np.random.default_rng(0).random((7, 3))
    family = np.array([0, 0, 1, 1, 1, 2, 3])
    pairs = [
        (family[i] == family[j], i == j, s == t, rates[i, s] * rates[j, t])
        for i, s, j, t in product(range(7), range(3), range(7), range(3))
    ]

    def mean(**wanted: bool) -> float:
        place = {"family": 0, "item": 1, "run": 2}
        return float(np.mean([pair[3] for pair in pairs if all(pair[place[k]] == v for k, v in wanted.items())]))

    assert _product(rates, np.arange(7), runs="other") == pytest.approx(mean(item=True, run=False))
    assert _product(rates, family, runs="other", without_item=True) == pytest.approx(
        mean(family=True, item=False, run=False)
    )
    assert _product(rates, family, runs="same", without_item=True) == pytest.approx(
        mean(family=True, item=False, run=True)
    )
    assert _product_same_run(rates, family) == pytest.approx(mean(family=False, run=True))
    assert _product_apart(rates, family) == pytest.approx(mean(family=False, run=False))


def test_a_known_world_is_found_again() -> None:
    true = World(base=-3.0, family=1.2, item=0.8, run=0.5, family_run=0.6, item_run=0.9)
    design = Design(sizes=(15,) * 60, null_seeds=24)
    found = [
        world_of(Simulation(true, design).draw(np.random.default_rng(key)).null.items, design.families)
        for key in range(6)
    ]
    for name in ("base", "family", "item", "run", "family_run", "item_run"):
        mean = np.mean([getattr(world, name) for world in found])
        assert mean == pytest.approx(getattr(true, name), abs=0.2), name


def test_what_counts_cannot_tell_is_none() -> None:
    some, n = np.array([[3, 4], [1, 0], [5, 9], [0, 0]]), np.full((4, 2), 32)
    assert world_of(Cells(some, n), ["a", "a", "b", "b"]) is not None
    assert world_of(Cells(some, n), ["a", "a", "a", "a"]) is None  # one family
    assert world_of(Cells(some, n), ["a", "b", "c", "d"]) is None  # one item each
    assert world_of(Cells(some[:, :1], n[:, :1]), ["a", "a", "b", "b"]) is None  # one run
    assert world_of(Cells(0 * some, n), ["a", "a", "b", "b"]) is None  # no success


# --- power ----------------------------------------------------------------------------------------------------

WORLD = World(base=-4.0, family=0.8, item=0.7, run=0.3, family_run=0.5, item_run=0.4)
DESIGN = Design(sizes=(5,) * 12, seeds=3, null_seeds=5)


def hits(rng: np.random.Generator, logits: np.ndarray, runs: int) -> np.ndarray:
    """Items and probes with 8 of 32 right (families, items, runs); `logits` has a row a family and a column an item."""
    shape = (*logits.shape, runs)
    shared = WORLD.run * rng.standard_normal((1, 1, runs)) + WORLD.family_run * rng.standard_normal((shape[0], 1, runs))
    item, probe = (
        rng.binomial(32, expit(logits[:, :, None] + shared + WORLD.item_run * rng.standard_normal(shape)))
        for _ in range(2)
    )
    return (item >= 8) & (probe >= 8)


def lifted(rng: np.random.Generator, null: np.ndarray, effect: str, world: World) -> np.ndarray:
    if effect == "spread":
        return null + world.shift
    return null + world.height * (rng.random((len(null), 1)) < world.jump)


def null_logits(rng: np.random.Generator, families: int, items: int) -> np.ndarray:
    return (
        WORLD.base
        + WORLD.family * rng.standard_normal((families, 1))
        + WORLD.item * rng.standard_normal((families, items))
    )


@pytest.fixture(scope="module")
def found() -> list[Detectable]:
    return detectable(WORLD, DESIGN, experiments=240)


@pytest.mark.parametrize("effect", ["spread", "families"])
def test_at_the_detectable_gain_the_power_is_80_percent(effect: Any, found: list[Detectable]) -> None:
    rng, repeats = np.random.default_rng(1), 300
    names = [str(index // 5) for index in range(60)]
    for place, bound in enumerate(("interval", "interval_families")):
        part = next(part for part in found if (part.effect, part.bound) == (effect, bound))
        assert part.gain is not None and part.likely is not None and part.likely[0] < part.gain < part.likely[1]
        assert part.items == pytest.approx(60 * part.gain)
        world = Strength(WORLD, DESIGN, effect, True).world(part.gain)
        gains = []
        for _ in range(60):  # a draw of the runs moves all items, so one draw of many families would not do
            null = null_logits(rng, 60, 5)
            shares = [float(hits(rng, x, 3).mean()) for x in (lifted(rng, null, effect, world), null)]
            gains.append(shares[0] - shares[1])
        assert np.mean(gains) == pytest.approx(part.gain, abs=4 * np.std(gains) / np.sqrt(60))
        found_out = 0
        for _ in range(repeats):
            null = null_logits(rng, 12, 5)
            arms = []
            for logits, runs in ((lifted(rng, null, effect, world), 3), (null, 5)):
                arms.append(share_arm(hits(rng, logits, runs).reshape(60, runs)))
            interval = gain_intervals(arms[0], arms[1], names)[place]
            found_out += interval is not None and interval[0] > 0
        assert 0.7 < found_out / repeats < 0.9, (bound, found_out / repeats)


def test_more_items_and_more_seeds_find_less(found: list[Detectable]) -> None:
    more_items = detectable(WORLD, Design(sizes=(5,) * 36, seeds=3, null_seeds=5), experiments=160)
    more_seeds = detectable(WORLD, Design(sizes=(5,) * 12, seeds=6, null_seeds=8), experiments=160)
    for few, items in zip(found, more_items, strict=True):
        assert items.gain is not None and few.gain is not None and items.gain < 0.8 * few.gain
    few, seeds = (next(p for p in parts if p.effect == "spread") for parts in (found, more_seeds))
    assert seeds.gain is not None and few.gain is not None and seeds.gain < few.gain


def test_what_no_gain_reaches_is_none() -> None:
    parts = detectable(WORLD, Design(sizes=(30,), seeds=3, null_seeds=5), experiments=60)
    assert {part.bound: part.gain is None for part in parts}["interval_families"]  # one family says nothing of others
    seen: list[float] = []
    detectable(WORLD, Design(sizes=(2, 2), seeds=3, null_seeds=3), experiments=20, progress=seen.append)
    assert seen[-1] == 1.0 and seen == sorted(seen)


# --- cost -----------------------------------------------------------------------------------------------------


def test_cost_by_the_null_control_and_a_published_peak(micro: Split) -> None:
    told = plan(micro, seeds=4, device="h100", utilisation=0.5, experiments=20, multiple=1.0)
    control, budget = micro.control("null_control"), micro.config.budget
    assert control is not None and control.result is not None and budget is not None
    n, cost, runs = told.parameters, control.result.cost, len(control.seeds)
    parts = told.training.tokens
    paid = 2 * n * (parts.generated + parts.prefilled + parts.forward) + 6 * n * parts.trained
    assert told.training.flops == paid == pytest.approx(budget.flops_1x, rel=1e-4)
    assert parts.generated / parts.trained == pytest.approx(cost.generated_tokens / cost.trained_tokens, rel=1e-3)
    assert parts.generated == pytest.approx(cost.generated_tokens / runs, rel=0.02)
    problems = len(micro.items) + len(micro.problems("twin")) + len(micro.canaries)
    assert told.evaluation.rollouts == 32 * problems
    prompts = np.mean([len(item.prompt) for item in micro.items])  # characters are micro's tokens
    assert told.evaluation.tokens.prefilled == pytest.approx(problems * prompts, rel=0.1)
    assert told.total_flops == 4 * (told.training.flops + told.evaluation.flops)
    assert told.total_tokens.trained == 4 * parts.trained
    timing = told.timing
    assert (timing.source, timing.device, timing.at_once) == ("published", "H100", 1)
    assert timing.training_seconds == pytest.approx(told.training.flops / (DEVICES["H100"].flops * 0.5))
    assert timing.training_seconds and timing.evaluation_seconds and timing.hours
    assert timing.hours == pytest.approx(4 * (timing.training_seconds + timing.evaluation_seconds) / 3600)
    assert timing.reference_seconds == pytest.approx(cost.seconds / runs)
    assert told.space.available == DEVICES["H100"].memory and told.space.fits
    assert (told.power.null_seeds, told.power.null_shipped) == (len(control.seeds), True)
    assert told.power.world_source.startswith("estimated") and len(told.power.detectable) == 4
    double = plan(micro, device="h100", experiments=1, multiple=2.0, samples=64)
    assert double.training.flops == pytest.approx(2 * told.training.flops, rel=1e-4)
    assert double.evaluation.rollouts == 2 * told.evaluation.rollouts
    assert not double.power.null_shipped and "at 1x" in double.power.world_source
    # its time is a seed's at 1x, whatever the budget of the run
    assert (double.timing.reference_seconds, double.timing.reference_multiple) == (timing.reference_seconds, 1.0)


@pytest.mark.slow
def test_cost_by_real_steps_of_the_method(small_split: Split, tmp_path: Path) -> None:
    """A split without budget and controls: the probe tells everything."""
    method = tmp_path / "mine.py"
    method.write_text("import unlearnbench as ub\n\n\nclass Mine(ub.Method):\n    pass\n")
    seen: list[float] = []
    told = plan(small_split, str(method), seeds=3, workers=2, experiments=20, progress=seen.append)
    assert (told.method, told.parameters) == ("mine", 412032)
    recipe = small_split.config.recipe
    assert told.training.rollouts == recipe.steps * recipe.prompts_per_step * recipe.group_size
    assert 0 < told.training.tokens.generated <= told.training.rollouts * recipe.max_tokens
    assert told.training.tokens.prefilled > 0 and "6 steps" in told.training.source
    timing = told.timing
    assert (timing.source, timing.at_once, timing.reference_seconds) == ("probe", 2, None)
    assert timing.training_seconds and timing.evaluation_seconds and timing.hours
    assert timing.hours == pytest.approx(2 * (timing.training_seconds + timing.evaluation_seconds) / 3600)
    assert 100 << 20 < told.space.memory < 4 << 30  # torch alone takes 100 MiB
    assert told.space.disk > 3 * 24 * told.parameters
    assert told.power.null_seeds == 10 and not told.power.null_shipped and told.power.world_source.startswith("assumed")
    assert seen == sorted(seen) and seen[-1] == 1.0 and any(0 < share < 0.3 for share in seen)


def test_a_split_that_is_too_large_to_try(micro: Split, small_split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnbench.harness.trial_run.PROBE_FLOPS", 1.0)
    told = plan(micro, "no_training", experiments=1)
    assert told.timing.source == "control" and "budget alone" in told.training.source
    assert told.training.flops == pytest.approx(micro.config.budget.flops_1x if micro.config.budget else 0, rel=1e-3)


def test_what_nothing_measured_tells_comes_from_the_recipe_and_a_length(
    small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.harness.trial_run.PROBE_FLOPS", 1.0)
    told, longer = (plan(small_split, experiments=1, length=length) for length in (8.0, 16.0))
    recipe, rollouts = small_split.config.recipe, told.training.rollouts
    assert rollouts == recipe.steps * recipe.prompts_per_step * recipe.group_size
    assert told.training.tokens.generated == 8 * rollouts and longer.training.tokens.generated == 16 * rollouts
    tokens = told.training.tokens
    assert tokens.trained > tokens.generated  # prompts are read in training, too
    assert told.training.flops == told.parameters * (
        2 * (tokens.generated + tokens.prefilled + tokens.forward) + 6 * tokens.trained
    )
    assert told.evaluation.tokens.generated == 8 * told.evaluation.rollouts
    assert "8 tokens per rollout, as given" in told.training.source
    assert "is an assumption" in plan(small_split, experiments=1).evaluation.source
    adapted = plan(small_split, experiments=1, settings={"lora": {"rank": 4}})
    assert (told.space.memory, adapted.space.memory) == (20 * told.parameters, 4 * told.parameters)
    assert told.space.disk - adapted.space.disk > 3 * 23 * told.parameters  # an adapter's checkpoints are small
    most = recipe.max_tokens  # no rollout is longer, whatever is assumed or given
    for length in (None, 10.0 * most):
        work = plan(small_split, experiments=1, length=length).training
        assert work.tokens.generated == most * rollouts and f"{most} tokens per rollout" in work.source


def test_a_split_that_is_not_built_is_planned_by_its_released_ids() -> None:
    precisions: tuple[Precision, ...] = ("bf16", "float32")
    waiting = Split(shipped_folder("qwen2.5-0.5b-math-easy"))
    quick, slow = (plan(waiting, device="h100", precision=precision, experiments=1) for precision in precisions)
    assert quick.power.items == 894 and quick.power.families == 7
    assert quick.evaluation.rollouts == 32 * 8124 and quick.training.rollouts == 120 * 256 * 8
    assert "not built" in quick.power.world_source
    assert slow.timing.hours and quick.timing.hours
    assert slow.timing.hours / quick.timing.hours == pytest.approx(989 / 67)
    assert "BF16 989 TFLOPS" in quick.timing.how and "FP32 67 TFLOPS" in slow.timing.how
    pool = plan(Split(shipped_folder("qwen2.5-3b-deepscaler")), experiments=1)  # no ids: nobody can count it
    assert pool.evaluation.rollouts == 0
    assert "not counted" in pool.evaluation.source and "splits build qwen2.5-3b-deepscaler" in pool.evaluation.source


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"seeds": 2}, "at least 3 seeds"),
        ({"samples": 16}, "16 samples"),
        ({"seeds": 11}, "10 seeds, fewer than 11"),
    ],
)
def test_designs_without_a_gain_that_counts(arguments: dict[str, int], why: str, micro: Split) -> None:
    told = plan(micro, device="L4", **arguments)  # type: ignore[arg-type]
    assert told.power.why_not is not None and why in told.power.why_not and told.power.detectable == []


# --- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: status, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        return (run_command(list(words)), *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--seeds", "0"), 2, "--seeds"),
        (("--budget", "-1x"), 2, "not a budget"),
        (("--utilisation", "0.5"), 2, "name the device"),
        (("--precision", "bf16"), 2, "name the device"),
        (("--length", "0"), 2, "--length"),
        (("--device", "H100", "--utilisation", "0"), 2, "--utilisation"),
        (("--split", "nothing"), 1, "there is no split 'nothing'"),
        (("--method", "nothing"), 1, "There is no method 'nothing'"),
        (("--device", "abacus"), 1, "'abacus'; give one of A100-40GB, A100, H100"),
    ],
)
def test_wrong_commands(words: tuple[str, ...], status: int, message: str, cli: Any) -> None:
    left, out, told = cli("plan", *words)
    assert left == status and message in told and out == ""
    assert status == 2 or told.count("\n") == 1


def test_the_command_tells_cost_and_power(cli: Any) -> None:
    status, shown, told = cli("plan", "--device", "H100", "--seeds", "2")
    assert status == 0 and told == ""
    for words in ("grpo on micro: 2 seeds x 32 samples", "at least", "NVIDIA H100 datasheet", "at least 3 seeds"):
        assert words in " ".join(shown.split())
    found = json.loads(cli("plan", "--device", "H100", "--seeds", "2", "--json")[1])
    assert found["training"]["flops"] > 0 and found["power"]["why_not"]


def test_null_seeds_that_are_only_assumed_are_called_so(
    micro: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    copy = Path(shutil.copytree(micro.path, tmp_path / "copy", ignore=shutil.ignore_patterns("null_control")))
    monkeypatch.setattr("unlearnbench.harness.trial_run.PROBE_FLOPS", 1.0)
    status, shown, told = cli("plan", "--split", str(copy), "--seeds", "1", "--device", "L4")
    assert status == 0 and told == ""
    assert "grpo on micro: 1 seed x 32 samples" in shown and "against 10 assumed null seeds" in " ".join(shown.split())


def test_a_null_control_that_never_succeeds_leaves_chance_assumed(micro: Split, tmp_path: Path) -> None:
    copy = Split(Path(shutil.copytree(micro.path, tmp_path / "copy")))
    path = copy.path / "null_control/1x/counts.parquet"
    of_items = [(item.item_id, "eval") for item in copy.items]
    of_probes = [(twin.twin_id, "twin") for twin in copy.twins]
    for counted, chance in ((of_items + of_probes, 0.0), (of_items, None)):  # without probes' counts it is unknown
        rows = [
            {"item_id": name, "phase": phase, "run": str(seed), "n": 32, "correct": 0}
            for name, phase in counted
            for seed in (1, 2, 3)
        ]
        tables.write_parquet(path, pa.Table.from_pylist(rows, schema=tables.COUNTS))
        told = plan(copy, device="L4", experiments=1)
        assert (told.power.null_conversion, told.power.null_seeds) == (chance, 3)
        assert "too few successes" in told.power.world_source
