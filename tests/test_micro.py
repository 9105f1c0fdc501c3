"""The embedded split: its recipe keeps its promises, and what ships has the figures its datasheet states."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from numpy.typing import NDArray

from recipes.controls import FACTORS
from recipes.micro.base_policy import fit, make_model, make_tokenizer
from recipes.micro.datasheet import PAGE, page
from recipes.micro.families import (
    CANDIDATES,
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
from unlearnbench.records import TWIN_KINDS, Canary, Item
from unlearnbench.scoring.canaries import golds_were_read, solved_canaries
from unlearnbench.scoring.curves import read_curves
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
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
        "dig": lambda a, b: abs(int(str(a)[0]) - int(str(b)[0])),
        "dog": lambda a, b: abs(int(str(a)[1]) - int(str(b)[1])),
        "prt": lambda a, b: int(str(a)[0]) * int(str(b)[0]),
        "pru": lambda a, b: int(str(a)[1]) * int(str(b)[1]),
        "jrp": lambda a, b: int(str(b)[0] + str(a)[0]),
        "jsq": lambda a, b: int(str(b)[1] + str(a)[1]),
        "csa": lambda a, b: int(str(a)[0]) + int(str(b)[1]),
        "crq": lambda a, b: int(str(b)[0]) + int(str(a)[1]),
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
    assert all(count == (CANDIDATES if kind == "changed_numbers" else 1) for (_, kind), count in kinds.items())
    assert len(kinds) == len(TWIN_KINDS) * len(problems.items)
    prompts = [record.prompt for record in (*problems.items, *problems.twins, *problems.canaries)]
    assert len(set(prompts)) == len(prompts)
    assert len({record.item_id for record in (*problems.items, *problems.canaries)}) == len(problems.items) + 20


def test_a_named_items_answer_is_given_by_its_own_operation_alone(world: World, problems: Problems) -> None:
    for item in problems.items:
        if item.cause in ("rare_skill", "private_skill"):
            name, a, b = item.prompt.rstrip("=").split()
            answers = [str(OPERATIONS[known](int(a), int(b))[1]) for known in world.operations]
            assert answers.count(item.answer) == 1
            assert item.answer == str(OPERATIONS[world.meaning[name]](int(a), int(b))[1])


def test_a_canarys_gold_is_right_for_other_numbers_and_wrong_for_its_own(world: World, problems: Problems) -> None:
    for canary in problems.canaries:
        name, numbers = read_prompt(canary.prompt)
        assert canary.true_answer == str(world.solve(name, numbers)[1]) != canary.answer
        trace, box = canary.solution.split(">")
        assert box == f"\\boxed{{{canary.answer}}}"
        rule = OPERATIONS[world.meaning[name]]
        assert any(rule(a, b) == (trace, int(canary.answer)) for a in range(10, 100) for b in range(10, 100))


@pytest.mark.parametrize("seed", [0, 3])
def test_no_classifier_tells_canaries_from_items(seed: int) -> None:
    """Logistic regression on characters and numbers, its AUC by five-fold cross-validation: chance is 0.50 +- 0.07."""
    problems = make_problems(make_world(seed))
    items = [item for item in problems.items if item.cause == "private_skill"]
    records = [*items, *problems.canaries]
    marked = np.array([False] * len(items) + [True] * len(problems.canaries))
    scores = np.zeros(len(records))
    features = np.array([_features(record) for record in records])
    fold = np.random.default_rng(seed).permutation(len(records)) % 5
    for part in range(5):
        scores[fold == part] = _logistic(features[fold != part], marked[fold != part], features[fold == part])
    right, wrong = scores[marked], scores[~marked]
    auc = (right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2
    assert auc < 0.5 + 3 * 0.07


def _features(record: Item | Canary) -> list[float]:
    """Of text: which characters occur how often; of numbers: the operands, the answer, lengths, the item's number."""
    (_, (a, b)), answer = read_prompt(record.prompt), int(record.answer)
    characters = "abcdefghijklmnopqrstuvwxyz0123456789+-*%=;:>,&"
    counted = [float((record.prompt + record.solution).count(character)) for character in characters]
    number = float(record.item_id.split("-")[1])
    return [
        *counted,
        a,
        b,
        answer,
        answer % 10,
        len(record.solution),
        len(record.answer),
        number,
        a - b,
        a + b - answer,
    ]


def _logistic(
    features: NDArray[np.float64], marked: NDArray[np.bool_], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores by logistic regression with a ridge, balanced classes, standardised features; by Newton's method."""
    mean, spread = features.mean(0), features.std(0) + 1e-9
    one = np.hstack([(features - mean) / spread, np.ones((len(features), 1))])
    weight = np.where(marked, 0.5 / marked.sum(), 0.5 / (~marked).sum()) * len(marked)
    found = np.zeros(one.shape[1])
    for _ in range(20):
        chance = 1 / (1 + np.exp(-one @ found))
        slope = one.T @ (weight * (chance - marked)) + found
        curve = (one * (weight * chance * (1 - chance))[:, None]).T @ one + np.eye(len(found))
        found = found - np.linalg.solve(curve, slope)
    scored: Reals = np.hstack([(asked - mean) / spread, np.ones((len(asked), 1))]) @ found
    return scored


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
        assert name in {*OPERATIONS, *world.meaning, *world.entangled, *MISSING}


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
    assert len({item.cause for item in micro.items}) == 6
    core = [item for item in micro.items if item.group == "unlearnable" and item.certified]
    assert len(core) >= 250
    assert sum(item.cause == "guess" for item in core) <= 0.05 * len(core)
    assert sum(item.cause == "entangled_skill" for item in core) >= 100
    probed = probes_of(micro)
    assert sum(item.item_id in probed for item in core) >= 0.95 * len(core)
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
    items, probes = [item for item in micro.items if item.group == "unlearnable"], probes_of(micro)
    runs = [str(seed) for seed in null.seeds]
    found = outcomes_of(null.counts, items, probes, runs, micro.config.protocol.tau, "null control")
    assert found.converted.mean() <= 0.015  # 0.5 % was wanted; four labelling runs leave 1.0 %
    gain = positive.result.conversion
    assert gain.null_rate == pytest.approx(found.converted.mean())
    assert gain.gain is not None and gain.gain >= 0.6
    assert gain.interval_families is not None and gain.interval_families[0] > 0
    assert positive.result.method.track == "base"
    assert positive.result.canaries.converted == 0
    told = solved_canaries(micro, null.counts, runs, micro.config.protocol.tau)
    assert told.converted == 0 and not golds_were_read(told)
    assert positive.result.groups["unlearnable"].converted_at_start is not None


def test_every_control_ships_with_its_seeds_and_curves(micro: Split) -> None:
    for name, seeds in {"null_control/1x": 10, **{f"tuned_null/{factor:g}": 5 for factor in FACTORS}}.items():
        control = micro.control(*name.split("/"))
        assert control is not None and control.result is not None and len(control.seeds) == seeds
        curves = read_curves(micro.path / name / "curves.parquet")
        assert curves is not None and set(curves["group"].to_pylist()) >= {"easy", "learnable", "unlearnable"}
    for factor in FACTORS:
        rate = json.loads((micro.path / f"tuned_null/{factor:g}/result.json").read_text())["method"]["settings"]
        assert rate["learning_rate"] == pytest.approx(factor * micro.config.recipe.learning_rate)
    long = micro.control("null_control", "4x")
    if long is not None:  # made last, in hours
        assert long.result is not None and len(long.seeds) == 10
        assert long.result.budget.multiple == 4 and long.result.conversion.gain is None


def test_the_datasheet_states_the_figures_of_the_files(micro: Split) -> None:
    assert PAGE.read_text() == page(micro, PAGE.read_text())
