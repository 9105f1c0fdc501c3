"""The analysis behind docs/results/experiments.md, on the split's counts and controls, and the files it writes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from control_runs import control_runs

from experiments import gradients, method_gains, page, paper_claims, training_reward, tuning
from experiments.markdown import table, with_interval
from experiments.paper_claims import Converted
from experiments.partition import FEW, samples_of, shrinking
from experiments.runs import Runs, collect, of_group
from experiments.sweep import BEST, METHODS, Planned, longer, sweep
from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord
from unlearnbench.errors import RunError
from unlearnbench.io import files, tables
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.methods.gains import MEASURED, read_measured
from unlearnbench.records import Frontier, Result
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.counts import read_phase
from unlearnbench.splits import Split
from unlearnbench.training.ledger import ROLLOUTS
from unlearnbench.workers.jobs import Compute

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = ROOT / "leaderboard" / "entries"


@pytest.fixture
def runs(tmp_path: Path, micro: Split) -> Runs:
    return control_runs(tmp_path, micro)


# --- the sweep and its runs -----------------------------------------------------------------------------------


def test_every_built_in_method_is_planned_once_and_the_claims_come_first() -> None:
    names = [planned.name for planned in METHODS]
    assert len(set(names)) == len(names) and set(names) == {*BUILT_IN, "replay-code"}
    assert {claim.run for claim in paper_claims.CLAIMS} | {"grpo", "mid_training"} <= set(names[:16])
    assert next(planned for planned in METHODS if planned.name == "replay-code").settings == {"variant": "code"}


def test_the_best_by_frontier_gain_run_longer(runs: Runs) -> None:
    def with_gain(gain: float | None) -> Result:
        told = {"interval": None, "interval_families": None, "method": None, "null": None, "p": None}
        return runs.methods["grpo"].result.model_copy(update={"frontier": Frontier(gain=gain, **told)})

    gains = {"grpo": 0.9, "mid_training": 0.9, "random_reward": 0.9, "maxrl": 0.1, "dapo": 0.3, "rloo": -0.1}
    gains |= {"pass_at_k": 0.2, "gspo": None, "dars": 0.4}
    chosen = longer({name: with_gain(gain) for name, gain in gains.items()})
    assert [planned.name for planned in chosen] == ["dars-4x", "dapo-4x", "pass_at_k-4x", "maxrl-4x"]
    assert len(chosen) == BEST and {planned.budget for planned in chosen} == {4.0}


def test_a_run_is_done_only_for_the_present_source_labels_and_null(runs: Runs) -> None:
    path = runs.folder / "grpo" / "result.json"
    told, planned = json.loads(path.read_text()), METHODS[0]
    null = runs.split.control("null_control", "1x")
    assert planned.name == "grpo" and null is not None
    told["method"]["source_hash"], told["conversion"]["null_hash"] = locate("grpo").hash, null.hash
    files.write_json(path, told)
    assert planned.is_done(runs.folder, runs.split)
    assert not replace(planned, name="maxrl").is_done(runs.folder, runs.split)
    for part, field in (("method", "source_hash"), ("conversion", "null_hash"), (None, "split_hash")):
        changed = {**told, field: "0" * 64} if part is None else {**told, part: {**told[part], field: "0" * 64}}
        files.write_json(path, changed)
        assert not planned.is_done(runs.folder, runs.split), field
    unscored = {**told, "comparable": False, "conversion": {**told["conversion"], "null_hash": None}}
    files.write_json(path, unscored)  # no control changes that
    assert planned.is_done(runs.folder, runs.split)


def test_a_sweep_goes_on_after_a_run_that_fails(tmp_path: Path, small_split: Split) -> None:
    planned = [Planned("no such run", "grpo"), Planned("no_training", "no_training")]
    (tmp_path / "no_training").write_text("a file where the folder of the run should be")
    assert sorted(sweep(planned, tmp_path, small_split, 2)) == ["no such run", "no_training"]


def test_runs_that_are_there_are_read_and_the_others_named(runs: Runs) -> None:
    assert set(runs.methods) == {"grpo"} and set(runs.long) == {"grpo-4x"}
    assert {"maxrl", "replay-code"} <= set(runs.missing) and "grpo" not in runs.missing
    assert runs.built_in == 1


def test_a_run_of_another_method_or_split_is_refused(runs: Runs) -> None:
    shutil.copytree(runs.folder / "grpo", runs.folder / "maxrl")
    with pytest.raises(RunError, match=r"maxrl is a run of grpo, and maxrl was planned"):
        collect(runs.folder, runs.split)
    shutil.move(runs.folder / "maxrl", runs.folder / "replay-code")
    with pytest.raises(RunError, match=r"replay-code is a run of grpo, and replay-code was planned"):
        collect(runs.folder, runs.split)
    shutil.rmtree(runs.folder / "replay-code")
    path = runs.folder / "grpo" / "result.json"
    files.write_json(path, json.loads(path.read_text()) | {"split_hash": "0" * 64})
    with pytest.raises(RunError, match="other labels"):
        collect(runs.folder, runs.split)


# --- tuning -----------------------------------------------------------------------------------------------------


def test_the_best_rate_gains_most_among_those_that_keep_the_easy_items(runs: Runs) -> None:
    def trial(gain: float | None, lost: float) -> Result:
        told = {"interval": None, "interval_families": None, "method": None, "null": None, "p": None}
        result = runs.methods["grpo"].result
        kept = result.retention.model_copy(update={"easy_lost": lost * result.retention.easy_items})
        return result.model_copy(update={"frontier": Frontier(gain=gain, **told), "retention": kept})

    assert tuning.best({0.5: trial(0.1, 0), 1: trial(0.2, 0.05), 2: trial(0.9, 0.06)}) == 1
    assert tuning.best({2: trial(0.2, 0), 1: trial(0.2, 0), 0.5: trial(None, 0)}) == 1  # the smaller of two equals
    assert tuning.best({1: trial(0.1, 0.3), 2: trial(0.9, 0.4)}) == 1  # none keeps them: the one that loses fewest


def test_a_method_is_tuned_on_runs_of_its_own_and_scored_with_fresh_seeds(
    tmp_path: Path, small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "FACTORS", (1.0, 2.0))
    monkeypatch.setattr(tuning, "SEEDS", 1)
    monkeypatch.setattr(tuning, "TRIAL_SEEDS", 1)
    result = tuning.tune("maxrl", tmp_path, small_split, Compute(workers=1))
    rate = small_split.config.recipe.learning_rate
    trials = {f: json.loads((tmp_path / f"tuning/maxrl/{f}/1/config.json").read_text()) for f in ("1", "2")}
    assert [trials[f]["settings"]["learning_rate"] for f in ("1", "2")] == [rate, 2 * rate]
    assert [trials[f]["purpose"] for f in ("1", "2")] == ["tuning-1", "tuning-2"]
    final = json.loads((tmp_path / "maxrl-tuned/1/config.json").read_text())
    assert final["purpose"] == "eval" and result.method.settings["learning_rate"] in (rate, 2 * rate)


def test_the_page_shows_a_tuned_method_beside_itself(runs: Runs, tmp_path: Path) -> None:
    assert "Tuned" not in method_gains.section(runs, tmp_path).text
    shutil.copytree(runs.folder / "grpo", runs.folder / "grpo-tuned")
    text = method_gains.section(collect(runs.folder, runs.split), tmp_path).text
    rate = runs.split.config.recipe.learning_rate
    assert "### Tuned over learning rates" in text
    assert "| grpo, as published |" in text and f"| grpo, tuned ({rate:g}) |" in text


# --- the partition --------------------------------------------------------------------------------------------


def test_all_labelling_runs_give_the_shipped_candidates(micro: Split) -> None:
    every = samples_of(micro, None)
    found = shrinking(micro, every, [every.after[0].shape[1]])[0]
    shipped = Counter(item.group for item in micro.items)
    assert found.mean["unlearnable"] == shipped["unlearnable"] + shipped["boundary"]
    assert {group: found.mean[group] for group in ("easy", "learnable", "no_reward", "unstable")} == {
        group: shipped[group] for group in ("easy", "learnable", "no_reward", "unstable")
    }
    assert found.fewest == found.most


def test_fewer_runs_as_counted_by_hand(micro: Split) -> None:
    ids, counts = [item.item_id for item in micro.items], micro.counts()
    base, base_n = read_phase(counts, "base", ids).pooled
    after, n = read_phase(counts, "after", ids).table
    train, runs = read_phase(counts, "train", ids).table[0], after.shape[1]
    held = []
    for left in range(runs):
        chosen = [run for run in range(runs) if run != left]
        failed = (base / base_n <= 0.1) & (after[:, chosen] / n[:, chosen] <= 0.1).all(axis=1)
        held.append(int((failed & (base + train[:, chosen].sum(axis=1) >= 2)).sum()))
    found = shrinking(micro, samples_of(micro, None), [runs - 1])[0]
    assert (found.mean["unlearnable"], found.fewest, found.most) == (np.mean(held), min(held), max(held))


def test_few_samples_are_drawn_of_those_that_label(micro: Split) -> None:
    every, few = samples_of(micro, None), samples_of(micro, FEW)
    assert (few.base[1] == FEW).all() and (few.after[1] == FEW).all()
    assert np.array_equal(few.base[0] + few.unused[0], every.base[0])
    assert np.array_equal(few.base[1] + few.unused[1], every.base[1])
    assert (few.after[0] <= np.minimum(every.after[0], FEW)).all()
    assert (FEW - few.after[0] <= every.after[1] - every.after[0]).all()  # no more wrong ones than there are


# --- reward in training ---------------------------------------------------------------------------------------


def _ledger(folder: Path, rows: list[tuple[int, str, bool | None]]) -> None:
    """A seed's ledger with one rollout a row: step, item, verdict; a correct one's trace is valid on even steps."""
    blank = {"round": 0, "rollout": 0, "source": "policy", "policy_version": 0, "completion": "", "token_ids": []}
    blank |= {"finish": "stop", "answer": None, "reason": "match", "reward": 0.0, "kept": True}
    told = [
        {**blank, "step": step, "item_id": item, "correct": right, "valid_trace": bool(right) and step % 2 == 0}
        for step, item, right in rows
    ]
    tables.write_parquet(folder / "rollouts" / "000010.parquet", pa.Table.from_pylist(told, schema=ROLLOUTS))


def test_rollouts_are_counted_by_quarters_of_each_seed(runs: Runs) -> None:
    run = runs.methods["grpo"]
    one, two = "one", "two"
    for number, seed in enumerate(run.result.seeds):
        last = 7 if number else 11
        rows = [(step, one, step >= 6) for step in range(last + 1)]
        _ledger(run.folder / str(seed), [*rows, (0, two, None), (0, two, True), (last, "a canary", True)])
    found = training_reward.quarters(run, [two, one])
    assert found is not None
    part, other = found.of([one]), found.of([two])
    assert part.judged[0, 0].tolist() == [3, 3, 3, 3] and part.judged[0, 1].tolist() == [2, 2, 2, 2]
    assert part.correct[0, 0].tolist() == [0, 0, 3, 3] and part.correct[0, 1].tolist() == [0, 0, 0, 2]
    seeds = len(run.result.seeds)
    assert part.reward.tolist() == pytest.approx([0, 0, 1 / seeds, 1])
    assert training_reward.rise(part.reward) == pytest.approx(1)
    assert part.valid[0, 0].tolist() == [0, 0, 2, 1] and part.traced[0, 0].tolist() == [0, 0, 3, 3]
    assert part.valid_share[-1] == pytest.approx((1 + seeds - 1) / (3 + 2 * (seeds - 1)))
    assert np.isnan(part.valid_share[0])
    assert other.judged.sum() == seeds  # a rollout without a verdict is none
    assert training_reward.rise(other.reward) is None  # the last quarter has none
    assert found.reward[0] == pytest.approx(0.5)  # items count alike, however many rollouts each has


def test_the_tables_number_of_items_is_the_groups(runs: Runs, tmp_path: Path) -> None:
    first = of_group(runs.split, "unlearnable")[0].item_id
    for seed in runs.methods["grpo"].result.seeds:
        _ledger(runs.methods["grpo"].folder / str(seed), [(step, first, True) for step in range(4)])
    text = training_reward.section(runs, tmp_path).text
    for name, ids in training_reward.sets_of(runs).items():
        assert f"| {name} | {len(ids)} | reward |" in text


def _rising(runs: Runs, name: str, unlearnable: int, learnable: int) -> Finished:
    """A run in which so many of ten rollouts of an item are correct in the last quarter, and none before."""
    folder = runs.folder / name
    shutil.copytree(runs.folder / "grpo", folder, dirs_exist_ok=True)
    result = runs.methods["grpo"].result
    items = [(of_group(runs.split, "unlearnable")[0], unlearnable), (of_group(runs.split, "learnable")[0], learnable)]
    rows = [
        (step, item.item_id, step == 3 and number < right)
        for item, right in items
        for step in range(4)
        for number in range(10)
    ]
    for seed in result.seeds:
        _ledger(folder / str(seed), rows)
    return Finished(folder, result)


def test_the_papers_measure_is_a_tenth_of_the_learnable_rise(runs: Runs) -> None:
    ids = [[of_group(runs.split, group)[0].item_id] for group in ("unlearnable", "learnable")]
    for right, verdict in ((0, "agrees"), (1, "differs"), (9, "differs")):
        run = _rising(runs, f"run-{right}", right, 10)
        assert paper_claims._reward(run, ids[0], ids[1], None)[1] == verdict
        assert paper_claims._reward(run, ids[0], ["not drawn"], 1.1)[1] == ("agrees" if right < 2 else "differs")
        assert paper_claims._reward(run, ids[0], ["not drawn"], None)[1] == "cannot be said"
    assert paper_claims._reward(_rising(runs, "falls", 0, 0), ids[0], ids[1], None)[1] == "cannot be said"
    assert paper_claims._reward(runs.long["grpo-4x"], ids[0], ids[1], None) == ("no ledger", "cannot be said")


# --- the claims by conversion ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "beyond", "verdict"),
    [
        ((-0.02, 0.03), (-0.03, 0.07), "holds"),
        ((-0.02, 0.03), (-0.03, 0.09), "holds on these families"),
        ((-0.02, 0.09), (-0.03, 0.2), "undecided"),
        ((0.07, 0.12), (0.02, 0.2), "undecided"),
        ((0.09, 0.12), (0.05, 0.2), "does not hold"),
        (None, None, "not measured"),
    ],
)
def test_a_claim_holds_below_a_tenth_of_the_ceiling(
    interval: tuple[float, float] | None, beyond: tuple[float, float] | None, verdict: str
) -> None:
    assert Converted(0.0, interval, beyond, 0.8).verdict == verdict
    assert Converted(0.0, interval, beyond, 0.0).verdict == "not measured"


def test_the_positive_control_is_all_of_its_own_ceiling(runs: Runs) -> None:
    run, items = runs.methods["grpo"], runs.unlearnable()
    found = paper_claims.converted(run, runs.split, items)
    assert found is not None and found.gain == pytest.approx(found.ceiling) and found.ceiling > 0.3
    assert found.verdict == "does not hold" and found.interval is not None and found.beyond is not None
    assert found.beyond[0] <= found.interval[0] <= found.gain <= found.interval[1] <= found.beyond[1]
    cause = items[0].cause
    some = paper_claims.converted(run, runs.split, runs.unlearnable(cause))
    rest = paper_claims.converted(run, runs.split, [item for item in items if item.cause != cause])
    assert some is not None and rest is not None
    share = len(runs.unlearnable(cause)) / len(items)
    assert share * some.gain + (1 - share) * rest.gain == pytest.approx(found.gain)


def test_what_was_not_run_has_no_verdict(runs: Runs) -> None:
    told = paper_claims.section(replace(runs, methods={}), {}).text
    rows = [line for line in told.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= len(paper_claims.CLAIMS) + 4
    assert all(row.count("not run") == 2 for row in rows[: len(paper_claims.CLAIMS)])
    assert not re.search(r"\| (agrees|holds|differs|learned)", told)
    assert f"of {len(paper_claims.CLAIMS)} interventions 0 agree" in told.replace("\n", " ")


def test_only_a_claim_that_was_measured_counts(runs: Runs) -> None:
    runs = replace(runs, methods={"grpo": runs.methods["grpo"], "no_kl": _rising(runs, "no_kl", 0, 10)})
    told = paper_claims.section(runs, {}).text
    row = next(line for line in told.splitlines() if "(`no_kl`)" in line)
    assert "| agrees |" in row and row.endswith("| does not hold |")  # the positive control's counts
    assert "1 agree by its measure and 0 hold by ours (0 of them on these families only)" in told.replace("\n", " ")


# --- the table of methods -------------------------------------------------------------------------------------


def _result(runs: Runs, p: float | None, track: str = "verifier") -> Finished:
    result = runs.methods["grpo"].result
    conversion = result.conversion.model_copy(update={"p": p})
    method = result.method.model_copy(update={"track": track})
    return Finished(runs.folder, result.model_copy(update={"conversion": conversion, "method": method}))


def test_holm_is_within_a_track_and_controls_take_no_part(runs: Runs) -> None:
    found = {
        "grpo": _result(runs, 0.001),
        "no_training": _result(runs, 0.001),
        "distill": _result(runs, 0.01, "teacher"),
    }
    found |= {"maxrl": _result(runs, 0.01), "dapo": _result(runs, 0.04), "rloo": _result(runs, None)}
    by_track = method_gains.grouped(found)
    assert list(by_track) == ["verifier", "teacher"]
    assert method_gains.adjusted(by_track["teacher"]) == {"distill": 0.01}
    assert method_gains.adjusted(by_track["verifier"]) == pytest.approx({"maxrl": 0.02, "dapo": 0.04})


def test_a_run_without_a_gain_is_named_with_its_reason(runs: Runs, tmp_path: Path) -> None:
    run = runs.methods["grpo"]
    odd = run.result.model_copy(update={"comparable": False, "why_not_comparable": "trained more than it metered"})
    told = method_gains.section(replace(runs, methods={"grpo": Finished(run.folder, odd)}), tmp_path).text
    assert "Runs without a gain: `grpo`: trained more than it metered." in told


def test_the_page_is_made_of_what_is_finished(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "unlearnbench/methods").mkdir(parents=True)
    page.write(runs.folder, "micro", out)
    told = (out / "docs/results/experiments.md").read_text(encoding="utf-8")
    assert f"1 of {len(BUILT_IN)} methods were run" in " ".join(told.split()) and "`maxrl`" in told
    assert "No diagnosis was made" in told
    result = runs.methods["grpo"].result
    assert f"### Track `{result.method.track}`" in told and "| grpo | " in told
    for picture in re.findall(r"\]\((experiments-.*?\.png)\)", told):
        assert (out / "docs/results" / picture).stat().st_size > 1000
    assert all(len(line) <= 118 or line.startswith("|") for line in told.splitlines())
    (tmp_path / "empty").mkdir()
    page.write(tmp_path / "empty", "micro", out)
    told = (out / "docs/results/experiments.md").read_text(encoding="utf-8")
    assert f"0 of {len(BUILT_IN)} methods were run" in " ".join(told.split()) and "### Track" not in told
    assert read_measured(out / MEASURED.relative_to(ROOT)) == {}


# --- gradients ------------------------------------------------------------------------------------------------


def _record(
    alone: tuple[float, float], between: tuple[float, float], same: tuple[float, float] | None = None
) -> SimilarityRecord:
    """A diagnosis of which only the blocks of learnable items matter."""

    def one(other: str, ends: tuple[float, float], of: str = "all") -> BlockRecord:
        told = {"corrected": None, "corrected_interval": None, "p": None, "reliable_items": 2}
        return BlockRecord(a="learnable", b=other, pairs=9, raw=sum(ends) / 2, interval=ends, of=of, **told)

    stated = {name: None for name, field in SimilarityRecord.model_fields.items() if field.is_required()}
    stated |= {"groups": (), "reliability": ()}
    blocks = (one("learnable", alone), one("unlearnable", between))
    matched = () if same is None else (one("learnable", alone, "same_skill"), one("unlearnable", same, "same_skill"))
    return SimilarityRecord.model_construct(
        **{**stated, "blocks": blocks, "matched": matched, "auc_other_skills": None}
    )


def test_outliers_need_intervals_that_are_apart_and_survive_matching() -> None:
    def verdicts(*ends: tuple[float, float]) -> tuple[str, str]:
        row = gradients.claims({(gradients.START, "lora"): _record(*ends)})[0]
        return row[3], row[5]

    assert verdicts((0.03, 0.07), (-0.02, 0.0)) == ("agrees", "cannot be said")
    assert verdicts((0.03, 0.07), (-0.02, 0.04), (-0.01, 0.01)) == ("cannot be said", "holds")
    assert verdicts((0.03, 0.07), (0.04, 0.09), (0.05, 0.06)) == ("differs", "does not hold")
    assert verdicts((0.03, 0.07), (-0.02, 0.0), (0.02, 0.06)) == ("agrees", "cannot be said")


def test_mid_training_raises_similarity_only_where_intervals_are_apart() -> None:
    def verdict(after: tuple[float, float]) -> str:
        ends = {gradients.START: (-0.01, 0.01), gradients.MID: after}
        return gradients.raised({(name, "all"): _record((0.03, 0.07), one) for name, one in ends.items()})[1]

    assert verdict((0.02, 0.05)) == "agrees" and verdict((0.0, 0.05)) == "cannot be said"
    assert verdict((-0.05, 0.02)) == "differs"
    assert gradients.raised({}) == ("not measured", "-")


def test_diagnoses_of_other_labels_are_not_shown(runs: Runs) -> None:
    start = gradients.folder_of(runs, gradients.START, "lora") / "similarity.json"
    stated = dict.fromkeys(("code_version", "policy", "source", "parameters"), "x")
    stated |= dict.fromkeys(("rollouts_per_item", "parts", "dimension", "reliability_floor", "seed"), 1)
    lists = ("item_ids", "groups", "group_order", "excluded", "reliability", "by_rollouts", "adapter_seeds")
    stated |= dict.fromkeys((*lists, "by_adapter_seed"), ())
    stated |= dict.fromkeys(("revision", "split", "rollouts_file", "auc", "pair_spread"))
    mine = _record((0.03, 0.07), (-0.02, 0.0), (0.02, 0.06))
    blocks = {name: [one.model_dump() for one in getattr(mine, name)] for name in ("blocks", "matched")}
    told = {**stated, **blocks, "options": {}, "split_hash": runs.split.hash}
    files.write_json(start, told)
    found = gradients.read_all(runs)
    assert list(found) == [(gradients.START, "lora")]
    text = gradients.section(found, "own twins").text
    assert "| learnable, unlearnable | same skill | +0.040 (+0.020 to +0.060) |" in text
    files.write_json(start, told | {"split_hash": "0" * 64})
    assert gradients.read_all(runs) == {}


def test_policies_of_missing_runs_are_not_diagnosed(runs: Runs) -> None:
    assert set(gradients.policies(runs)) == {gradients.START, gradients.MID}


# --- tables ---------------------------------------------------------------------------------------------------


def test_words_in_a_table_cannot_break_it() -> None:
    rows = table(["a", "b"], [["x|y", "1\n2"]]).splitlines()
    assert rows[-1] == "| x\\|y | 1 2 |" and len(rows) == 3


def test_a_gain_with_its_interval() -> None:
    assert with_interval(0.0215, (-0.01, 0.05)) == "+2.1 (\N{MINUS SIGN}1.0 to +5.0)"
    assert with_interval(0.0215, None) == "+2.1" and with_interval(None, None) == "-"
