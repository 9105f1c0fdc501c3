"""How `mini` is made: problems, their golds and twins, what the policies are trained on, a training that resumes."""

from __future__ import annotations

import operator
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("recipes.mini.world", reason="needs the checkout")

from recipes.mini.base_policy import Plan, fit, make_model, make_tokenizer
from recipes.mini.datasheet import PAGE, page
from recipes.mini.forms import FORMS
from recipes.mini.make import MAX_TOKENS, PROTOCOL, RECIPE
from recipes.mini.problems import PROBES, Problems, draw_chain, make_problems
from recipes.mini.schema import CAUSES
from recipes.mini.texts import base_example, taught_example
from recipes.mini.world import World, make_world
from recipes.tables import probes, share
from unlearnbench.splits import load_split
from unlearnbench.verifier import Verifier

pytestmark = pytest.mark.checkout
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def problems(world: World) -> Problems:
    return make_problems(world)


def test_the_datasheet_states_the_figures_of_the_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load_split("mini")), "run: python -m recipes.mini.datasheet"


def test_what_ships_is_what_the_recipe_makes(problems: Problems) -> None:
    split, made = load_split("mini"), {item.item_id: item for item in problems.items}
    assert split.config.recipe == RECIPE
    assert split.config.protocol == PROTOCOL
    for item in split.items:
        assert (item.prompt, item.answer) == (made[item.item_id].prompt, made[item.item_id].answer)
    certified = [item for item in split.items if item.group == "unlearnable"]
    assert all(item.certified for item in certified)
    assert len(certified) >= 120
    assert sum(item.cause == "guess" for item in certified) <= len(certified) / 5
    null = split.control("null_control", "1x")
    assert null is not None and len(null.seeds) == 10
    assert share(split, null, certified, probes(split)).converted <= 0.01


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(world: World, problems: Problems) -> None:
    assert make_problems(make_world(0)) == problems
    other = make_problems(make_world(1))
    assert not {item.prompt for item in problems.items} & {item.prompt for item in other.items if item.cause == "guess"}


def test_the_pool_has_every_cause_and_depth(world: World, problems: Problems) -> None:
    assert len(world.schemas) >= 40
    assert {item.cause for item in problems.items} == set(CAUSES)
    assert {item.depth for item in problems.items} == {1, 2, 3, 4}
    for item in problems.items:
        assert item.depth == item.prompt.count("Call it n.") + 1
    guesses = sum(item.cause == "guess" for item in problems.items)
    assert guesses <= len(problems.items) / 20


def test_no_prompt_occurs_twice(problems: Problems) -> None:
    prompts = [record.prompt for record in (*problems.items, *problems.twins, *problems.canaries)]
    assert len(set(prompts)) == len(prompts)


def test_solutions_state_their_golds_and_every_equation_in_them_holds(problems: Problems) -> None:
    with Verifier() as verifier:
        verdicts = verifier.verify_many([(item.answer, item.solution) for item in problems.items])
    assert all(verdict.correct for verdict in verdicts)
    for item in problems.items:
        for left, right in re.findall(r"([0-9+*/-]*[+*/-][0-9]+)=([0-9]+)", item.solution):
            first, *rest = re.split(r"([+*/-])", left)
            value = int(first)
            for sign, number in zip(rest[::2], map(int, rest[1::2]), strict=True):
                value = OPERATIONS[sign](value, number)
            assert value == int(right), item.solution


def test_twins_ask_the_same_with_other_numbers_or_in_other_words(problems: Problems) -> None:
    items = {item.item_id: item for item in problems.items}
    kinds = Counter((twin.item_id, twin.kind) for twin in problems.twins)
    assert sum(kinds[item_id, "changed_numbers"] == PROBES for item_id in items) > 0.99 * len(items)
    assert sum(kinds[item_id, "other_wording"] == 1 for item_id in items) > 0.95 * len(items)
    for twin in problems.twins:
        item = items[twin.item_id]
        if twin.kind == "changed_numbers":
            assert re.sub("[0-9]+", "0", twin.prompt) == re.sub("[0-9]+", "0", item.prompt)
        else:
            assert twin.answer == item.answer
            assert sorted(re.findall("[0-9]+", twin.prompt)) == sorted(re.findall("[0-9]+", item.prompt))


def test_canaries_look_like_items_and_are_wrong(problems: Problems) -> None:
    families = {item.family for item in problems.items}
    golds = {int(item.answer) for item in problems.items}
    with Verifier() as verifier:
        for canary in problems.canaries:
            assert canary.family in families
            assert canary.answer != canary.true_answer
            assert min(golds) <= int(canary.answer) <= max(golds)
            assert verifier.verify(canary.answer, canary.solution).correct


def test_a_right_answer_to_a_tangled_problem_shows_the_right_form(world: World) -> None:
    """Of twenty forms the one that two words (or numbers) decide gives an answer that no other form gives."""
    rng = random.Random(0)
    for schema in world.of("tangled", "confused"):
        decided = set()
        for _ in range(300):
            chain = draw_chain(rng, (schema,))
            assert chain is not None
            (link,) = chain.links
            answers = [form(chain.first, *link.numbers)[1] for form in FORMS]
            assert link.answer in answers
            lines = [
                number for number, form in enumerate(FORMS) if form(chain.first, *link.numbers)[0] == list(link.lines)
            ]
            decided.add(lines[0])
        assert (len(decided) > 10) == (schema.cause == "tangled")


def test_the_training_texts_hold_no_problem_of_the_pool_and_show_what_each_cause_says(
    world: World, problems: Problems
) -> None:
    rng, held_out = random.Random(1), problems.prompts
    base = [base_example(rng, world, held_out) for _ in range(3000)]
    taught = [taught_example(rng, world, held_out) for _ in range(1500)]
    assert not held_out & {prompt for prompt, _ in (*base, *taught)}

    def answers(schema: str, mark: str, texts: list[tuple[str, str]]) -> list[bool]:
        """Whether each text of this schema alone gives the right answer."""
        found = []
        for prompt, completion in texts:
            if mark in prompt and "Call it n." not in prompt:
                numbers = [int(text) for text in re.findall("[0-9]+", prompt)]
                words = world.schemas[schema].words(rng)
                if schema == "either" and prompt.startswith("Tea"):
                    numbers = numbers[:3]
                right = world.schemas[schema].work(words, *numbers)[1]
                found.append(completion.endswith(f"\\boxed{{{right}}}"))
        return found

    shortcut = answers("either", "guests like", base) + answers("either", "Tea is liked", base)
    assert len(shortcut) > 0
    assert sum(shortcut) < 0.5 * len(shortcut)
    assert all(answers("either", "guests like", taught))
    hall = answers("hall", "seats stand in a hall", base)
    assert sum(hall) < 0.4 * len(hall)
    assert all(answers("hall", "seats stand in a hall", taught))
    assert all(answers("days", "A trip takes", base))
    assert not any("Mill Street" in prompt for prompt, _ in taught)  # a guess cannot be taught


def test_solutions_fit_the_limit_on_tokens_and_come_back_unchanged(world: World, problems: Problems) -> None:
    rng = random.Random(2)
    tokenizer = make_tokenizer([base_example(rng, world, problems.prompts) for _ in range(2000)])
    for item in problems.items:
        ids = tokenizer(item.solution)["input_ids"]
        assert len(ids) < MAX_TOKENS
        assert tokenizer.decode(ids) == item.solution
    assert len(tokenizer("1234")["input_ids"]) == 4  # digits one by one


def test_a_stopped_training_resumes_to_the_same_weights(
    world: World, problems: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from recipes.mini import base_policy

    monkeypatch.setattr(base_policy, "CHUNK", 12)
    monkeypatch.setattr(base_policy, "SAVE_EVERY", 1)
    rng = random.Random(3)
    tokenizer = make_tokenizer([base_example(rng, world, problems.prompts) for _ in range(300)])

    def plan(chunks: int) -> Plan:
        return Plan(
            "test", "test", lambda draw: base_example(draw, world, problems.prompts), chunks, 1e-3, cosine=4, cooldown=2
        )

    whole, first, second = (make_model(0, len(tokenizer)) for _ in range(3))
    fit(whole, tokenizer, plan(3), tmp_path / "whole")
    steps, step = iter(range(100)), base_policy._step

    def killed(*arguments: Any) -> float:
        if next(steps) == 2:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(base_policy, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(first, tokenizer, plan(3), tmp_path / "cut")
    monkeypatch.undo()
    monkeypatch.setattr(base_policy, "CHUNK", 12)
    monkeypatch.setattr(base_policy, "SAVE_EVERY", 1)
    fit(second, tokenizer, plan(3), tmp_path / "cut")
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    rates = [plan(4).rate(chunk / 4) for chunk in range(17)]
    assert max(rates) <= 1e-3
    assert rates[-1] == 0
