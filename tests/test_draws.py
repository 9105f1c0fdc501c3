"""Counter-based randomness: uniform, independent of batch, and the same for the same names."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnbench.rng import lanes, shuffled, stream, uniforms


def test_uniforms_pass_a_kolmogorov_smirnov_test_along_every_counter() -> None:
    by_rollout = uniforms(lanes(stream("a", 1), np.arange(20000)), 3)
    lane = lanes(stream("a", 2), np.arange(1))
    by_position = np.array([uniforms(lane, t)[0] for t in range(5000)])
    by_stream = np.array([uniforms(lanes(stream("s", k), np.arange(1)), 0)[0] for k in range(5000)])
    for sample in (by_rollout, by_position, by_stream):
        assert stats.kstest(sample, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.05
        assert sample.min() >= 0
        assert sample.max() < 1


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(0, 6000))
def test_a_draw_does_not_depend_on_the_batch_it_is_made_in(key: int, rows: int, position: int) -> None:
    together = uniforms(lanes(key, np.arange(rows)), position)
    alone = [uniforms(lanes(key, np.array([row])), position)[0] for row in range(rows)]
    assert together.tolist() == alone


def test_streams_with_other_names_differ_and_separators_cannot_be_forged() -> None:
    assert stream("a", "b") != stream("ab")
    assert stream("a", 1, 2) != stream("a", 12)
    assert stream("eval", 1) != stream("null", 1)


@given(st.lists(st.integers(), max_size=30))
def test_shuffled_is_a_permutation_that_depends_on_the_names_only(values: list[int]) -> None:
    assert sorted(shuffled(values, "x", 1)) == sorted(values)
    assert shuffled(values, "x", 1) == shuffled(values, "x", 1)
