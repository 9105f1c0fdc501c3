"""The analysis behind docs/results/experiments.md, on the split's counts and controls, and the files it writes."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from experiments import curves, gradients, interventions, methods, passk, rest
from experiments.entries import _is_of, measured, write_gains
from experiments.markdown import Finding, table
from experiments.partition import Dealt, _draw, dealings, shrinking
from experiments.ranking import Ranked, rank
from experiments.runs import Runs, cells_of, collect, of_group
from experiments.size import false_gains
from unlearnbench.cli.methods import methods as methods_command
from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord
from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.entries import BUNDLE, read_entries
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.methods.gains import MEASURED, Measured, present_gain, read_measured, write_measured
from unlearnbench.reports.run_report import _itself
from unlearnbench.scoring.comparability import Finished, read_run
from unlearnbench.scoring.conversion_rule import converted
from unlearnbench.scoring.counts import read_phase
from unlearnbench.scoring.null_vs_null import null_against_null, null_gains
from unlearnbench.splits import Split, find_split
from unlearnbench.training.ledger import ROLLOUTS

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = ROOT / "leaderboard" / "entries"


@pytest.fixture
def runs(tmp_path: Path, micro: Split) -> Iterator[Runs]:
    """The positive control as the run `grpo`, the null control at 4x as `grpo-4x`: both are GRPO with three seeds."""
    for control, name in (("positive_control", "grpo"), ("null_control/4x", "grpo-4x")):
        (tmp_path / name).mkdir()
        for file in ("result.json", "counts.parquet"):
            shutil.copy(find_split("micro") / control / file, tmp_path / name / file)
    yield collect(tmp_path, micro)


# --- runs -----------------------------------------------------------------------------------------------------


def test_runs_that_are_there_are_read_and_the_others_named(runs: Runs) -> None:
    assert set(runs.methods) == {"grpo"} and set(runs.long) == {"grpo-4x"} and not runs.single
    assert {"maxrl", "grpo-256-samples", "without_unlearnable"} <= set(runs.missing)
    assert "grpo" not in runs.missing


def test_a_run_of_another_method_or_split_is_refused(runs: Runs) -> None:
    shutil.copytree(runs.folder / "grpo", runs.folder / "maxrl")
    with pytest.raises(RunError, match=r"maxrl is a run of grpo with 3 seeds, and maxrl with 3 was planned"):
        collect(runs.folder, runs.split)
    shutil.rmtree(runs.folder / "maxrl")
    path = runs.folder / "grpo" / "result.json"
    files.write_json(path, json.loads(path.read_text()) | {"split_hash": "0" * 64})
    with pytest.raises(RunError, match="other labels"):
        collect(runs.folder, runs.split)


# --- 1: the partition -----------------------------------------------------------------------------------------


def test_all_labelling_runs_give_the_shipped_candidates(micro: Split) -> None:
    found = shrinking(micro, dealings(micro)[0], [7])[0]
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
    train = read_phase(counts, "train", ids).table[0]
    held = []
    for left in range(7):
        chosen = [run for run in range(7) if run != left]
        failed = (base / base_n <= 0.1) & (after[:, chosen] / n[:, chosen] <= 0.1).all(axis=1)
        held.append(int((failed & (base + train[:, chosen].sum(axis=1) >= 2)).sum()))
    found = shrinking(micro, dealings(micro)[0], [6])[0]
    assert (found.mean["unlearnable"], found.fewest, found.most) == (np.mean(held), min(held), max(held))


def test_certification_takes_samples_that_do_not_label(micro: Split) -> None:
    whole, many, few, sure = dealings(micro)
    assert many.certify is not None and sure.certify is not None
    assert np.array_equal(many.after[0] + many.certify[0], whole.after[0])
    assert np.array_equal(many.after[1] + many.certify[1], whole.after[1])
    assert (few.base[1] == 32).all() and np.array_equal(few.base[0] + few.unused[0], whole.base[0])
    # what certifies nothing leaves nothing unlearnable: every sample of it is correct
    wrong = (np.full_like(many.certify[1], 128), many.certify[1])
    none = shrinking(micro, replace(many, certify=wrong), [7])[0]
    assert none.mean["unlearnable"] == 0 and none.mean["boundary"] > 200
    drawn, left = _draw(np.random.default_rng(0), (np.array([[5]]), np.array([[9]])), 4)
    assert drawn[0] + left[0] == 5 and (drawn[1], left[1]) == (4, 5)
    assert isinstance(whole, Dealt)


# --- 2: training curves ---------------------------------------------------------------------------------------


def _ledger(folder: Path, rows: list[tuple[int, str, bool | None]]) -> None:
    """A seed's ledger with one rollout a row: step, item, verdict; a correct one's trace is valid on even steps."""
    blank = {"round": 0, "rollout": 0, "source": "policy", "policy_version": 0, "completion": "", "token_ids": []}
    blank |= {"finish": "stop", "answer": None, "reason": "match", "reward": 0.0, "kept": True}
    told = [
        {**blank, "step": step, "item_id": item, "correct": right, "valid_trace": bool(right) and step % 2 == 0}
        for step, item, right in rows
    ]
    tables.write_parquet(folder / "rollouts" / "000010.parquet", pa.Table.from_pylist(told, schema=ROLLOUTS))


def test_rollouts_are_counted_by_parts_of_each_seed(runs: Runs) -> None:
    run = runs.methods["grpo"]
    one, two = (item.item_id for item in of_group(runs.split, "unlearnable")[:2])
    for seed in run.result.seeds:
        last = 9 if seed == 1 else 7
        rows = [(step, one, step >= 5) for step in range(last + 1)]
        _ledger(run.folder / str(seed), [*rows, (0, two, None), (0, two, True), (last, "a canary", True)])
    found = curves.training(run, runs.split, 2).of("unlearnable")
    assert found.items[0].item_id == one and found.items[1].item_id == two
    assert found.n[0].tolist() == [[5, 5], [4, 4], [4, 4]]  # 10 steps of seed 1, 8 of the others
    assert found.correct[0].tolist() == [[0, 5], [0, 3], [0, 3]]
    assert found.valid[0].sum() == 2 + 1 + 1
    assert found.n[1].sum() == 3  # a rollout without a verdict is none
    assert curves.rise(replace(found, items=found.items[1:2], correct=found.correct[1:2], n=found.n[1:2])) is None
    told = curves.rise(replace(found, items=found.items[:1], correct=found.correct[:1], n=found.n[:1]))
    assert told is not None and told[0] == pytest.approx(11 / 13)


# --- 3: ranking -----------------------------------------------------------------------------------------------


def test_a_report_says_where_a_gain_lies_among_those_of_grpo_over_itself(micro: Split) -> None:
    control = micro.control("positive_control")
    assert control is not None
    told = _itself(SimpleNamespace(result=control.result, split=micro))
    gains = null_gains(micro, 3)
    assert told == {"seeds": 3, "n": 120, "as_large": 0, "low": min(gains), "high": max(gains)}
    assert -0.02 < told["low"] < 0 < told["high"] < 0.02


def test_gains_of_grpo_over_itself_are_those_of_compare_aa(micro: Split) -> None:
    gains, told = null_gains(micro, 1), null_against_null(micro, 1).method_against_rest
    assert len(gains) == told.comparisons == 10
    assert (min(gains), max(gains)) == pytest.approx((told.smallest_gain, told.largest_gain))
    assert sum(gains) / len(gains) == pytest.approx(told.mean_gain)
    assert len(null_gains(micro, 6)) == 0


def test_a_claim_says_what_the_interval_says(runs: Runs) -> None:
    (row,) = rank(runs, {"maxrl": runs.methods["grpo"]}, "1x")["base"]
    interval = row.run.result.conversion.interval_families
    assert interval is not None and interval[0] > 0
    assert row.p is not None and row.p_null is not None and row.p_strong is not None
    assert row.p == max(row.p_null, row.p_strong) < 0.05
    assert row.adjusted == row.p and row.claimed and row.rank == 1
    assert (row.nulls_as_large, row.nulls) == (0, 120)


def test_holm_is_over_the_methods_of_a_track_and_controls_make_no_claim(runs: Runs) -> None:
    run = runs.methods["grpo"]
    rows = rank(runs, {"grpo": run, "maxrl": run, "replay": run, "no_training": run}, "1x")["base"]
    by_name = {row.name: row for row in rows}
    assert by_name["grpo"].adjusted is None and by_name["no_training"].adjusted is None
    assert not by_name["grpo"].claimed
    for name in ("maxrl", "replay"):
        assert by_name[name].adjusted == pytest.approx(2 * (by_name[name].p or 0))
    assert {row.rank for row in rows} == {1}  # equal runs are ties


def test_a_result_that_its_counts_do_not_give_is_refused(runs: Runs) -> None:
    path = runs.folder / "grpo" / "result.json"
    told = json.loads(path.read_text())
    told["conversion"]["gain"] -= 0.1
    files.write_json(path, told)
    with pytest.raises(DataError, match="another gain"):
        rank(runs, {"grpo": read_run(path.parent)}, "1x")


def test_the_test_seldom_finds_a_gain_where_there_is_none() -> None:
    shares = false_gains(20)
    assert (np.diff(shares) <= 0).all()
    assert shares[0] < 0.08 and shares[-1] < 0.03


# --- 4 to 8: what follows -------------------------------------------------------------------------------------


def _ranked(runs: Runs, name: str, adjusted: float | None, interval: tuple[float, float] | None = None) -> Ranked:
    run = runs.methods["grpo"]
    if interval is not None:
        score = run.result.conversion.model_copy(update={"interval": interval, "gain": sum(interval) / 2})
        run = Finished(run.folder, run.result.model_copy(update={"conversion": score}))
    return Ranked(name, run, adjusted, adjusted, adjusted, adjusted, 1, 0, 120)


def test_an_intervention_is_judged_by_its_intervals(runs: Runs) -> None:
    board = {
        "verifier": [
            _ranked(runs, "replay", 0.01),
            _ranked(runs, "no_kl", 0.6, (-0.02, 0.03)),
            _ranked(runs, "dapo", 0.6, (-0.02, 0.3)),
        ]
    }
    told = interventions.section(board)  # type: ignore[arg-type]
    assert [finding.verdict for finding in told.findings] == ["differs", "cannot be said", "agrees"]
    assert told.text.count("| missing |") == len(interventions.PAPER) - 3


def test_sections_without_their_runs_say_so_and_conclude_nothing(runs: Runs, tmp_path: Path) -> None:
    bare = replace(runs, methods={}, single={})
    for section in (
        curves.section(bare, tmp_path),
        passk.section(bare, tmp_path),
        rest.section(bare),
        gradients.mid_training(bare, {}),
        gradients.along_training(bare, {}, tmp_path),
    ):
        assert "missing" in section.text.lower() and not section.findings
    assert not list(tmp_path.glob("*.png"))


def test_nothing_converts_differs_only_with_a_claim(runs: Runs) -> None:
    claimed, not_claimed = ({"verifier": [_ranked(runs, "maxrl", p)]} for p in (0.04, 0.06))
    assert [finding.verdict for finding in methods._nothing_converts(claimed)] == ["differs"]  # type: ignore[arg-type]
    assert [finding.verdict for finding in methods._nothing_converts(not_claimed)] == ["cannot be said"]  # type: ignore[arg-type]


def test_pass_at_k_by_binomials(runs: Runs) -> None:
    items = of_group(runs.split, "unlearnable")[:30]
    before, after = passk.base_cells(runs.split, items), cells_of(runs.methods["grpo"], items)
    found = passk.reached(before, after, items)
    assert found.k == [1, 2, 4, 8, 16, 32]
    for cells, values in ((before, found.before), (after, found.after)):
        for item, k in ((0, 8), (7, 32), (29, 1)):
            n, c = int(cells.n[item, 0]), int(cells.correct[item, 0])
            assert values[item, 0, found.k.index(k)] == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))
    change, interval = found.change(0)
    assert change == pytest.approx(float((after.rates - before.rates).mean()))
    assert interval is not None and interval[0] < change < interval[1]


def test_rates_are_paired_item_by_item(runs: Runs) -> None:
    items = of_group(runs.split, "easy")
    first, second = runs.methods["grpo"], runs.long["grpo-4x"]
    value, interval = rest.rate_change(first, second, items)
    told = [run.result.groups["easy"].rate_after or 0 for run in (first, second)]
    assert value == pytest.approx(told[0] - told[1])
    assert interval is not None and interval[0] < value < interval[1]
    assert rest.rate_change(first, first, items)[0] == 0


def _record(alone: tuple[float, float], between: tuple[float, float]) -> SimilarityRecord:
    """A diagnosis of which only the blocks of learnable items matter."""

    def one(other: str, ends: tuple[float, float]) -> BlockRecord:
        told = {"corrected": None, "corrected_interval": None, "p": None, "reliable_items": 2}
        return BlockRecord(a="learnable", b=other, pairs=9, raw=sum(ends) / 2, interval=ends, **told)

    stated = {name: None for name, field in SimilarityRecord.model_fields.items() if field.is_required()}
    blocks = (one("learnable", alone), one("unlearnable", between))
    return SimilarityRecord.model_construct(**{**stated, "blocks": blocks})


def test_outliers_need_intervals_that_are_apart() -> None:
    def verdicts(alone: tuple[float, float], between: tuple[float, float]) -> str:
        return gradients._outliers({(gradients.START, "lora"): _record(alone, between)}, "lora").verdict

    assert verdicts((0.03, 0.07), (-0.02, 0.0)) == "agrees"
    assert verdicts((0.03, 0.07), (-0.02, 0.04)) == "cannot be said"
    assert verdicts((0.03, 0.07), (0.04, 0.09)) == "differs"
    both = {
        (name, "all"): _record((0.03, 0.07), ends)
        for name, ends in ((gradients.START, (-0.01, 0.01)), (gradients.MID, (0.02, 0.05)))
    }
    assert gradients._raised(both, "all").verdict == "agrees"
    assert (
        gradients._raised({**both, (gradients.MID, "all"): _record((0, 1), (-0.03, 0.0))}, "all").verdict == "differs"
    )


def test_policies_of_missing_runs_are_not_diagnosed(runs: Runs) -> None:
    there = {place.name for place in gradients.places(runs) if place.policy is not None}
    assert there == {gradients.START, gradients.MID}


def test_words_in_a_table_cannot_break_it() -> None:
    rows = table(["a", "b"], [["x|y", "1\n2"]]).splitlines()
    assert rows[-1] == "| x\\|y | 1 2 |" and len(rows) == 3
    assert Finding(1, "", "", "agrees").verdict == "agrees"


# --- what is left in the repository ---------------------------------------------------------------------------


def test_a_gain_is_shown_only_for_what_was_measured(runs: Runs, tmp_path: Path) -> None:
    path, source = tmp_path / "measured.json", locate("grpo")
    write_gains(runs, path)
    found = read_measured(path)
    assert found == measured(runs.methods)
    run = runs.methods["grpo"].result
    assert found["grpo"].gain == run.conversion.gain and found["grpo"].seeds == 3
    now = found["grpo"].model_copy(update={"source_hash": source.hash})
    assert present_gain(source, {"grpo": now}) == run.conversion.gain
    for change in ({"source_hash": "0" * 64}, {"split_hash": "0" * 64}, {"split": "no such split"}):
        assert present_gain(source, {"grpo": now.model_copy(update=change)}) is None
    assert present_gain(source, {}) is None and read_measured(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "Invalid JSON"),
        ('{"grpo": {"split": "micro"}}', r"method 'grpo', field 'split_hash'"),
        ('{"grpo": 3}', "method 'grpo'"),
    ],
)
def test_a_malformed_file_of_gains_is_one_sentence(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "measured.json").write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        read_measured(tmp_path / "measured.json")
    assert "\n" not in str(caught.value) and "make experiments" in str(caught.value)


def test_the_file_of_gains_is_in_order(tmp_path: Path) -> None:
    one = Measured(
        split="micro",
        split_hash="0" * 64,
        source_hash="1" * 64,
        budget=1,
        seeds=3,
        gain=0.5,
        interval_families=(0.1, 0.9),
    )
    write_measured({"b": one, "a": one}, tmp_path / "m.json")
    assert list(json.loads((tmp_path / "m.json").read_text())) == ["a", "b"]
    assert read_measured(tmp_path / "m.json")["b"] == one


def test_the_command_lists_the_shipped_gains() -> None:
    found = read_measured(MEASURED)
    assert set(found) <= set(BUILT_IN)
    rows = json.loads(CliRunner().invoke(methods_command, ["--json"]).stdout)
    for row in rows:
        expected = present_gain(locate(row["name"]), found) if row["name"] in BUILT_IN else None
        assert row["gain"] == expected
    assert any(row["gain"] is not None for row in rows)


def test_shipped_entries_hold_what_their_counts_say(micro: Split) -> None:
    shipped = read_measured(MEASURED)
    ours = [one for one in read_entries(ENTRIES) if one.result.method.name in shipped and one.entry.bundle is None]
    at_1x = {one.result.method.name: one for one in ours if one.result.budget.multiple == 1}
    assert set(at_1x) == set(shipped)
    items = of_group(micro, "unlearnable")
    for one in ours:
        hits = int(converted(cells_of(Finished(one.folder, one.result), items), micro.config.protocol.tau).sum())
        assert hits == one.result.groups["unlearnable"].converted, one.entry.id
    for name, one in at_1x.items():
        assert one.result.conversion.gain == pytest.approx(shipped[name].gain)
        assert one.result.method.source_hash == shipped[name].source_hash
        assert files.sha256(one.folder / one.entry.source) == shipped[name].source_hash


def test_a_half_made_entry_is_made_again(runs: Runs, tmp_path: Path) -> None:
    one = next(one for one in read_entries(ENTRIES) if one.entry.bundle is None)
    folder = tmp_path / "entry"
    shutil.copytree(one.folder, folder)
    tried = one.entry.tried or 1
    assert _is_of(folder, one.result, tried)
    assert not _is_of(folder, runs.methods["grpo"].result, tried) and not _is_of(tmp_path, one.result, tried)
    (folder / BUNDLE).write_bytes(b"")
    assert not _is_of(folder, one.result, tried)


def test_the_page_names_every_method_that_was_measured() -> None:
    page = (ROOT / "docs/results/experiments.md").read_text(encoding="utf-8")
    for name, one in read_measured(MEASURED).items():
        assert f"| {name} | " in page, name
        assert f"{100 * one.gain:+z.1f}".replace("-", "\N{MINUS SIGN}") in page, name
    for picture in ("curves", "passk", "similarity"):
        file = ROOT / "docs/results" / f"experiments-{picture}.png"
        assert f"]({file.name})" in page and file.stat().st_size < 120_000
