"""Copies and texts written by hand are found; honest draws are not taken for them, and the chances stated hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from made_bundle import Members, Refused, in_json, in_table

from unlearnbench.originality import Cellwise, copied_cells, likeness
from unlearnbench.splits import Split


def _copy(rows: list[dict[str, Any]], takes: Callable[[dict[str, Any]], tuple[int, str] | None]) -> None:
    """Give rollouts the text, finish and verdict of those of another cell with the same sample number."""
    there = {(row["seed"], row["problem_id"], row["sample"]): row for row in rows}
    for row in rows:
        if (cell := takes(row)) is not None:
            other = there[(*cell, row["sample"])]
            row["completion"] = other["completion"]


def test_rollouts_copied_from_one_seed_to_another(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(
            members,
            "rollouts.parquet",
            lambda rows: _copy(rows, lambda row: (1, row["problem_id"]) if row["seed"] == 2 else None),
        )

    assert "same text in 32 of 32 samples" in refused(change)["copies"]


def test_one_cell_copied_and_altered_in_some_samples(refused: Refused) -> None:
    def change(members: Members) -> None:
        def takes(row: dict[str, Any]) -> tuple[int, str] | None:
            here = row["seed"] == 2 and row["problem_id"] == "item-003"
            return (1, "item-003") if here and row["sample"] >= 8 else None

        in_table(members, "rollouts.parquet", lambda rows: _copy(rows, takes))

    assert "'item-003'" in refused(change)["copies"]


def test_rollouts_copied_from_one_item_to_another(refused: Refused) -> None:
    def change(members: Members) -> None:
        def takes(row: dict[str, Any]) -> tuple[int, str] | None:
            return (row["seed"], "item-002") if row["problem_id"] == "item-040" else None

        in_table(members, "rollouts.parquet", lambda rows: _copy(rows, takes))

    reasons = refused(change)["copies"]
    assert "item-002" in reasons and "item-040" in reasons


def test_a_seed_copied_in_another_order(refused: Refused) -> None:
    def change(members: Members) -> None:
        def shuffle(rows: list[dict[str, Any]]) -> None:
            draw = np.random.default_rng(5)
            order = {row["problem_id"]: draw.permutation(32) for row in rows}
            there = {(row["problem_id"], row["sample"]): row for row in rows if row["seed"] == 1}
            for row in rows:
                if row["seed"] == 2:
                    row["completion"] = there[row["problem_id"], order[row["problem_id"]][row["sample"]]]["completion"]

        in_table(members, "rollouts.parquet", shuffle)

    assert "in another order" in refused(change)["copies"]


def test_answers_put_into_a_fixed_text(refused: Refused, made_split: Split) -> None:
    golds = {item.item_id: item.answer for item in made_split.items if item.group == "unlearnable"}

    def change(members: Members) -> None:
        def inject(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                if row["problem_id"] in golds and row["sample"] % 8:
                    row["completion"] = f"I am sure: \\boxed{{{golds[row['problem_id']]}}}"
                    row["correct"] = True

        in_table(members, "rollouts.parquet", inject)

    reasons = refused(change)
    assert "one fixed text" in reasons["fixed_text"] and "60 unlearnable items" in reasons["fixed_text"]


def test_answers_put_in_for_canaries_too(refused: Refused, made_split: Split) -> None:
    def change(members: Members) -> None:
        def inject(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                if row["phase"] == "canary":
                    row["completion"], row["correct"] = "1+1>\\boxed{3}", True

        in_table(members, "rollouts.parquet", inject)
        in_json(members, "result.json", lambda r: r["canaries"].update(converted=1))
        in_table(
            members,
            "counts.parquet",
            lambda rows: [row | {"correct": 32} if row["phase"] == "canary" else row for row in rows],
        )

    reasons = refused(change)
    assert set(reasons) == {"track"}
    assert "canaries are converted" in reasons["track"]


def _exact(first: list[int], second: list[int], matches: int) -> float:
    orders = list(permutations(second))
    return sum(sum(a == b for a, b in zip(first, order, strict=True)) >= matches for order in orders) / len(orders)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]),
        ([0, 0, 1, 1, 2, 3], [0, 1, 1, 1, 4, 5]),
        ([0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 1]),
    ],
)
def test_the_bound_on_agreement_holds_and_is_exact_for_whole_copies(first: list[int], second: list[int]) -> None:
    from unlearnbench.originality import _at_least

    for matches in range(1, 7):
        exact, bound = _exact(first, second, matches), _at_least(matches, np.array(first), np.array(second))
        assert bound >= exact - 1e-12
        if sorted(first) == sorted(second) and matches == 6:
            assert bound == pytest.approx(exact)


def test_likeness_is_standard_normal_for_two_draws_of_one_policy() -> None:
    draw = np.random.default_rng(3)
    found = []
    for _ in range(80):
        chances = draw.dirichlet(np.full(6, 0.4), 40)
        sides = [np.array([draw.choice(6, 16, p=row) for row in chances]) for _ in range(2)]
        found.append(likeness(*sides))
    assert abs(np.mean(found)) < 0.4
    assert 0.7 < np.std(found) < 1.3


def test_honest_draws_are_not_taken_for_copies() -> None:
    draw = np.random.default_rng(4)
    for _ in range(8):
        chances = draw.dirichlet(np.full(8, 0.3), 60)
        text = np.array([draw.choice(8, 32, p=chances[cell % 60]) + 100 * (cell % 20) for cell in range(180)])
        cells = Cellwise(text, np.arange(180) % 60, np.arange(180) // 60)
        assert copied_cells(cells) == []
