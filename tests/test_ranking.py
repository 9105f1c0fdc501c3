"""Ranks, claims and pooling of entries, by independent computation, and training again."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from made_run import SAMPLES, eval_counts
from scipy.stats import combine_pvalues

from unlearnbench.errors import RunError
from unlearnbench.io import tables
from unlearnbench.leaderboard.pooling import fisher, pooled
from unlearnbench.leaderboard.ranking import Contender, holm, standings
from unlearnbench.leaderboard.verification import examine, rerun, summed_up
from unlearnbench.leaderboard.verification.claims import retraining_seeds
from unlearnbench.leaderboard.verification.rerun import Trained, difference
from unlearnbench.records import Result
from unlearnbench.scoring.counts import Cells
from unlearnbench.splits import Split


def contender(split: Split, name: str, share: float, seeds: int = 5, **changes: object) -> Contender:
    """An entry that gets a share of the unlearnable items, and their probes, right."""
    result = tables.read_json_record(split.path / "null_control" / "1x" / "result.json", Result)
    score = result.conversion.model_copy(update={"gain": share})
    stated = {"seeds": tuple(range(1, seeds + 1)), "samples": SAMPLES, "comparable": True, "conversion": score}
    items = [item.item_id for item in split.items]
    unlearnable = split.ids("unlearnable")
    right = {item for number, item in enumerate(unlearnable) if number < share * len(unlearnable)}
    rates = [0.9 if item in right else 0.03 for item in items]
    counts = eval_counts(split, np.array(rates), stated["seeds"], SAMPLES)  # type: ignore[arg-type]
    return Contender(name, result.model_copy(update=stated | changes), counts, split)


def test_ranks_are_ranges_between_what_is_significantly_better_and_worse(made_split: Split) -> None:
    shares = {"most": 0.9, "more": 0.85, "few": 0.0}
    pools = [(name, [contender(made_split, name, share)]) for name, share in shares.items()]
    found = {at.id: at for at in standings(pools, [["one"]] * 3)}
    assert {name: at.rank for name, at in found.items()} == {"most": (1, 2), "more": (1, 2), "few": (3, 3)}
    assert list(found["few"].better) == ["more", "most"] and list(found["more"].worse) == ["few"]
    old = contender(made_split, "old", 0.9, schema_version=1)
    mixed = {at.id: at for at in standings([*pools, ("old", [old])], [["one"]] * 4)}
    assert mixed["old"].rank is None and mixed["old"].conversion is None  # it counted something else
    assert {name: mixed[name].rank for name in shares} == {name: found[name].rank for name in shares}


def test_tracks_come_in_order_of_privilege_and_budgets_by_size(made_split: Split) -> None:
    def at(track: str, multiple: float) -> Contender:
        given = contender(made_split, f"{track}-{multiple:g}", 0.5)
        method = given.result.method.model_copy(update={"track": track})
        budget = given.result.budget.model_copy(update={"multiple": multiple})
        result = given.result.model_copy(update={"method": method, "budget": budget})
        return Contender(given.id, result, given.counts, made_split)

    given = [at("base", 1), at("answer", 1), at("verifier", 10), at("verifier", 4), at("labels", 1)]
    found = standings([(one.id, [one]) for one in given], [["one"]] * len(given))
    assert [of.id for of in found] == ["verifier-4", "verifier-10", "answer-1", "labels-1", "base-1"]


def test_editions_are_pooled_by_fishers_p_and_means_of_gains(made_split: Split, tmp_path: Path) -> None:
    other = Split(Path(shutil.copytree(made_split.path, tmp_path / "other")))
    other.__dict__["hash"] = "another"
    pools = [
        (name, [contender(split, name, share, seeds=3) for split in (made_split, other)])
        for name, share in (("more", 0.9), ("few", 0.0))
    ]
    found = {at.id: at for at in standings(pools, [["one", "two"]] * 2)}
    # 2 x the chance that two p of 1/20 have so small a product: neither edition alone could tell them apart
    assert 2 * fisher([1 / 20, 1 / 20]) < 0.05 < 2 / 20
    assert (found["more"].rank, found["few"].rank) == ((1, 1), (2, 2))
    assert list(found["more"].editions) == ["one", "two"]


def test_pooled_scores_by_an_independent_computation() -> None:
    values = [0.01, 0.2, 0.7]
    assert fisher(values) == pytest.approx(combine_pvalues(values, method="fisher").pvalue)
    assert fisher([0.3]) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="above 0"):
        fisher([0.0])
    one = pooled([(0.1, (0.0, 0.3), 0.02)])
    assert one is not None and (one.gain, one.interval, one.p) == (0.1, (0.0, 0.3), pytest.approx(0.02))
    two = pooled([(0.1, (0.0, 0.3), 0.02), (0.3, (0.2, 0.5), 0.02), (None, None, None)])
    assert two is not None and two.gain == pytest.approx(0.2)
    # two independent estimates, each 0.1 below and 0.2 above: their mean is surer by the root of 2
    assert two.interval == pytest.approx((0.2 - 0.1 / 2**0.5, 0.2 + 0.2 / 2**0.5))
    part = pooled([(0.1, None, 0.02), (0.3, (0.2, 0.5), None)])
    assert part is not None and (part.gain, part.interval, part.p) == (pytest.approx(0.2), None, None)
    assert pooled([(None, None, None)]) is None


def test_holm_is_the_step_down_rule() -> None:
    values = [0.01, 0.04, 0.03, 0.005]
    # by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.06 again since 1 x 0.04 is less
    assert holm(values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_seeds_of_training_again_follow_from_the_hashes() -> None:
    # "the first four bytes, without the first bit": 31 bits, the highest one gone and the lowest kept
    wanted = [int(f"{int(sha256(f'a/b/{i}'.encode()).hexdigest()[:8], 16):032b}"[1:], 2) for i in range(3)]
    assert retraining_seeds("a", "b") == wanted
    assert retraining_seeds("a", "c") != wanted


def test_training_again_refutes_only_a_claim_that_is_larger_by_more_than_chance(made_split: Split) -> None:
    draw = np.random.default_rng(0)
    items = len(made_split.ids("unlearnable"))
    n = np.full((items, 3), 32)

    def cells(share: float) -> Trained:
        hit = np.arange(items) % 10 < 10 * share
        drawn = Cells(draw.binomial(32, np.where(hit, 0.7, 0.05)[:, None], (items, 3)), n)
        return Trained(drawn, np.repeat(hit[:, None], 3, axis=1) & (draw.random((items, 3)) < 0.95))

    high, same, low = cells(0.6), cells(0.6), cells(0.1)
    assert difference(high, high, made_split) == ("trained again from the source: identical counts", False)
    assert not difference(high, same, made_split)[1]
    assert difference(high, low, made_split)[1]
    assert not difference(low, high, made_split)[1]
    one, other = (Trained(Cells(of.cells.correct[:, :1], of.cells.n[:, :1]), None) for of in (high, low))
    assert difference(one, other, made_split)[1]
    # without probes, or with too few samples, the rates are compared
    assert "rate of the unlearnable items" in difference(high, Trained(low.cells, None), made_split)[0]


def test_without_a_wall_before_the_network_nothing_foreign_is_trained(
    made_bundle: Path, made_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "available", lambda: ["user", "mounts", "landlock", "audit"])
    reasons, checked = examine(made_bundle, made_split, workers=1, measure=False)
    assert checked is not None
    with pytest.raises(RunError, match=r"cannot keep the method's process from the network.*--allow-network"):
        rerun.retrain(checked, summed_up("mine.zip", reasons, checked, 0.0))
