"""The embedded split: its recipe keeps its promises, and what ships has the figures its datasheet states."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from recipes.micro.base_policy import fit, make_model, make_tokenizer
from recipes.micro.datasheet import PAGE, page
from recipes.micro.families import (
    MISSING,
    OPERATIONS,
    Problems,
    World,
    base_example,
    make_problems,
    make_world,
    read_prompt,
    taught_example,
)
from unlearnbench.records import TWIN_KINDS
from unlearnbench.splits import Split

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(3)


@pytest.fixture(scope="module")
def problems(world: World) -> Problems:
    return make_problems(world)


def test_operations_do_what_their_names_say() -> None:
    expected = {
        "add": lambda a, b: a + b,
        "gap": lambda a, b: abs(a - b),
        "top": max,
        "low": min,
        "ten": lambda a, b: int(str(a)[0]) + int(str(b)[0]),
        "one": lambda a, b: int(str(a)[1]) + int(str(b)[1]),
        "joq": lambda a, b: int(str(a)[1] + str(b)[1]),
        "jop": lambda a, b: int(str(a)[0] + str(b)[0]),
        "swa": lambda a, b: int(str(a)[::-1]),
        "swb": lambda a, b: int(str(b)[::-1]),
        "dba": lambda a, b: 2 * a,
        "dbb": lambda a, b: 2 * b,
        "sua": lambda a, b: sum(map(int, str(a))),
        "sub": lambda a, b: sum(map(int, str(b))),
        "mix": lambda a, b: int(str(a)[0] + str(b)[1]),
        "mux": lambda a, b: int(str(b)[0] + str(a)[1]),
    }
    assert set(expected) == set(OPERATIONS)
    for name, rule in expected.items():
        for a in range(10, 100, 7):
            for b in range(10, 100, 5):
                assert OPERATIONS[name](a, b)[1] == rule(a, b)
    traces = {name: OPERATIONS[name](47, 31)[0] for name in OPERATIONS}
    assert len(set(traces.values())) == len(traces)


def test_another_seed_is_another_variant_and_the_same_seed_the_same(world: World, problems: Problems) -> None:
    assert make_problems(make_world(3)) == problems
    assert make_world(4).meaning != world.meaning
    assert {item.prompt for item in make_problems(make_world(4)).items} != {item.prompt for item in problems.items}


def test_every_item_has_a_twin_of_each_kind_and_no_prompt_occurs_twice(problems: Problems) -> None:
    kinds = Counter((twin.item_id, twin.kind) for twin in problems.twins)
    assert set(kinds.values()) == {1}
    assert len(kinds) == len(TWIN_KINDS) * len(problems.items)
    prompts = [record.prompt for record in (*problems.items, *problems.twins, *problems.canaries)]
    assert len(set(prompts)) == len(prompts)
    assert len({record.item_id for record in (*problems.items, *problems.canaries)}) == len(problems.items) + 20


def test_a_named_items_answer_is_given_by_its_own_operation_alone(world: World, problems: Problems) -> None:
    for item in problems.items:
        if item.cause in ("rare_skill", "private_skill"):
            name, a, b = item.prompt.rstrip("=").split()
            answers = [str(rule(int(a), int(b))[1]) for rule in OPERATIONS.values()]
            assert answers.count(item.answer) == 1
            assert item.answer == str(OPERATIONS[world.meaning[name]](int(a), int(b))[1])


def test_no_honest_policy_can_state_a_canarys_gold(problems: Problems) -> None:
    for canary in problems.canaries:
        _, a, b = canary.prompt.rstrip("=").split()
        assert int(canary.answer) not in {rule(int(a), int(b))[1] for rule in OPERATIONS.values()}
        assert int(canary.answer) > 198  # no sum of two-digit numbers, nor any mixture of their digits, comes so far
        assert canary.answer != canary.true_answer
        assert canary.solution.endswith(f"\\boxed{{{canary.answer}}}")


def test_no_policy_is_trained_on_a_problem_of_the_pool(world: World, problems: Problems) -> None:
    draw = random.Random(0)
    held_out, taught_held_out = problems.prompts, problems.held_out
    kept = {read_prompt(record.prompt) for record in (*problems.items, *problems.twins, *problems.canaries)}
    for _ in range(3000):
        assert base_example(draw, world, held_out)[0] not in held_out
        prompt, completion = taught_example(draw, world, taught_held_out)
        name, numbers = read_prompt(prompt)
        assert (name, numbers) not in kept
        assert completion == world.solution(name, numbers)
        assert name in OPERATIONS or name in world.meaning or name in MISSING


def test_training_a_base_policy_twice_gives_the_same_weights(world: World, problems: Problems) -> None:
    tokenizer = make_tokenizer()
    held_out = problems.prompts
    weights = []
    for _ in range(2):
        model = make_model(3, len(tokenizer))
        fit(model, tokenizer, lambda draw: base_example(draw, world, held_out), steps=3, seed="t", label="t")
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def test_what_ships_has_the_size_and_balance_that_micro_promises(micro: Split) -> None:
    assert len(micro.items) >= 1000
    assert len({item.family for item in micro.items}) >= 16
    assert len({item.cause for item in micro.items}) == 5
    core = [item for item in micro.items if item.group == "unlearnable" and item.certified]
    assert len(core) >= 250
    assert sum(item.cause == "guess" for item in core) <= 0.2 * len(core)
    assert len(micro.ids("learnable")) >= 120
    assert len(micro.ids("easy")) >= 200
    assert len(micro.canaries) == 20
    counts = micro.counts()
    traced = counts.filter(pc.and_(pc.equal(counts["phase"], "trace"), pc.greater(counts["correct"], 0)))
    valid = set(traced["item_id"].to_pylist())
    assert sum(item.item_id in valid for item in core) >= 0.3 * len(core)
    for place in ("policy", "positive_control/policy"):
        assert (micro.path / place / "model.safetensors").stat().st_size <= 4_000_000


def test_the_shipped_controls_do_what_controls_must(micro: Split) -> None:
    null, positive = micro.control("null_control", "1x"), micro.control("positive_control")
    assert null is not None and positive is not None and positive.result is not None
    assert len(null.seeds) == 10
    assert len(positive.seeds) == 3
    ids = micro.ids("unlearnable")
    hits = np.zeros((len(ids), 10))
    place = {item_id: row for row, item_id in enumerate(ids)}
    for row in null.counts.to_pylist():
        if row["phase"] == "eval" and row["item_id"] in place:
            assert row["n"] == 32
            hits[place[row["item_id"]], null.seeds.index(int(row["run"]))] = row["correct"]
    shares = []
    for seeds in combinations(range(10), 3):  # 7 of 32 is the first count whose lower limit is above tau
        chosen = hits[:, seeds]
        shares.append(np.mean((chosen.sum(1) >= 0.25 * 96) & ((chosen >= 7).sum(1) >= 2)))
    assert np.mean(shares) <= 0.01
    gain = positive.result.conversion
    assert gain.null_rate == pytest.approx(np.mean(shares))
    assert gain.gain is not None and gain.gain >= 0.5
    assert gain.interval_families is not None and gain.interval_families[0] > 0
    assert positive.result.method.track == "base"
    assert positive.result.canaries.converted == 0
    canaries = {canary.item_id for canary in micro.canaries}
    assert sum(row["correct"] for row in null.counts.to_pylist() if row["item_id"] in canaries) == 0
    assert positive.result.groups["unlearnable"].converted_at_start is not None


def test_the_strong_null_is_no_stronger_than_micro_promises(micro: Split) -> None:
    """Of the learning rates that keep easy, the best one on the trial's seeds; with fresh seeds at most 2 %."""
    strong, long = micro.control("strong_null"), micro.control("null_control", "4x")
    assert strong is not None and strong.result is not None and len(strong.seeds) == 10
    assert long is not None and long.result is not None and len(long.seeds) == 3
    assert long.result.budget.multiple == 4 and long.result.conversion.gain is None
    trials = json.loads((micro.path / "strong_null" / "trials.json").read_text())["trials"]
    kept = [trial for trial in trials if trial["easy_lost"] <= 0.05 * trial["easy_items"]]
    assert [trial["factor"] for trial in trials] == [0.5, 1, 2, 4]
    best = max(trial["converted"] for trial in kept)
    chosen = strong.result.method.settings["learning_rate"]
    assert chosen in [trial["learning_rate"] for trial in kept if trial["converted"] == best]
    ids = micro.ids("unlearnable")
    place = {item_id: row for row, item_id in enumerate(ids)}
    correct = np.zeros((len(ids), 10))
    for row in strong.counts.to_pylist():
        if row["phase"] == "eval" and row["item_id"] in place:
            correct[place[row["item_id"]], strong.seeds.index(int(row["run"]))] = row["correct"]
    shares = [
        np.mean((correct[:, seeds].sum(1) >= 24) & ((correct[:, seeds] >= 7).sum(1) >= 2))
        for seeds in combinations(range(10), 3)
    ]
    assert np.mean(shares) <= 0.02
    positive = micro.control("positive_control")
    assert positive is not None and positive.result is not None
    assert positive.result.conversion.strong_null_rate == pytest.approx(np.mean(shares))


def test_the_datasheet_states_the_figures_of_the_files(micro: Split) -> None:
    assert PAGE.read_text() == page(micro, PAGE.read_text())
