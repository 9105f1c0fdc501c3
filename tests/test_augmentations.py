"""An item beside its own augmentations: mean cosines by loops, the rollouts that are kept, twins beside their items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from experiments.augmentations import DRAWN, GROUPS, ITEMS, KINDS, ROLLOUTS, chosen, own_and_others, section
from experiments.augmentations import _first_correct as first_correct
from unlearnbench.splits import Split

pytestmark = pytest.mark.checkout


def test_own_and_others_by_loops() -> None:
    cosines = np.random.default_rng(3).uniform(-0.2, 1, size=(7, 7)) + np.eye(7)
    found = own_and_others(cosines)
    own = [cosines[i, i] for i in range(7)]
    others = [np.mean([cosines[i, j] for j in range(7) if j != i]) for i in range(7)]
    assert found.items == 7
    assert (found.own, found.others) == pytest.approx((np.mean(own), np.mean(others)))
    assert found.own_interval[0] < found.own < found.own_interval[1]
    low, high = found.apart_interval
    assert low < found.own - found.others < high and min(np.subtract(own, others)) <= low


def test_the_first_correct_rollouts_of_each_problem_are_kept() -> None:
    ids = ["a", "b"] * DRAWN
    right = [name == "a" or place % 3 == 0 for place, name in enumerate(ids)]
    rows = pa.table(
        {
            "item_id": ids,
            "completion": [str(place) for place in range(len(ids))],
            "token_ids": [[place] for place in range(len(ids))],
            "finish": ["stop"] * len(ids),
            "correct": right,
        }
    )
    kept = first_correct(rows, "easy", {"a": "1 + 1", "b": "2 + 2"})
    wanted = {name: [str(p) for p, i in enumerate(ids) if i == name and right[p]][:ROLLOUTS] for name in "ab"}
    for name, prompt in (("a", "1 + 1"), ("b", "2 + 2")):
        mine = [row for row in kept.to_pylist() if row["item_id"] == name]
        assert [row["completion"] for row in mine] == wanted[name]
        assert {(row["prompt"], row["group"]) for row in mine} == {(prompt, "easy")}


def test_twins_stand_beside_their_items(micro: Split, tmp_path: Path) -> None:
    owner = {twin.twin_id: (twin.item_id, twin.kind) for twin in micro.twins}
    sets = chosen(micro)
    for group in GROUPS:
        assert len(sets[group]) == ITEMS
        for kind in KINDS:
            twins = [owner[twin.problem_id] for twin in sets[f"{group}, {kind}"]]
            assert twins == [(item.problem_id, kind) for item in sets[group]]
    assert "not measured" in section(micro, tmp_path)
