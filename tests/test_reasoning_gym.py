"""Pools of reasoning-gym: golds computed again, probes, who judges, and scorers that no text can misuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from unlearnbench.cli.main import cli
from unlearnbench.errors import DataError
from unlearnbench.records import Protocol
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.task_scorer import entry_gold, is_entry, stated_gold

rg = pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")

from unlearnbench.curation.reasoning_gym.golds import RECOMPUTED, agrees, calculated  # noqa: E402
from unlearnbench.curation.reasoning_gym.pool import task_pool, tasks_of  # noqa: E402
from unlearnbench.curation.reasoning_gym.tasks import SCORED, UNUSABLE  # noqa: E402
from unlearnbench.curation.reasoning_gym.worked import WORKED, solution  # noqa: E402


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as made:
        yield made


def _countdown() -> tuple[str, str]:
    entry = rg.create_dataset("countdown", seed=1, size=1)[0]
    return entry_gold("countdown", {}, entry["answer"], entry["metadata"]), entry["answer"]


# --- scorers --------------------------------------------------------------------------------------------------


def test_a_scorer_accepts_every_right_answer_and_no_wrong_one(verifier: Verifier) -> None:
    gold, answer = _countdown()
    metadata = json.loads(gold)["metadata"]
    numbers = " + ".join(map(str, metadata["numbers"]))
    assert is_entry(gold)
    assert stated_gold(gold) == answer
    assert verifier.verify(gold, f"so \\boxed{{{answer}}}").correct
    assert verifier.verify(gold, f"\\boxed{{{answer.replace(' ', '')}}}").correct  # another text for it
    for wrong in (str(metadata["target"]), numbers, "1 + 1", "no idea"):
        assert verifier.verify(gold, f"\\boxed{{{wrong}}}").correct is False
    assert verifier.verify(gold, "nothing in a box").reason == "no_answer"


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('touch {place}')", "open('{place}', 'w')", "(lambda: 0).__class__", "9**9**9**9**9**9"],
)
def test_no_answer_is_run_as_code_nor_hangs(verifier: Verifier, tmp_path: Path, text: str) -> None:
    place = tmp_path / "there"
    tasks = [("countdown", _countdown()[0])]
    for task in ("polynomial_multiplication", "simple_integration", "spiral_matrix", "n_queens"):
        entry = rg.create_dataset(task, seed=1, size=1)[0]
        tasks.append((task, entry_gold(task, {}, entry["answer"], entry["metadata"])))
    quick = Verifier(time_limit=0.3)
    with quick:
        verdicts = quick.verify_many([(gold, f"\\boxed{{{text.format(place=place)}}}") for _, gold in tasks])
    assert [verdict.correct for verdict in verdicts] == [False] * len(tasks)
    assert not place.exists()


def test_a_split_without_scorers_says_nothing_of_them() -> None:
    assert "verifier" not in Protocol().model_dump()
    assert Protocol(verifier="reasoning_gym").model_dump()["verifier"] == "reasoning_gym"


# --- golds ----------------------------------------------------------------------------------------------------


def test_formulas_are_calculated_exactly_and_nothing_else_is() -> None:
    assert calculated("( 7 - 2.5 ) * -4 / 3") == -6
    assert calculated("0.1 + 0.2") == Fraction(3, 10)
    assert calculated("(0x1f >> 2) ^ 3") == 4
    for text in ("__import__('os')", "2 ** 9", "x + 1", "[1]", "f(2)", "1 +"):
        with pytest.raises(ValueError, match=r"not a formula|cannot be calculated"):
            calculated(text)
    with pytest.raises(ZeroDivisionError):
        calculated("4 / (2 - 2)")


def test_a_problem_without_an_answer_has_no_right_gold() -> None:
    assert agrees("simple_equations", "", "83", {"equation": "0 = 0", "variable": "i"}) is False
    assert agrees("basic_arithmetic", "", "0", {"expression": "4 / 0 * 1"}) is False


@pytest.mark.parametrize("task", sorted(RECOMPUTED))
def test_golds_computed_again_are_the_package_s_where_those_are_right(task: str) -> None:
    dataset = rg.create_dataset(task, seed=2, size=25)
    found = [
        agrees(task, entry["question"], str(entry["answer"]), entry["metadata"])
        for entry in (dataset[k] for k in range(25))
    ]
    assert found.count(True) >= 3
    assert found.count(False) <= (1 if task in ("basic_arithmetic", "simple_equations") else 0)
    entry = dataset[0]
    assert agrees(task, entry["question"], "12345678.5", entry["metadata"]) in (False, None)


def test_the_wrong_golds_of_basic_arithmetic_are_found() -> None:
    """Integer division in place of division: 130 and more of 400 without parentheses."""
    dataset = rg.create_dataset("basic_arithmetic", seed=3, size=200, allow_parentheses=False)
    wrong = [
        e
        for e in (dataset[k] for k in range(200))
        if agrees("basic_arithmetic", "", e["answer"], e["metadata"]) is False
    ]
    assert len(wrong) > 40
    example = wrong[0]
    assert Fraction(example["answer"]) != calculated(example["metadata"]["expression"])


# --- pools ----------------------------------------------------------------------------------------------------


def test_items_and_probes_are_of_the_same_task_and_size_and_differ(verifier: Verifier) -> None:
    tasks = tasks_of(
        "reasoning_gym:chain_sum:min_terms=2:max_terms=3:max_digits=2,lcm:max_value=12,countdown:max_value=20"
    )
    pool = task_pool(tasks, 13, seed=5, examples=2)
    assert [item.family for item in pool.items].count("chain_sum") == 5
    assert pool.judge == "reasoning_gym"
    prompts = [item.prompt for item in pool.items] + [twin.prompt for twin in pool.twins]
    assert len(set(prompts)) == len(prompts) == 13 * 5
    terms = {
        item.item_id: item.prompt.rsplit("Problem:", 1)[1].count(" ")
        for item in pool.items
        if item.family == "chain_sum"
    }
    for twin in pool.twins:
        if twin.item_id in terms:
            assert twin.prompt.rsplit("Problem:", 1)[1].count(" ") == terms[twin.item_id]
    pairs = [(item.answer, item.solution) for item in pool.items]
    assert all(verdict.correct for verdict in verifier.verify_many(pairs))
    assert all("Solution:" in prompt for prompt in prompts)
    plain = tasks[:2]
    assert task_pool(plain, 6, seed=5, examples=2) == task_pool(plain, 6, seed=5, examples=2)
    assert task_pool(plain, 6, seed=6, examples=2).items != task_pool(plain, 6, seed=5, examples=2).items


def test_wrong_golds_never_become_items() -> None:
    pool = task_pool(tasks_of("reasoning_gym:basic_arithmetic:allow_parentheses=false"), 15)
    assert pool.left_out["gold wrong when computed again"] > 0
    for item in pool.items:
        expression = item.prompt.split("\n")[0].removeprefix("Calculate ").rstrip(".")
        assert calculated(expression) == Fraction(item.answer)


@pytest.mark.parametrize("task", sorted(WORKED))
def test_worked_solutions_state_the_answer_and_every_equation_holds(task: str, verifier: Verifier) -> None:
    dataset = rg.create_dataset(task, seed=4, size=12)
    for entry in (dataset[k] for k in range(12)):
        if agrees(task, entry["question"], entry["answer"], entry["metadata"]) is False:
            continue
        gold = entry["answer"]
        if task in SCORED:
            gold = entry_gold(task, {}, gold, entry["metadata"])
        text = solution(task, entry["answer"], entry["metadata"])
        assert verifier.verify(gold, text).correct
        for step in text.split("\\boxed")[0].replace("\u00d7", "*").rstrip(". ").split(", "):
            sides = [calculated(side) for side in step.split("=") if not any(letter.isalpha() for letter in side)]
            assert len(set(sides)) <= 1


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("gym:lcm", "is none that is known"),
        ("reasoning_gym:nothing", "has no task 'nothing'"),
        ("reasoning_gym:boxnet", "makes no items: no golds"),
        ("reasoning_gym:lcm:max_value", "write key=value"),
        ("reasoning_gym:lcm:no_such=1", "refuses its settings"),
        ("reasoning_gym:lcm:max_value=2", "too few different problems"),
    ],
)
def test_a_pool_that_cannot_be_made_is_refused_in_one_sentence(pool: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_pool(tasks_of(pool), 100)


def test_tasks_that_are_scored_or_unusable_are_tasks() -> None:
    from reasoning_gym.factory import DATASETS

    assert {*SCORED, *UNUSABLE} <= set(DATASETS)
    assert not set(SCORED) & set(UNUSABLE)


def test_two_commands_make_a_pool_that_curate_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pool = "reasoning_gym:gcd:max_value=20,countdown:min_numbers=2:max_numbers=3"
    made = CliRunner().invoke(cli, ["new-split", "mine", "--pool", pool, "--items", "6", "--examples", "1"])
    assert made.exit_code == 0, made.output
    assert "curate --config mine/split.yaml" in made.output
    split = Split(tmp_path / "mine")
    assert split.config.protocol.verifier == "reasoning_gym"
    assert len(split.items) == 6
    assert len(split.twins) == 24
    refused = CliRunner().invoke(cli, ["new-split", "other", "--items", "6"])
    assert refused.exit_code == 2
