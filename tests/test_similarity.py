"""Cosines and their noise, against brute force and against vectors whose true cosine is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unlearnbench.diagnosis.similarity import Block, cosines, gram, reliabilities, similarity


def vectors(items: int, parts: int, dimension: int = 30, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(items, parts, dimension)).astype(np.float32)


def shared(items: int, true: float, rollouts: int, noise: float, seed: int = 0) -> NDArray[np.float32]:
    """Items whose true gradients have cosine `true` with one another, seen through so many rollouts in 4 parts."""
    draw, dimension = np.random.default_rng(seed), 400
    common, own = draw.normal(size=dimension), draw.normal(size=(items, dimension))
    common /= np.linalg.norm(common)
    own -= np.outer(own @ common, common)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    means = true**0.5 * common + (1 - true) ** 0.5 * own
    spread = noise * draw.normal(size=(items, 4, dimension)) / dimension**0.5 / (rollouts / 4) ** 0.5
    return (means[:, None] + spread).astype(np.float32)


def block(blocks: tuple[Block, ...], a: str, b: str) -> Block:
    return next(one for one in blocks if (one.a, one.b) == (a, b))


@pytest.mark.parametrize("tile", [1, 5, 1000])
def test_gram_is_all_inner_products(tile: int) -> None:
    given = vectors(7, 3)
    rows = given.reshape(21, -1).astype(np.float64)
    np.testing.assert_allclose(gram(given, tile), rows @ rows.T, rtol=1e-5, atol=1e-5)


def test_gram_reads_a_memory_map(tmp_path: object) -> None:
    file = f"{tmp_path}/vectors"
    mapped = np.memmap(file, dtype=np.float32, mode="w+", shape=(5, 2, 30))
    mapped[:] = vectors(5, 2)
    np.testing.assert_array_equal(
        gram(np.memmap(file, dtype=np.float32, mode="r", shape=(5, 2, 30))), gram(vectors(5, 2))
    )


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10**6))
def test_cosines_and_reliabilities_by_definition(items: int, parts: int, seed: int) -> None:
    given = vectors(items, parts, seed=seed)
    inner, means = gram(given), given.mean(1, dtype=np.float64)
    for used in range(1, parts + 1):
        part = given[:, :used].mean(1, dtype=np.float64)
        unit = part / np.linalg.norm(part, axis=1, keepdims=True)
        np.testing.assert_allclose(cosines(inner, parts, used), unit @ unit.T, atol=1e-5)
    for item, found in enumerate(reliabilities(inner, parts)):
        pairs = [given[item, p] @ given[item, q] for p, q in combinations(range(parts), 2)]
        assert found == pytest.approx(np.mean(pairs) / (means[item] @ means[item]), abs=1e-4)


@pytest.mark.parametrize("true", [0.0, 0.3, 0.8])
def test_the_raw_cosine_falls_with_rollouts_and_the_corrected_one_stays(true: float) -> None:
    raw, corrected, reliability = [], [], []
    for rollouts in (8, 20, 40, 80):
        found = similarity(gram(shared(80, true, rollouts, noise=4.0)), ["learnable"] * 80, 4, floor=0.0, draws=20)
        one = block(found.blocks, "learnable", "learnable")
        assert one.corrected is not None
        raw.append(one.raw)
        corrected.append(one.corrected)
        reliability.append(float(np.mean(found.reliability)))
    assert corrected == pytest.approx([true] * 4, abs=0.05)
    assert reliability == sorted(reliability) and reliability[0] < 0.4 and reliability[-1] > 0.8
    if true:
        assert raw == sorted(raw) and raw[0] < 0.4 * true


def test_fewer_parts_show_how_the_raw_mean_depends_on_rollouts() -> None:
    found = similarity(gram(shared(60, 0.5, 16, noise=4.0)), ["easy"] * 60, 4, draws=20)
    means = [blocks[0].raw for _, blocks in found.by_rollouts]
    assert [used for used, _ in found.by_rollouts] == [1, 2, 3, 4]
    assert means == sorted(means) and means[-1] == found.blocks[0].raw


def test_block_means_by_brute_force() -> None:
    groups = ["learnable", "unlearnable", "learnable", "unlearnable", "learnable", "easy"]
    found = similarity(gram(vectors(6, 4)), groups, 4, draws=20)
    for one in found.blocks:
        pairs = [
            found.cosine[i, j]
            for i, j in combinations(range(6), 2)
            if sorted((groups[i], groups[j])) == sorted((one.a, one.b))
        ]
        assert one.pairs == len(pairs)
        assert one.raw == pytest.approx(np.mean(pairs)) if pairs else np.isnan(one.raw)
    assert [(one.a, one.b) for one in found.blocks[:3]] == [
        ("easy", "easy"),
        ("easy", "learnable"),
        ("easy", "unlearnable"),
    ]


def test_auc_by_brute_force() -> None:
    groups = ["easy"] * 4 + ["learnable"] * 6 + ["unlearnable"] * 5
    found = similarity(gram(vectors(15, 2)), groups, 2, draws=50)
    score = [np.mean([found.cosine[i, j] for j in range(10) if j != i]) for i in range(15)]
    wins = [(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for i in range(4, 10) for j in range(10, 15)]
    assert found.auc is not None and found.auc.n == (6, 5)
    assert found.auc.value == pytest.approx(np.mean(wins))
    assert found.auc.interval is not None and found.auc.interval[0] <= found.auc.value <= found.auc.interval[1]
    lone = similarity(gram(vectors(15, 2)), ["easy"] * 4 + ["learnable"] * 10 + ["unlearnable"], 2, draws=50).auc
    assert lone is not None and lone.interval is None, "one item, drawn again, says nothing of others"


def test_groups_apart_are_told_apart_and_equal_ones_are_not() -> None:
    alike, apart = shared(30, 0.5, 40, 2.0, seed=1), shared(30, 0.5, 40, 2.0, seed=2)
    groups = ["learnable"] * 30 + ["unlearnable"] * 30
    two = similarity(gram(np.concatenate([alike, apart])), groups, 4, draws=400)
    assert block(two.blocks, "learnable", "unlearnable").p == pytest.approx(1 / 401)
    outliers = np.concatenate([alike, shared(30, 0.0, 40, 2.0, seed=3)])
    assert (auc := similarity(gram(outliers), groups, 4, draws=50).auc) is not None and auc.value > 0.95
    one = similarity(gram(shared(60, 0.5, 40, 2.0)), groups, 4, draws=400)
    assert (p := block(one.blocks, "learnable", "unlearnable").p) is not None and p > 0.05
    assert one.auc is not None and one.auc.interval is not None and one.auc.interval[0] < 0.5 < one.auc.interval[1]


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Half of the items have a common gradient, half none: the mean over pairs differs from sample to sample."""
    inside = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        kinds = draw.random(24) < 0.5
        given = np.where(kinds[:, None, None], shared(24, 0.6, 400, 1.0, seed), shared(24, 0.0, 400, 1.0, seed + 999))
        one = similarity(gram(given.astype(np.float32)), ["easy"] * 24, 4, draws=200, seed=seed).blocks[0]
        assert one.interval is not None
        inside += one.interval[0] <= 0.6 * 0.25 <= one.interval[1]
    assert 48 <= inside <= 60


def test_a_gradient_of_zero_is_left_out() -> None:
    given = vectors(6, 4)
    given[2] = 0
    found = similarity(gram(given), ["easy"] * 6, 4, draws=20)
    assert np.isnan(found.cosine[2]).all() and np.isnan(found.reliability[2])
    assert found.blocks[0].pairs == 10 and np.isfinite(found.blocks[0].raw)


def test_one_item_makes_no_pair() -> None:
    found = similarity(gram(vectors(3, 4)), ["easy", "learnable", "learnable"], 4, draws=20)
    assert block(found.blocks, "easy", "easy").pairs == 0
    assert block(found.blocks, "easy", "learnable").pairs == 2


def test_two_calls_are_alike() -> None:
    given, groups = gram(vectors(12, 4)), ["easy", "learnable", "unlearnable"] * 4
    one, other = similarity(given, groups, 4, draws=50), similarity(given, groups, 4, draws=50)
    assert one.blocks == other.blocks and one.auc == other.auc


# --- by skill ---------------------------------------------------------------------------------------------------


def test_blocks_by_skill_by_brute_force() -> None:
    groups = ["easy"] * 2 + ["learnable"] * 5 + ["unlearnable"] * 5
    skills = ["a", "b", "a", "a", "b", "b", "c", "a", "b", "b", "c", "c"]
    found = similarity(gram(vectors(12, 4)), groups, 4, skills=skills, draws=30)
    cosine = found.cosine
    assert [block.of for block in found.blocks] == ["all"] * 6 and len(found.matched) == 12
    for block in found.matched:
        pairs = [
            cosine[i, j]
            for i in range(12)
            for j in range(12)
            if (groups[i], groups[j]) == (block.a, block.b)
            and (i < j or block.a != block.b)
            and (skills[i] == skills[j]) == (block.of == "same_skill")
        ]
        assert block.pairs == len(pairs) and block.p is None
        assert np.isnan(block.raw) if not pairs else block.raw == pytest.approx(np.mean(pairs))
    assert found.auc_other_skills is not None
    scores = {}
    for i in range(2, 12):
        others = [j for j in range(7) if j != i and skills[j] != skills[i]]
        scores[i] = np.mean([cosine[i, j] for j in others])
    wins = [(scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i in range(2, 7) for j in range(7, 12)]
    assert found.auc_other_skills.value == pytest.approx(np.mean(wins))


def test_what_follows_the_skill_is_no_difference_of_groups() -> None:
    """Learnable items of one skill and unlearnable ones of many: outliers by the mix of skills alone."""
    draw = np.random.default_rng(0)
    skills = ["a"] * 20 + [f"s{number}" for number in range(20)]
    centres = {name: draw.normal(size=40) for name in skills}
    given = np.stack([np.stack([centres[name] + draw.normal(0, 0.5, 40) for _ in range(4)]) for name in skills])
    groups = ["learnable"] * 20 + ["unlearnable"] * 20
    found = similarity(gram(given.astype(np.float32)), groups, 4, skills=skills, draws=100)
    assert block(found.blocks, "learnable", "learnable").raw > 0.7
    other = [one for one in found.matched if one.of == "other_skills"]
    assert block(tuple(other), "learnable", "learnable").pairs == 0
    assert abs(block(tuple(other), "learnable", "unlearnable").raw) < 0.2
    assert similarity(gram(given.astype(np.float32)), groups, 4, draws=10).matched == ()
