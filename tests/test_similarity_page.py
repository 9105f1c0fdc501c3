"""The page of gradient similarity: the order of its items."""

from __future__ import annotations

import numpy as np

from unlearnbench.diagnosis.page import clustered


def test_items_stand_by_group_and_like_beside_like() -> None:
    direction = np.array([[1, 0, 0], [0, 1, 0], [1, 0.1, 0], [0, 1, 0.1], [0, 0, 1.0]])
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    places = clustered(unit @ unit.T, ["b", "b", "b", "b", "a"], ["a", "b"]).tolist()
    assert places[0] == 4
    assert abs(places.index(0) - places.index(2)) == 1 and abs(places.index(1) - places.index(3)) == 1
