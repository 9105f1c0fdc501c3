"""Studies of the score on runs that are in the repository: reliability, sensitivity, and what probes say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.calibration.board_runs import Board, boards
from experiments.calibration.probe_verdicts import KINDS, probe_verdicts
from experiments.calibration.reliability import FRONTIER, SCORES, Measured, agreement, reliability, score_editions
from experiments.calibration.sensitivity import TAUS, USUAL, Hits, label_table, on_board, relabelled
from experiments.calibration.settings import TUNING_WORLDS, Setting
from unlearnbench.scoring.inference.simulation import Design
from unlearnbench.splits import Split

pytestmark = pytest.mark.checkout

DESIGN = Design((28, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2))


@pytest.fixture(scope="module")
def board() -> Board:
    """The oldest closed edition with four of its methods."""
    found = next(one for one in boards() if one.name == "2026-11")
    names = ("grpo", "pass_at_k", "negative_only", "no_training")
    return replace(found, entries=tuple(entry for entry in found.entries if entry.method in names))


# --- reliability ----------------------------------------------------------------------------------------------------


def test_reliability_by_hand() -> None:
    groups = [np.array(values, float) for values in ([1, 2, 3], [4, 5, 6], [2, 4, 6])]
    means, grand = [2.0, 5.0, 4.0], 11 / 3
    between = 3 * sum((mean - grand) ** 2 for mean in means) / 2
    within = (2 + 2 + 8) / 6
    found = reliability(groups)
    assert found.value == pytest.approx(1 - within / between)  # ICC(1, 3)
    assert found.low <= found.value <= found.high
    assert reliability([np.ones(3), np.ones(3)]).value == 0
    assert reliability([np.ones(3), np.full(3, 2.0)]).value == 1


def test_reliability_estimates_the_share_of_variance_that_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    for size in (3, 6):  # of either number of runs, it is said of three
        groups = [mean + rng.normal(0, 1.5, size) for mean in rng.normal(0, 1, 3000)]
        assert reliability(groups).value == pytest.approx(1 / (1 + 1.5**2 / 3), abs=0.03)
    held = 0
    for _ in range(200):
        found = reliability([mean + rng.normal(0, 1.5, 3) for mean in rng.normal(0, 1, 12)])
        held += found.low <= 1 / (1 + 1.5**2 / 3) <= found.high
    assert held > 180  # 95 % of 200, less noise


def test_scores_of_entries(board: Board) -> None:
    found = score_editions([board], SCORES[FRONTIER])
    assert found.nothing == ((4, 4),)
    grpo = next(entry for entry in board.entries if entry.method == "grpo")
    shares = [
        Measured(board.split, grpo.counts, grpo.runs).solved("unlearnable"),
        Measured(board.split, grpo.counts, grpo.runs).conversion(),
    ]
    assert (shares[1] <= shares[0]).all()
    assert agreement({"a": 1, "b": 2, "c": 3}, {"a": 2, "b": 9, "c": 11}) == 1
    assert np.isnan(agreement({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 9, "c": 11}))


# --- sensitivity ----------------------------------------------------------------------------------------------------


def test_the_usual_rule_gives_what_the_controls_results_say(micro: Split) -> None:
    hits = Hits(micro, *USUAL)
    for kind in ("null_control", "positive_control"):
        control = micro.control(kind)  # type: ignore[arg-type]
        assert control is not None and control.result is not None
        converted = hits.converted(control.counts, [str(seed) for seed in control.seeds])
        assert converted.mean() == pytest.approx(control.result.conversion.method_rate)
        frontier = hits.frontier(control.counts, [str(seed) for seed in control.seeds])
        assert control.result.frontier is not None
        assert frontier == pytest.approx(control.result.frontier.method)
    strict = Hits(micro, 0.2, 0.5)
    control = micro.control("positive_control")
    assert control is not None
    runs = [str(seed) for seed in control.seeds]
    assert (strict.converted(control.counts, runs) <= hits.converted(control.counts, runs)).all()


def test_labels_with_the_splits_own_tau_are_its_labels(micro: Split) -> None:
    assert relabelled(micro, micro.config.protocol.tau) == {item.item_id: item.group for item in micro.items}
    easier = relabelled(micro, TAUS[0])
    assert {name for name, group in easier.items() if group == "easy"} > set(micro.ids("easy"))
    table = label_table(micro)
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:7]] == [f"{tau:g}" for tau in TAUS]
    assert f"| {len(micro.ids('unlearnable'))} of {len(micro.ids('unlearnable'))} |" in table


def test_claims_are_those_of_the_score(board: Board) -> None:
    found = on_board(board, *USUAL)
    assert found.claims["no_training"] is False
    assert found.frontier["pass_at_k"] > found.frontier["grpo"] > found.frontier["no_training"]


# --- what probes say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("carried", "wrong", "right"), [(0.0, "generalised", "memorised"), (1.0, "memorised", "generalised")]
)
def test_a_probe_tells_memory_from_learning(carried: float, wrong: str, right: str) -> None:
    setting = Setting("large", TUNING_WORLDS["large"], "tests", DESIGN)
    found = probe_verdicts((setting, carried), 80)
    shares = dict(zip(KINDS, found.verdicts, strict=True))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[wrong] <= 0.05 and shares[right] > 0.6
    assert (found.probe_solved > 0.5) == (carried == 1)
