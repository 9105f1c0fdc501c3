"""Ranks of methods on several workloads: agreement by hand, and the page from runs that the splits ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

pytest.importorskip("experiments.workloads", reason="needs the checkout")

from experiments.workloads import FEWEST, Scored, agreement, collect, page, sentence
from unlearnbench.errors import RunError
from unlearnbench.splits import find_split

pytestmark = pytest.mark.checkout
NAMES = ("a", "b", "c", "d", "e")


def scored(levels: list[float], seed: int, names: tuple[str, ...] = NAMES, items: int = 60) -> Scored:
    """Methods that solve an item with these chances, in three runs; six families."""
    rng = np.random.default_rng(seed)
    return Scored(
        {name: (rng.random((items, 3)) < level).astype(float) for name, level in zip(names, levels, strict=True)},
        [f"family-{item % 6}" for item in range(items)],
    )


def test_agreement_is_spearmans_of_the_means_over_shared_methods() -> None:
    one, other = scored([0.1, 0.3, 0.5, 0.7, 0.9], 1), scored([0.9, 0.2, 0.4, 0.6, 0.8], 2, ("z", *NAMES[1:]))
    found = agreement(one, other)
    assert found is not None
    shared = NAMES[1:]
    expected = spearmanr(
        [one.methods[name].mean() for name in shared], [other.methods[name].mean() for name in shared]
    ).statistic
    assert (found.methods, found.value) == (4, pytest.approx(expected))
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_interval_is_narrow_where_ranks_are_clear_and_wide_where_they_are_not() -> None:
    clear = agreement(scored([0.05, 0.25, 0.5, 0.75, 0.95], 3), scored([0.05, 0.25, 0.5, 0.75, 0.95], 4))
    noise = agreement(scored([0.5] * 5, 5), scored([0.5] * 5, 6))
    turned = agreement(scored([0.05, 0.25, 0.5, 0.75, 0.95], 7), scored([0.95, 0.75, 0.5, 0.25, 0.05], 8))
    assert clear is not None and noise is not None and turned is not None
    assert clear.value == pytest.approx(1) and clear.low > 0.8
    assert turned.value == pytest.approx(-1) and turned.high < -0.8
    assert noise.high - noise.low > 1


def test_few_methods_and_flat_scores_have_no_correlation() -> None:
    few = NAMES[: FEWEST - 1]
    assert agreement(scored([0.2, 0.5, 0.8], 1, few), scored([0.2, 0.5, 0.8], 2, few)) is None
    flat = agreement(scored([0.0] * 5, 1), scored([0.1, 0.3, 0.5, 0.7, 0.9], 2))
    assert flat is not None and np.isnan(flat.value)


def shipped(folder: Path) -> dict[str, Path]:
    """Controls of `micro` as if they were methods on two workloads: the null as grpo, tuned nulls and the positive."""
    micro = find_split("micro")
    controls = {"grpo": "null_control/1x", "dapo": "tuned_null/2.8", "maxrl": "tuned_null/2"}
    controls |= {"pass_at_k": "tuned_null/0.5", "dars": "positive_control"}
    for name, control in controls.items():
        (folder / name).mkdir(parents=True)
        for file in ("result.json", "counts.parquet"):
            shutil.copy(micro / control / file, folder / name / file)
        told = json.loads((folder / name / "result.json").read_text())
        told["method"]["name"] = name
        (folder / name / "result.json").write_text(json.dumps(told))
    return {"micro": folder, str(micro): folder}


def test_the_page_of_the_same_runs_twice_agrees_with_itself(tmp_path: Path) -> None:
    workloads = collect(shipped(tmp_path))
    text = page(workloads, tmp_path)
    assert "| micro, micro | 5 | +1.00 (" in text
    assert "micro and micro rank 5 methods alike by +1.00" in sentence(workloads)
    gain = workloads[0].results["dars"].conversion.gain
    assert gain is not None and gain > 0.6 and f"| `dars` | conversion | +{100 * gain:.1f} (" in text
    assert "| `drift` | conversion | - | - |" in text
    assert (tmp_path / "workloads.png").stat().st_size > 5000


def test_a_run_of_another_method_is_refused(tmp_path: Path) -> None:
    folders = shipped(tmp_path)
    shutil.copy(tmp_path / "grpo" / "result.json", tmp_path / "dapo" / "result.json")
    with pytest.raises(RunError, match="is a run of grpo, and dapo was planned there"):
        collect(folders)
