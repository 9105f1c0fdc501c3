"""The page of gradient similarity: the order of its items, and its colours."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from unlearnbench.diagnosis.page import SCALE, clustered


def test_items_stand_by_group_and_like_beside_like() -> None:
    direction = np.array([[1, 0, 0], [0, 1, 0], [1, 0.1, 0], [0, 1, 0.1], [0, 0, 1.0]])
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    places = clustered(unit @ unit.T, ["b", "b", "b", "b", "a"], ["a", "b"]).tolist()
    assert places[0] == 4
    assert abs(places.index(0) - places.index(2)) == 1 and abs(places.index(1) - places.index(3)) == 1


def test_the_scale_is_readable_in_black_and_white() -> None:
    colours = mpl.colormaps[SCALE](np.linspace(0, 1, 64))[:, :3]
    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) > 0).all()
