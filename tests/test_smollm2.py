"""The recipe of smollm2-135m-reasoning: which candidates are chosen, and when a right rollout's steps are right."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
pytest.importorskip("recipes.smollm2.make", reason="needs the checkout")

from recipes.real.problems import FAMILIES, make_problems
from recipes.smollm2 import taught
from recipes.smollm2.candidates import PROBES, QUOTAS, Problems, candidates
from recipes.smollm2.datasheet import page
from recipes.smollm2.make import HARD, NEVER, REST, choose
from recipes.smollm2.soundness import Soundness, by_quarter, count_runs, equations, given, read_soundness, sound
from recipes.smollm2.taught import TURNS, worked_problems
from unlearnbench.io import files, tables
from unlearnbench.policies.policy import load_policy
from unlearnbench.records import Item
from unlearnbench.splits import load_split
from unlearnbench.training.ledger import ROLLOUTS
from unlearnbench.verifier import Verifier

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def problems() -> Problems:
    return candidates(0)


def _item(solution: str, answer: str, family: str = "sum_three") -> Item:
    return Item(item_id="a", prompt="?", answer=answer, solution=solution, family=family, group="learnable")


def test_candidates_have_their_golds_probes_and_families(problems: Problems) -> None:
    assert len(problems.items) >= 430
    assert Counter(item.family for item in problems.items)["lcm"] == next(q.count for q in QUOTAS if q.family == "lcm")
    probes = Counter(twin.item_id for twin in problems.twins)
    assert sum(probes[item.item_id] == PROBES for item in problems.items) > 0.95 * len(problems.items)
    prompts = [record.prompt for record in (*problems.items, *problems.twins, *problems.canaries)]
    assert len(set(prompts)) == len(prompts)
    assert all(prompt.count("<|im_start|>assistant") == 3 for prompt in prompts)  # two worked examples
    with Verifier() as verifier:
        assert all(v.correct for v in verifier.verify_many([(i.answer, i.solution) for i in problems.items]))


def test_every_reference_solution_is_sound(problems: Problems) -> None:
    assert [item.item_id for item in problems.items if not sound(item, item.solution)] == []


def test_the_choice_takes_some_of_each_kind_and_depends_on_nothing_else(problems: Problems) -> None:
    found = {item.item_id: (number % 64, 64) for number, item in enumerate(problems.items)}
    chosen = choose(found, problems, 0)
    counts = [found[name][0] for name in chosen]
    assert counts.count(0) <= NEVER
    assert 0 < sum(0 < count <= 6 for count in counts) <= HARD
    assert sum(count > 6 for count in counts) == REST
    assert choose(found, problems, 0) == chosen != choose(found, problems, 1)


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("4 + 7 = 11, 11 + 4 = 15. \\boxed{15}", True),
        ("7 + 4 = 11, 4 + 11 = 15. \\boxed{15}", True),
        ("4 + 7 + 4 = 15. \\boxed{15}", True),
        ("4 + 7 = 12, 12 + 3 = 15. \\boxed{15}", False),  # two wrongs
        ("5 + 10 = 15. \\boxed{15}", False),  # other numbers
        ("\\boxed{15}", False),  # no steps
        ("The answer = fifteen. \\boxed{15}", False),
        ("4 + 7 = 11. \\boxed{15}", False),
    ],
)
def test_a_rollout_is_sound_only_by_its_steps(completion: str, right: bool) -> None:
    assert sound(_item("4 + 7 = 11, 11 + 4 = 15. \\boxed{15}", "15"), completion) is right


def test_equations_and_given_numbers_are_read() -> None:
    assert equations("3*x = 12 - 3, x = 9 / 3 = 3. \\boxed{3}") is not None
    assert equations("2 + 2 = four") is None
    assert given("12 + 5 = 17, 17 - 12 = 5. \\boxed{5}") == Counter({"12": 2, "5": 1})


def test_soundness_is_counted_by_group_and_quarter() -> None:
    item = _item("4 + 7 = 11, 11 + 4 = 15. \\boxed{15}", "15")
    rows = [
        {"step": step, "item_id": "a", "correct": correct, "completion": text}
        for step, correct, text in (
            (0, True, "4 + 7 = 11, 11 + 4 = 15. \\boxed{15}"),
            (1, True, "\\boxed{15}"),
            (7, True, "4 + 7 + 4 = 15. \\boxed{15}"),
            (7, False, "4 + 7 + 4 = 16. \\boxed{16}"),
        )
    ]
    found = by_quarter(rows, {"a": item}, 8)
    assert (found["learnable", 1].right, found["learnable", 1].sound) == (2, 1)
    assert (found["learnable", 4].right, found["learnable", 4].sound) == (1, 1)


def test_soundness_is_counted_over_the_labelling_runs(tmp_path: Path) -> None:
    one = _item("4 + 7 = 11, 11 + 4 = 15. \\boxed{15}", "15")
    blank = {"round": 0, "rollout": 0, "source": "policy", "policy_version": 0, "token_ids": [], "finish": "stop"}
    blank |= {"answer": None, "reason": "match", "reward": 1.0, "valid_trace": None, "kept": True}
    for run in ("1", "2"):
        rows = [
            {**blank, "step": step, "item_id": one.item_id, "correct": right, "completion": text}
            for step, right, text in ((0, True, one.solution), (3, True, one.answer), (3, False, one.solution))
        ]
        tables.write_parquet(
            tmp_path / run / "rollouts" / "000004.parquet", pa.Table.from_pylist(rows, schema=ROLLOUTS)
        )
    files.write_json(tmp_path / "found.json", count_runs([one], tmp_path))
    found = read_soundness(tmp_path / "found.json")
    assert found == {("learnable", 1): Soundness(2, 2), ("learnable", 4): Soundness(2, 0)}
    assert read_soundness(tmp_path / "none.json") == {}


def test_the_datasheet_counts_groups_controls_and_rewards() -> None:
    split = load_split("mini")  # of the same form
    text = page(split)
    hard = [item for item in split.items if item.group != "easy"]
    assert f"unlearnable {100 * 120 / len(hard):.1f} %" in text and "| unlearnable items | at least 25 | 120 |" in text
    table = tables.read_parquet(split.path / "null_control/1x/curves.parquet")
    curves = [row for row in table.to_pylist() if row["group"] == "unlearnable"]
    last = [row for row in curves if row["step"] >= 3 * (1 + max(row["step"] for row in curves)) / 4]
    right, drawn = (sum(row[name] for row in last) for name in ("correct", "rollouts"))
    assert f"| {100 * right / drawn:.1f} % of {drawn} |" in text


def test_more_twins_an_item_leave_the_shipped_problems_as_they_were() -> None:
    assert make_problems(0) == make_problems(0, FAMILIES, 10, 4, 1)
    many = make_problems(0, FAMILIES[:2], 3, 0, 4)
    assert Counter(twin.item_id for twin in many.twins) == Counter({item.item_id: 4 for item in many.items})


def test_the_positive_control_is_taught_no_problem_of_the_split(problems: Problems) -> None:
    made = worked_problems(problems, 0)
    records = (*problems.items, *problems.twins, *problems.canaries)
    asked = {record.prompt.rsplit("user\n", 1)[1].split("<|im_end|>")[0] for record in records}
    assert set(made) == {item.family for item in problems.items}
    assert all(len(rows) > TURNS for rows in made.values())
    assert not [question for rows in made.values() for question, _ in rows if question in asked]
    numbers = {tuple(re.findall(r"\d+", question)) for question in asked}
    in_words = [question for family in FAMILIES for question, _ in made.get(family.name, ())]
    assert not [question for question in in_words if tuple(re.findall(r"\d+", question)) in numbers]
    assert all("\\boxed{" in solution for rows in made.values() for _, solution in rows)


def test_a_killed_fine_tuning_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught, "STEPS", 3)
    monkeypatch.setattr(taught, "SAVE_EVERY", 1)
    examples = {"sum": [(f"{n}+1", f"\\boxed{{{n + 1}}}") for n in range(20)]}
    folder = load_split("micro").policy_path

    whole = load_policy(folder)
    taught.fit(whole, examples, 0, tmp_path / "whole.state")
    first, second = load_policy(folder), load_policy(folder)
    before = {name: weight.clone() for name, weight in first.weights()}
    write = torch.save

    def killed(saved: object, path: Path) -> None:
        write(saved, path)
        if path.with_suffix(".state").is_file():  # in the second saving, before it takes the first one's place
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        taught.fit(first, examples, 0, tmp_path / "killed.state")
    monkeypatch.setattr(torch, "save", write)
    taught.fit(second, examples, 0, tmp_path / "killed.state")
    assert all(torch.equal(one, two) for (_, one), (_, two) in zip(whole.weights(), second.weights(), strict=True))
    assert not all(torch.equal(before[name], weight) for name, weight in second.weights())
