"""Copies and texts written by hand are found; honest draws are not taken for them, and the chances stated hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_bundle import Members, Refused, altered, in_json, in_table, make_bundle, make_run, told
from made_run import make_split

from unlearnbench.leaderboard import copy_detection
from unlearnbench.leaderboard.copy_detection import Cellwise, borrowed_texts, copied_cells, likeness, same_texts
from unlearnbench.leaderboard.verification import verify_bundle
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


def own_words(rows: list[dict[str, Any]]) -> None:
    """Make every text one that no other problem and no other sample has."""
    for row in rows:
        row["completion"] = f"{row['problem_id']} {row['sample']} {row['completion']}"


def test_rollouts_of_solved_items_put_under_others_of_the_same_answer_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items 0 to 11 are unlearnable, fewer than what tells; items 60 to 71 are easy and of the same answers."""
    monkeypatch.setattr(copy_detection, "BORROWED_PROBLEMS", 12)
    split = make_split(tmp_path / "tiny", answers=20)
    bundle = make_bundle(make_run(tmp_path / "mine", split), tmp_path / "mine.zip")

    def borrow(rows: list[dict[str, Any]]) -> None:
        own_words(rows)
        draw = np.random.default_rng(6)
        there: dict[tuple[int, str], list[str]] = {}
        for row in rows:
            if row["correct"]:
                there.setdefault((row["seed"], row["problem_id"]), []).append(row["completion"])
        for row in rows:
            number = int(row["problem_id"].removeprefix("item-")) if row["phase"] == "eval" else 99
            if number < 12 and row["correct"]:
                row["completion"] = str(draw.choice(there[row["seed"], f"item-{number + 60:03}"]))

    honest = altered(bundle, tmp_path / "honest.zip", lambda members: in_table(members, "rollouts.parquet", own_words))
    assert verify_bundle(honest, split, workers=1).verified
    copied = altered(bundle, tmp_path / "copied.zip", lambda members: in_table(members, "rollouts.parquet", borrow))
    reasons = told(verify_bundle(copied, split, workers=1))
    assert set(reasons) == {"borrowed"}
    assert "12 of the 12 unlearnable items that it solves in the words of other problems" in reasons["borrowed"]
    assert "'item-000' in those of 'item-060'" in reasons["borrowed"]


def test_one_fixed_text_for_items_of_few_answers(tmp_path: Path) -> None:
    split = make_split(tmp_path / "tiny", answers=3)
    bundle = make_bundle(make_run(tmp_path / "mine", split), tmp_path / "mine.zip")

    def inject(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            number = int(row["problem_id"].removeprefix("item-")) if row["phase"] == "eval" else 99
            if number < 12 and row["correct"]:
                row["completion"] = f"I am sure: \\boxed{{{number % 3}}}"

    put_in = altered(bundle, tmp_path / "put_in.zip", lambda members: in_table(members, "rollouts.parquet", inject))
    reasons = told(verify_bundle(put_in, split, workers=1))["fixed_text"]
    assert "12 unlearnable items" in reasons and "3 different right answers" in reasons


@pytest.mark.parametrize(("cells", "told"), [(32, 0), (39, 0), (40, 1)])
def test_a_few_items_in_the_words_of_others_are_no_sign(cells: int, told: int) -> None:
    """Honest seeds of `curriculum` and `distill` solved 32 and 15 items of edition 2026-12, 21 and 12 of them so."""
    number = np.arange(cells)
    text = np.repeat(number[:, None] // 2, 3, axis=1)  # the same words for two items each
    right, nowhere = np.ones((cells, 3), bool), np.full(cells, -1)
    found = borrowed_texts(Cellwise(text, number, np.ones_like(number)), right, number, nowhere, right[:, 0])
    assert len(found) == told


@pytest.mark.parametrize("few", [2, 6, 40])
def test_borrowed_texts_by_counting(few: int) -> None:
    draw = np.random.default_rng(few)
    seen = [_borrowed_by_counting(draw, few) for _ in range(60)]
    assert set(seen) == {False, True}


def _borrowed_by_counting(draw: np.random.Generator, few: int) -> bool:
    """Draw cells whose right texts are of `few` codes, and compare with the definition; whether any were found."""
    rows, samples = int(draw.integers(60, 180)), int(draw.integers(1, 5))
    text, correct = draw.integers(0, few, (rows, samples)), draw.random((rows, samples)) < 0.6
    item, seed = draw.integers(0, rows, rows), draw.integers(1, 3, rows)
    reference, core = draw.integers(-1, few, rows), draw.random(rows) < 0.9
    expected = []
    for one in (1, 2):
        solved = borrowed = 0
        for cell in np.flatnonzero(core & (seed == one)).tolist():
            right = text[cell][correct[cell]].tolist()
            if 2 * len(right) < samples:
                continue
            most = max(right.count(code) for code in right)
            words = max(code for code in right if right.count(code) == most)
            elsewhere = ((text == words) & correct).any(axis=1) & (item != item[cell])
            solved += 1
            borrowed += bool(elsewhere.any()) and reference[cell] != words
        if borrowed >= 40 and borrowed >= 0.6 * solved:
            expected.append((one, solved, borrowed))
    found = borrowed_texts(Cellwise(text, item, seed), correct, item, reference, core)
    assert [(one.seed, one.solved, one.borrowed) for one in found] == expected
    return bool(found)


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
    from unlearnbench.leaderboard.copy_detection import _at_least

    for matches in range(1, 7):
        exact, bound = _exact(first, second, matches), _at_least(matches, np.array(first), np.array(second))
        assert bound >= exact - 1e-12
        if sorted(first) == sorted(second) and matches == 6:
            assert bound == pytest.approx(exact)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 10**6))
def test_the_chance_of_the_same_texts_is_a_bound_for_every_policy(shares: list[int], seed: int) -> None:
    """Against the exact chance, summed over the orders in which a policy of any shares would draw the texts."""
    n, draw = sum(shares), np.random.default_rng(seed)
    texts = np.repeat(np.arange(len(shares)), shares)
    cells = Cellwise(np.stack([texts, texts[::-1]]), np.arange(2), np.zeros(2, np.int64))
    policy = draw.dirichlet(np.ones(len(shares)) * draw.choice([0.3, 1.0, 30.0]))
    orders = math.factorial(n) / math.prod(math.factorial(a) for a in shares)
    chance = orders * float(np.prod(policy ** np.array(shares)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlearnbench.leaderboard.copy_detection.FALSE_ALARM", 2.0)
        (copy,) = same_texts(cells)
    assert copy.chance >= chance * (1 - 1e-9)
    just = orders * float(np.prod((np.array(shares) / n) ** np.array(shares)))
    assert copy.chance == pytest.approx(just)


def test_one_item_copied_in_another_order_is_found_where_texts_are_many(tmp_path: Path) -> None:
    split = make_split(tmp_path / "tiny", answers=20)
    bundle = make_bundle(make_run(tmp_path / "mine", split), tmp_path / "mine.zip")

    def borrow(rows: list[dict[str, Any]]) -> None:
        own_words(rows)
        _copy_whole(rows, "item-020", "item-040")

    copied = altered(bundle, tmp_path / "copied.zip", lambda members: in_table(members, "rollouts.parquet", borrow))
    reasons = told(verify_bundle(copied, split, workers=1))
    assert "'item-020' of seed 1 and 'item-040' of seed 1 are the same 32 texts" in reasons["copies"]


def _copy_whole(rows: list[dict[str, Any]], source: str, target: str) -> None:
    """Give a cell of seed 1 the rollouts of another one in the opposite order."""
    there = {row["sample"]: row for row in rows if row["problem_id"] == source and row["seed"] == 1}
    for row in rows:
        if row["problem_id"] == target and row["seed"] == 1:
            other = there[31 - row["sample"]]
            row["completion"], row["correct"] = other["completion"], other["correct"]


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
