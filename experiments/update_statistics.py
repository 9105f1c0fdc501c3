"""Clip fraction, and the reference policy's probability of correct rollouts, by group: from the run `grpo-logged`.

The paper compares both between groups to ask whether clipping or unlikely rollouts hold unlearnable items back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from experiments.markdown import blocks, paragraph, table

QUARTERS = 4
"""Parts of a seed's steps: the paper judges training by their means."""
T = TypeVar("T", int, NDArray[np.int32])
Sums = NDArray[np.float64]
"""(4 quarters of training, 4): tokens outside the clip range, tokens, reference probabilities, correct rollouts."""


def read_log(path: Path) -> dict[int, dict[str, list[float]]]:
    """Figures of each item by step, from a seed's log.txt; of a step that was made twice those of the last time."""
    steps: dict[int, dict[str, list[float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if line.startswith('{"step"'):
            row = json.loads(line)
            steps[row["step"]] = row["items"]
    return steps


def quarter_of(step: T, steps: int) -> T:
    """The quarter, from 0 on, that a step of so many is in; also of an array of steps."""
    return step * QUARTERS // steps


def by_quarter(folders: Sequence[Path], ids: Sequence[str]) -> Sums:
    """Sums over the seeds' items by quarter of each seed's steps."""
    sums, wanted = np.zeros((QUARTERS, 4)), set(ids)
    for folder in folders:
        steps = read_log(folder / "log.txt")
        length = 1 + max(steps, default=0)
        for step, items in steps.items():
            for item_id, figures in items.items():
                if item_id in wanted:
                    sums[quarter_of(step, length)] += figures
    return sums


def by_group(folders: Sequence[Path], sets: Mapping[str, Sequence[str]]) -> str:
    """The table of both figures for each set of items; empty where no seed has a log."""
    sums = {name: by_quarter(folders, ids) for name, ids in sets.items()}
    if not any(one.any() for one in sums.values()):
        return ""
    rows = []
    for name, one in sums.items():
        rows.append([name, "clip fraction", *_shares(one[:, 0], one[:, 1], 2), str(int(one[:, 1].sum()))])
        rows.append([name, "reference probability", *_shares(one[:, 2], one[:, 3], 1), str(int(one[:, 3].sum()))])
    return blocks(
        paragraph(
            f"GRPO at 1x once more, {len(folders)} seeds, with its updates counted by item. Clip fraction: share of",
            "the trained tokens whose probability ratio lies outside the clip range. Reference probability: of a",
            "correct rollout that was trained on, the geometric mean of its tokens' probabilities under the base",
            "policy; the mean over rollouts. The last column counts tokens and correct rollouts.",
        ),
        table(["items", "figure", "quarter 1", "2", "3", "4", "of"], rows, left=2),
    )


def _shares(part: Sums, whole: Sums, digits: int) -> list[str]:
    return [f"{100 * a / n:.{digits}f} %" if n else "-" for a, n in zip(part, whole, strict=True)]
