"""Labels: every group by a table small enough to check by eye, both rules, every refusal."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.errors import DataError
from unlearnbench.records import GROUPS, Protocol
from unlearnbench.scoring.labels import candidates, label_items, labels_table, summary

PROTOCOL = Protocol()
Row = tuple[Any, ...]


def table(rows: list[Row], best: bool = False) -> pa.Table:
    names = ["item_id", "phase", "run", "n", "correct"] + ["best"] * best
    return pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def item(name: str, base: int, after: list[int], train: int = 0, certify: list[int] | None = None) -> list[Row]:
    rows: list[Row] = [(name, "base", "0", 32, base)]
    rows += [(name, "after", str(run), 32, correct) for run, correct in enumerate(after, 1)]
    rows += [(name, "train", "1", 100, train)] if train else []
    rows += [(name, "certify", str(run), 128, correct) for run, correct in enumerate(certify or [], 1)]
    return rows


POOL = [
    *item("easy", 4, [0, 0, 0]),  # 4 of 32 is above 0.1, 3 of 32 is not
    *item("learnable", 3, [4, 20, 32]),
    *item("no_reward", 1, [3, 3, 3]),
    *item("core", 1, [3, 0, 0], train=1, certify=[10, 9, 9]),
    *item("pooled", 1, [3, 0, 0], train=9, certify=[10, 10, 9]),
    *item("one_run", 2, [0, 0, 0], certify=[20, 0, 0]),
    *item("unsampled", 2, [0, 0, 0]),
    *item("unstable", 0, [4, 3, 3]),
    *item("fat", 3, [0, 0, 0], train=3, certify=[0, 0, 0]),
]


def labelled(rows: list[Row], **how: Any) -> dict[str, dict[str, Any]]:
    found = labels_table(label_items(table(rows), PROTOCOL, **how))
    return {row["item_id"]: row for row in found.to_pylist()}


def test_each_group_and_certification() -> None:
    rows = labelled(POOL)
    groups = {name: (row["group"], row["certified"]) for name, row in rows.items()}
    assert groups == {
        "easy": ("easy", None),
        "learnable": ("learnable", None),
        "no_reward": ("no_reward", None),
        "core": ("unlearnable", True),  # 28 of 384
        "pooled": ("boundary", False),  # 29 of 384
        "one_run": ("boundary", False),  # 20 of 128 in one run
        "unsampled": ("boundary", False),
        "unstable": ("unstable", None),
        "fat": ("unlearnable", True),
    }
    assert [name for name, row in rows.items() if row["thin"]] == ["core"]
    assert rows["core"] | {"group": "", "certified": None} == {
        "item_id": "core",
        "group": "",
        "certified": None,
        "thin": True,
        "p0_correct": 1,
        "p0_n": 32,
        "train_correct": 1,
        "train_n": 100,
        "certify_correct": 28,
        "certify_n": 384,
    }


def test_without_certification_candidates_stay_unlearnable() -> None:
    rows = [row for row in POOL if row[1] != "certify"]
    groups = {name: (row["group"], row["certified"]) for name, row in labelled(rows).items()}
    assert [name for name, found in groups.items() if found == ("unlearnable", None)] == [
        "core",
        "pooled",
        "one_run",
        "unsampled",
        "fat",
    ]
    expected = ["core", "pooled", "one_run", "unsampled", "fat"]
    assert candidates(table(rows), PROTOCOL) == candidates(table(POOL), PROTOCOL) == expected


def test_base_runs_are_pooled_and_other_phases_ignored() -> None:
    rows = [*item("a", 3, [0]), ("a", "base", "1", 8, 2), ("a", "base_fresh", "0", 1, 9), ("b", "eval", "0", 1, 0)]
    found = labelled(rows)
    assert list(found) == ["a"] and (found["a"]["p0_correct"], found["a"]["p0_n"]) == (5, 40)


def test_only_the_named_items_are_labelled_in_their_order() -> None:
    assert list(labelled(POOL, item_ids=["fat", "easy"])) == ["fat", "easy"]


def test_a_rate_of_exactly_tau_is_not_above_it() -> None:
    rows = [("a", "base", "0", 100, 29), ("a", "after", "1", 100, 29)]
    (row,) = labels_table(label_items(table(rows), Protocol(tau=0.29))).to_pylist()
    assert row["group"] == "unlearnable"  # 0.29 * 100 is below 29 in floating point


def test_summary() -> None:
    labels = label_items(table(POOL), PROTOCOL)
    told = summary(labels)
    assert told["counts"] == {
        "easy": 1,
        "learnable": 1,
        "unlearnable": 2,
        "no_reward": 1,
        "unstable": 1,
        "boundary": 3,
    }
    assert (told["rule"], told["tau"], told["S"]) == ("protocol", 0.1, 3)
    assert told["n"] == {"base": 32, "after": 32, "certify": 128}
    assert told["exposure"] == {"base": 32.0, "train_median": 0.0, "train_min": 0}
    uncertified = label_items(table(item("a", 0, [0])), PROTOCOL)
    assert summary(uncertified)["n"]["certify"] == 0


PAPER = [
    ("easy", "base", "0", 32, 9, None),
    ("learnable", "base", "0", 32, 0, None),
    ("unlearnable", "base", "0", 32, 9, None),
    ("no_reward", "base", "0", 32, 0, None),
    ("both", "base", "0", 32, 0, None),
    ("rest", "base", "0", 32, 0, None),
    *[
        (name, "after", run, 32, correct, None)
        for name, pair in {
            "easy": (9, 0),
            "learnable": (9, 9),
            "unlearnable": (3, 3),
            "no_reward": (0, 0),
            "both": (9, 9),
            "rest": (0, 9),
        }.items()
        for run, correct in zip("12", pair, strict=True)
    ],
    *[
        (name, "train", run, 8, 1, best)
        for name, pair in {"unlearnable": (0.5, 0.1), "no_reward": (0.5, 0.0), "both": (0.0, 0.5)}.items()
        for run, best in zip("12", pair, strict=True)
    ],
]


def test_the_papers_sets_overlap() -> None:
    labels = label_items(table(PAPER, best=True), PROTOCOL, rule="paper")
    rows = {row["item_id"]: row for row in labels_table(labels).to_pylist()}
    sets = {
        name: [part for part in ("easy", "learnable", "unlearnable", "no_reward") if row[f"paper_{part}"]]
        for name, row in rows.items()
    }
    assert sets == {
        "easy": ["easy"],
        "learnable": ["learnable"],
        "unlearnable": ["easy", "unlearnable"],  # [P]'s set is not intersected with hard
        "no_reward": ["no_reward"],  # 0 in one run is enough, whatever others show
        "both": ["learnable", "no_reward"],
        "rest": [],
    }
    assert {name: row["group"] for name, row in rows.items()} == {
        "easy": "easy",
        "learnable": "learnable",
        "unlearnable": "unlearnable",
        "no_reward": "no_reward",
        "both": "learnable",
        "rest": "unstable",
    }
    assert summary(labels)["counts"] == {"easy": 2, "learnable": 2, "unlearnable": 1, "no_reward": 2}


GOOD = [*item("a", 0, [0, 0]), *item("b", 0, [0, 0])]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([*GOOD, ("b", "after", "2", 32, 0)], "f.csv: item 'b', phase after, run '2': there is a second row"),
        ([*GOOD, ("b", "base", "1", 3, 4)], "f.csv: item 'b', phase base, run '1': correct is above n"),
        ([*GOOD, ("b", "base", "1", -3, -4)], "f.csv: item 'b', phase base, run '1': n is negative"),
        ([*GOOD, ("b", "base", "1", 3, -4)], "f.csv: item 'b', phase base, run '1': correct is negative"),
        ([*GOOD, ("b", "base", "1", 3, None)], "f.csv: item 'b', phase base, run '1': correct is missing"),
        (GOOD[:-1], "f.csv: item 'b', phase after, run '2': there is no sample"),
        ([row for row in GOOD if row[:2] != ("b", "base")], "f.csv: item 'b', phase base, run '0': there is no"),
        (GOOD[:1], "f.csv: item 'a', phase after, run '1': there is no row of phase after"),
        ([("a", "eval", "1", 1, 1)], "f.csv: there is no row of phase base"),
    ],
)
def test_every_refusal_names_item_phase_and_run(rows: list[Row], says: str) -> None:
    with pytest.raises(DataError) as refusal:
        label_items(table(rows), PROTOCOL, source="f.csv")
    assert str(refusal.value).startswith(says)


@pytest.mark.parametrize("with_column", [True, False])
def test_rule_paper_needs_best(with_column: bool) -> None:
    rows = [(*row, None) if with_column else row for row in [*GOOD, ("b", "train", "2", 8, 1)]]
    with pytest.raises(DataError, match="item 'b', phase train, run '2': best is missing; rule paper needs"):
        label_items(table(rows, best=with_column), PROTOCOL, rule="paper")


@given(st.lists(st.tuples(st.integers(0, 32), st.lists(st.integers(0, 32), min_size=3, max_size=3)), min_size=1))
def test_every_item_has_one_group_by_the_protocols_words(pool: list[tuple[int, list[int]]]) -> None:
    rows = [row for index, (base, after) in enumerate(pool) for row in item(str(index), base, after)]
    for (base, after), group in zip(pool, label_items(table(rows), PROTOCOL).group, strict=True):
        above = [10 * correct > 32 for correct in after]
        if 10 * base > 32:
            expected = "easy"
        elif all(above):
            expected = "learnable"
        elif any(above):
            expected = "unstable"
        else:
            expected = "unlearnable" if base >= 2 else "no_reward"
        assert group == expected and group in GROUPS
