"""Comparisons of runs: what may be compared, the paired figures by brute force, the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import FAMILIES, HARD, counts, make

from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import Cost, MethodRecord, Sampling, SpentBudget
from unlearnbench.scoring.comparisons.comparability import read_run
from unlearnbench.scoring.comparisons.comparison import claimed, compare, paired_intervals
from unlearnbench.scoring.comparisons.pilot import pilot
from unlearnbench.scoring.inference.intervals import Arm, gain_intervals
from unlearnbench.scoring.score import SCORER_VERSION, RunFacts, score
from unlearnbench.splits import Split

SPREAD = set(HARD[:24])  # two of every family


FOUR = (1, 2, 3, 4)
"""Seeds of a run that can differ from another of four seeds with p <= 0.05, as three and three cannot."""


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make(tmp_path_factory.mktemp("splits") / "toy")


def run(
    folder: Path,
    split: Split,
    solved: Collection[str],
    seeds: Sequence[int] = (1, 2, 3),
    *,
    name: str = "m",
    settings: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    memorised: Collection[str] = (),
    **changes: Any,
) -> Path:
    """A scored run's folder; `changes` alter its result.json afterwards."""
    measured = counts(seeds, solved, changes.get("samples", 32), memorised)
    facts = RunFacts(
        method=MethodRecord(name=name, source_hash=name * 8, track="verifier", settings=settings or {}),
        seeds=seeds,
        samples=changes.get("samples", 32),
        sampling=Sampling(),
        budget=SpentBudget(multiple=1.0, limit=1000, used=[len(name) * 100] * len(seeds)),
        cost=Cost(flops=100 * len(name) * len(seeds), generated_tokens=7 * len(seeds), seconds=3.0, device="d"),
        code_version="0.1.0",
    )
    result = score(split, measured, facts, split.control("null_control")).model_copy(update=changes)
    tables.write_parquet(folder / "counts.parquet", measured)
    files.write_json(folder / "result.json", result)
    if environment is not None:
        files.write_json(folder / str(seeds[0]) / "environment.json", environment)
        files.write_json(folder / str(seeds[0]) / "config.json", {"purpose": "eval", "start": None})
    return folder


# --- what may be compared -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": 64}, ("samples (32 and 64)", "--samples")),
        ({"sampling": Sampling(temperature=1.0)}, ("temperature 0.7", "temperature 1.0", "split.yaml")),
        ({"budget": SpentBudget(multiple=4.0, limit=4000, used=[1])}, ("1x", "4x", "--budget")),
        (
            {"scorer_version": "0.9"},
            (f"scorer version ({SCORER_VERSION} and 0.9)", "rerun the older run's `eval` command"),
        ),
        ({"code_version": "0.3.0"}, ("version of the rules (0.1 and 0.3)", "again")),
        ({"split_hash": "f00d"}, ("toy f00d", "same split")),
        ({"kind": "score"}, ("kind (eval and score)", "--checkpoint")),
        (
            {"method": MethodRecord(name="m", source_hash="s", track="solution")},
            ("track (verifier and solution)", "one track"),
        ),
    ],
)
def test_an_unfair_pair_is_refused_by_naming_what_differs(
    changes: dict[str, Any], told: tuple[str, ...], split: Split, tmp_path: Path
) -> None:
    one, other = run(tmp_path / "one", split, SPREAD), run(tmp_path / "other", split, SPREAD, **changes)
    with pytest.raises(RunError) as refused:
        compare([read_run(one), read_run(other)], split)
    for words in (*told, str(one), str(other)):
        assert words in str(refused.value)


def test_all_that_is_unfair_is_named_at_once(split: Split, tmp_path: Path) -> None:
    one = run(tmp_path / "one", split, SPREAD)
    other = run(tmp_path / "other", split, SPREAD, samples=64, scorer_version="0.9")
    with pytest.raises(RunError, match=r"samples \(32 and 64\), scorer version \([0-9.]+ and 0.9\)"):
        compare([read_run(one), read_run(other)], split)


def test_a_run_that_is_not_comparable_says_why(split: Split, tmp_path: Path) -> None:
    one = run(tmp_path / "one", split, SPREAD)
    other = run(tmp_path / "other", split, SPREAD, (1, 2))
    with pytest.raises(RunError, match=r"other cannot be compared with other runs: .* at least 3 seeds"):
        compare([read_run(one), read_run(other)], split)


def test_what_differs_fairly_is_listed_with_its_meaning(split: Split, tmp_path: Path) -> None:
    machine = {"python": "3.11", "device": "d", "packages": {"torch": "2"}, "sealed_by": "x", "unlearnbench": "0.1.0"}
    one = run(tmp_path / "one", split, SPREAD, settings={"lr": 1e-4, "steps": 5}, environment=machine)
    other = run(
        tmp_path / "other",
        split,
        SPREAD,
        (4, 5, 6, 7),
        name="mm",
        settings={"lr": 2e-4, "steps": 5, "bonus": 1},
        environment=machine | {"packages": {"torch": "3"}, "sealed_by": "y"},
    )
    bare = run(tmp_path / "bare", split, SPREAD)
    told = {d.setting: d for d in compare([read_run(path) for path in (one, other, bare)], split).differences}
    assert {name: told[name].meaning for name in told} == {
        "method": "intended",
        "method source": "intended",
        "setting lr": "intended",
        "setting bonus": "intended",
        "setting steps": "intended",
        "number of seeds": "harmless",
        "seeds": "harmless",
        "torch": "harmless",
        "environment": "harmless",
    }
    assert told["setting lr"].values == [1e-4, 2e-4, None] and told["torch"].values == ["2", "3", None]


def test_another_sampler_is_told_and_harmless(split: Split, tmp_path: Path) -> None:
    folders = [run(tmp_path / name, split, SPREAD, environment={"device": "d"}) for name in ("one", "other")]
    engine = {"sampler": {"name": "vllm", "options": {}}}
    first = str(read_run(folders[1]).result.seeds[0])
    files.write_json(folders[1] / first / "config.json", {"purpose": "eval", "start": None} | engine)
    told = {d.setting: d for d in compare([read_run(path) for path in folders], split).differences}
    assert told["sampler"].meaning == "harmless" and told["sampler"].values == ["transformers", "vllm"]


def test_what_no_folder_tells_is_not_called_equal(split: Split, tmp_path: Path, cli: Any) -> None:
    one, other = run(tmp_path / "one", split, SPREAD), run(tmp_path / "other", split, {"hard-01"})
    status, shown, told = cli("compare", one, other, "--split", split.path)
    assert status == 0 and told == "" and "nothing that these folders record" in shown


def test_runs_that_were_not_metered_are_compared_with_a_warning(split: Split, tmp_path: Path, cli: Any) -> None:
    method = MethodRecord(name="elsewhere", source_hash="s", track="undeclared")
    unmetered = {"method": method, "budget": SpentBudget(), "cost": Cost(verifier_calls=1), "kind": "score"}
    folders = [run(tmp_path / name, split, solved, **unmetered) for name, solved in (("a", SPREAD), ("b", {"hard-01"}))]
    status, shown, told = cli("compare", *folders, "--split", split.path)
    assert status == 0 and told == ""
    assert "makers' word" in " ".join(shown.split()) and "unknown of B" in shown


# --- paired figures -------------------------------------------------------------------------------------------


def test_a_comparison_counted_by_hand(split: Split, tmp_path: Path) -> None:
    mine = {*SPREAD, "hard-26"}  # every family twice, and c
    theirs = {"hard-00", "hard-47"}
    one, other = (
        run(tmp_path / "one", split, mine, FOUR, name="mmm"),
        run(tmp_path / "other", split, theirs, (7, 8, 9, 10)),
    )
    told = compare([read_run(one), read_run(other)], split)
    pair = told.pairs[0]
    assert (pair.first, pair.second, pair.seeds, pair.items) == ("A", "B", (4, 4), 48)
    assert (pair.first_conversion, pair.second_conversion) == pytest.approx((25 / 48, 2 / 48))
    assert pair.gain == pair.solved_gain == pytest.approx(23 / 48)
    assert pair.p == pytest.approx(2 / 70)  # two-sided, and 4 runs of 8 have 70 ways
    assert pair.interval and pair.interval[0] < pair.gain < pair.interval[1]
    assert pair.interval_families and 0 < pair.interval_families[0] < pair.gain
    assert pair.claim == "first" and not pair.a_a and pair.shared_draws == []
    assert {item.item_id for item in pair.only_first} == mine - theirs
    assert [(i.item_id, i.family, i.first.rate, i.second.correct, i.second.n) for i in pair.only_second] == [
        ("hard-47", "l", 1 / 32, 64, 128)
    ]
    expected = dict.fromkeys(FAMILIES, (4, 2, 0)) | {"a": (4, 2, 1), "c": (4, 3, 0), "l": (4, 2, 1)}
    assert {name: (part.items, part.first, part.second) for name, part in pair.families.items()} == expected
    assert (pair.retention.items, pair.retention.difference) == (6, 0.0)
    assert (pair.cost.flops, pair.cost.generated_tokens, pair.cost.trained_tokens) == (3.0, 1.0, None)
    assert [(part.converted, part.items, part.flops_per_seed) for part in told.runs] == [(25, 48, 300), (2, 48, 100)]


def test_the_order_of_the_runs_changes_signs_only(split: Split, tmp_path: Path) -> None:
    folders = [run(tmp_path / "one", split, SPREAD, FOUR), run(tmp_path / "other", split, {"hard-01"}, (7, 8, 9, 10))]
    forth = compare([read_run(folder) for folder in folders], split).pairs[0]
    back = compare([read_run(folder) for folder in reversed(folders)], split).pairs[0]
    assert back.gain == pytest.approx(-forth.gain) and (forth.claim, back.claim) == ("first", "second")
    for one, other in ((forth.interval, back.interval), (forth.interval_families, back.interval_families)):
        assert one is not None and other is not None
        assert one == pytest.approx((-other[1], -other[0]))
    assert forth.only_first[0].item_id == back.only_second[0].item_id


def test_runs_of_any_number_of_seeds_are_compared(split: Split, tmp_path: Path) -> None:
    partly = {*(f"hard-01/{seed}" for seed in (11, 12)), *(f"hard-02/{seed}" for seed in (11, 12, 13, 14))}
    one = run(tmp_path / "one", split, partly, (11, 12, 13, 14, 15))
    other = run(tmp_path / "other", split, set(), (1, 2, 3))
    pair = compare([read_run(one), read_run(other)], split).pairs[0]
    assert pair.seeds == (5, 3) and pair.first_conversion == pytest.approx((2 / 5 + 4 / 5) / 48)
    assert [(item.item_id, item.first_share) for item in pair.only_first] == [("hard-02", 0.8)]  # most of its seeds


def test_items_that_were_memorised_are_solved_and_not_converted(split: Split, tmp_path: Path) -> None:
    one = run(tmp_path / "one", split, SPREAD, memorised=set(HARD[:12]))
    other = run(tmp_path / "other", split, set(), (4, 5, 6))
    told = compare([read_run(one), read_run(other)], split)
    assert (told.runs[0].solved, told.runs[0].converted, told.runs[0].with_probe) == (24, 12, 48)
    assert (told.pairs[0].solved_gain, told.pairs[0].gain) == pytest.approx((24 / 48, 12 / 48))


def test_a_difference_in_one_family_is_not_claimed(split: Split, tmp_path: Path) -> None:
    one = run(tmp_path / "one", split, {name for i, name in enumerate(HARD) if i % 12 == 0})
    other = run(tmp_path / "other", split, set(), (4, 5, 6))
    pair = compare([read_run(one), read_run(other)], split).pairs[0]
    assert pair.gain == pytest.approx(4 / 48) and pair.claim == "none"
    assert pair.interval_families is not None and pair.interval_families[0] <= 0


def test_an_interval_without_p_claims_nothing_and_says_what_would(split: Split, tmp_path: Path, cli: Any) -> None:
    one = run(tmp_path / "one", split, SPREAD)
    other = run(tmp_path / "other", split, set(), (4, 5, 6))
    told = compare([read_run(one), read_run(other)], split)
    pair = told.pairs[0]
    assert pair.interval_families is not None and pair.interval_families[0] > 0
    assert pair.p == pytest.approx(2 / 20) and pair.claim == "none"  # 3 runs of 6 have 20 ways
    shown = " ".join(cli("compare", one, other, "--split", split.path)[1].split())
    assert "No difference can be claimed" in shown
    assert (
        "but p = 0.1 is above 0.05: with 3 and 3 seeds it cannot be below 0.1; with 4 and 4 it can be 0.029." in shown
    )


@pytest.mark.parametrize(
    ("interval", "p", "claim"),
    [
        ((0.01, 0.2), 0.05, "first"),
        ((-0.2, -0.01), 0.01, "second"),
        ((0.01, 0.2), 0.051, "none"),
        ((-0.2, -0.01), 0.06, "none"),
        ((-0.01, 0.2), 0.001, "none"),
        (None, 0.001, "none"),
    ],
)
def test_a_claim_needs_both(interval: tuple[float, float] | None, p: float, claim: str) -> None:
    assert claimed(interval, p) == claim


def test_the_same_method_twice_is_named_so(split: Split, tmp_path: Path) -> None:
    first = run(tmp_path / "first", split, SPREAD, (1, 2, 3))
    fresh = run(tmp_path / "fresh", split, {"hard-03"}, (3, 4, 5))
    copy = run(tmp_path / "copy", split, SPREAD, (3, 2, 9))
    tuned = run(tmp_path / "tuned", split, {"hard-03"}, (3, 4, 5), settings={"lr": 1})
    told = compare([read_run(path) for path in (first, fresh, copy, tuned)], split)
    found = {pair.first + pair.second: (pair.a_a, pair.shared_draws) for pair in told.pairs}
    assert told.comparisons == len(found) == 6
    assert found["AB"] == (True, []) and found["AC"] == (True, [2, 3]) and found["AD"] == (False, [])


@pytest.mark.parametrize("lead", [0, 3, 12, 24])
def test_paired_intervals_take_the_better_run_for_the_method(lead: int) -> None:
    rng = np.random.default_rng(0)
    names = [str(i % 12) for i in range(48)]
    values = [(np.arange(48) < size).astype(float) for size in (6 + lead, 6)]
    arms = [Arm(value, rng.normal(0, 0.002, (3, 48)), 2) for value in values]
    found = zip(
        paired_intervals(arms[0], arms[1], names),
        gain_intervals(arms[0], arms[1], names),
        gain_intervals(arms[1], arms[0], names),
        paired_intervals(arms[1], arms[0], names),
        strict=True,
    )
    for pair, forth, back, turned in found:
        assert pair is not None and forth is not None and back is not None and turned is not None
        assert turned == (-pair[1], -pair[0])
        assert (pair[0] > 0) == (forth[0] > 0 and lead > 0)  # what a score would claim, and nothing else
        assert pair[0] == (forth[0] if pair[0] > 0 else min(forth[0], -back[1]))
        assert pair[1] == max(forth[1], -back[0])
    assert (pair[0] > 0) == (lead >= 12)  # `pair` is now the interval beyond these families


# --- files that are not what they should be --------------------------------------------------------------------


def test_counts_that_do_not_give_the_result_are_refused(split: Split, tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", split, SPREAD), run(tmp_path / "other", split, set())
    tables.write_parquet(other / "counts.parquet", counts((1, 2, 3), {"hard-05"}))
    with pytest.raises(DataError, match=r"by counts.parquet 1 of 48 .* are solved, and result.json says 0 of 48"):
        compare([read_run(one), read_run(other)], split)
    measured = tables.read_parquet(one / "counts.parquet")
    twins = [phase == "twin" for phase in measured["phase"].to_pylist()]
    tables.write_parquet(one / "counts.parquet", measured.filter([not twin for twin in twins]))
    with pytest.raises(DataError, match=r"by counts.parquet nothing of 48 .* are converted, and result.json says 24"):
        compare([read_run(one), read_run(other)], split)
    tables.write_parquet(one / "counts.parquet", measured)
    tables.write_parquet(other / "counts.parquet", counts((1, 2), set()))
    with pytest.raises(DataError, match=r"counts.parquet: item 'hard-00', phase eval, run '3': n is 0"):
        compare([read_run(one), read_run(other)], split)


def test_a_result_without_the_unlearnable_group_is_named(split: Split, tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", split, SPREAD), run(tmp_path / "other", split, set())
    told = json.loads((other / "result.json").read_text())
    del told["groups"]["unlearnable"]
    files.write_json(other / "result.json", told)
    with pytest.raises(DataError, match=r"other/result.json, field 'groups': the unlearnable group is missing"):
        compare([read_run(one), read_run(other)], split)


def test_the_split_is_found_or_asked_for(split: Split, tmp_path: Path) -> None:
    folders = [run(tmp_path / name, split, SPREAD, seeds) for name, seeds in (("x", (1, 2, 3)), ("y", (4, 5, 6)))]
    with pytest.raises(SplitError, match="--split"):
        compare([read_run(folder) for folder in folders])
    inside = run(split.path / "positive_control", split, SPREAD)
    assert compare([read_run(inside), read_run(folders[0])]).split == "toy"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("one",), 2, "at least two runs"),
        ((), 2, "at least two runs"),
        (("one", "one"), 2, "given twice"),
        (("one", "--aa"), 2, "takes no DIR"),
        (("one", "other", "--seeds", "3"), 2, "--seeds belongs to --aa"),
        (("--aa", "--seeds", "0"), 2, "--seeds"),
        (("one", "nothing"), 1, "there is no folder nothing"),
        (("one", "empty"), 1, "empty has no result.json"),
        (("one", "broken"), 1, "broken/result.json"),
        (("--aa", "--split", "nothing"), 1, "there is no split 'nothing'"),
    ],
)
def test_wrong_commands(
    words: tuple[str, ...],
    status: int,
    message: str,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "one", split, SPREAD)
    run(tmp_path / "other", split, SPREAD)
    (tmp_path / "empty").mkdir()
    files.write_text(tmp_path / "broken/result.json", "{}")
    left, out, told = cli("compare", *words)
    assert left == status, told
    assert message in told and "Traceback" not in told and out == ""
    assert status == 2 or told.count("\n") == 1


def test_the_command_tells_runs_and_items(split: Split, tmp_path: Path, cli: Any) -> None:
    one = run(tmp_path / "one", split, SPREAD, FOUR, name="[red]evil")
    other = run(tmp_path / "other", split, set(), (5, 6, 7, 8))
    words = ("compare", one, other, "--split", split.path)
    shown, told = cli(*words), cli(*words, "--json")
    assert shown[0] == told[0] == 0, shown[2] + told[2]
    assert shown[2] == told[2] == ""
    assert "[red]evil" in shown[1] and "excludes 0" in shown[1] and "... and 14 more" in shown[1]
    found = json.loads(told[1])
    assert found["pairs"][0]["claim"] == "first" and len(found["pairs"][0]["only_first"]) == 24
    assert [part["setting"] for part in found["differences"]] == ["method", "method source", "seeds"]


def test_the_page_shows_every_item_once_and_escapes_what_methods_are_called(
    split: Split, tmp_path: Path, cli: Any
) -> None:
    one = run(tmp_path / "one", split, {*SPREAD, HARD[40]}, FOUR, name="<script>evil</script>")
    other = run(tmp_path / "other", split, {HARD[40], HARD[41]}, (5, 6, 7, 8))
    status, shown, told = cli("compare", one, other, "--split", split.path, "--out", tmp_path / "page")
    assert status == 0 and told == "" and str(tmp_path / "page/comparison.html") in shown.replace("\n", "")
    page = (tmp_path / "page/comparison.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;evil" in page
    for words in (
        "in both (1)",
        "solved in A alone (24)",
        "in B alone (1)",
        "1 both, 22 neither",
        "A converts more than B",
    ):
        assert words in page
    assert set(re.findall(r"(?:src|href)=\"(?!#)([^\"]*)", page)) == {"comparison.json"}
    assert page.index("A converts more than B") < page.index("Items of A") < page.index("What differs")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    found = json.loads((tmp_path / "page/comparison.json").read_text())
    assert found["item_ids"] == list(HARD) and found["pairs"][0]["both"] == [HARD[40]]
    assert [found["runs"][0]["rates"][HARD.index(name)] for name in ("hard-00", "hard-47")] == [0.5, 1 / 32]


def test_the_page_is_written_though_nobody_reads_on(split: Split, tmp_path: Path) -> None:
    """As with `| head -1`."""
    one, other = run(tmp_path / "one", split, SPREAD), run(tmp_path / "other", split, set(), (4, 5, 6))
    words = ["compare", one, other, "--split", split.path, "--out", tmp_path / "page"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        code = "from unlearnbench.cli import main; main()"
        command = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "page/comparison.html").is_file()


def test_a_comparison_shows_itself_in_a_notebook(split: Split, tmp_path: Path) -> None:
    one = run(tmp_path / "one", split, SPREAD, name="<b>evil</b>")
    other = run(tmp_path / "other", split, set(), (4, 5, 6))
    shown = compare([one, str(other)], split)._repr_html_()
    assert "<b>evil" not in shown and "&lt;b&gt;evil" in shown and "excludes 0" in shown
    assert shown.count("<tr>") == 11 and "and 14 more" in shown
    assert (
        "A/A"
        in compare([read_run(one), run(tmp_path / "again", split, SPREAD, name="<b>evil</b>")], split)._repr_html_()
    )


# --- quick runs -------------------------------------------------------------------------------------------------


def test_quick_runs_are_shown_side_by_side_and_nothing_is_claimed(split: Split, tmp_path: Path, cli: Any) -> None:
    quick = {"comparable": False, "why_not_comparable": "--quick: few steps"}
    one = run(tmp_path / "one", split, SPREAD, (1,), samples=32, **quick)
    other = run(tmp_path / "other", split, set(), (2,), name="n", **quick)
    with pytest.raises(RunError, match="--quick"):
        compare([one, other], split)
    found = pilot([one, other], split)
    rows = {row.name: row for row in found.groups}
    assert list(rows) == ["easy", "unlearnable"] and rows["unlearnable"].items == len(HARD)
    assert rows["unlearnable"].rates == pytest.approx(((0.5 + 1 / 32) / 2, 1 / 32))
    assert [row.items for row in found.families] == [4] * 12
    status, shown, told = cli("compare", "--pilot", one, other, "--split", split.path, "--out", tmp_path / "page")
    assert status == 0 and told == "" and "No claim" in shown
    page = (tmp_path / "page/comparison.html").read_text()
    assert "No claim: a pilot" in page and "95 %" not in page
    assert json.loads(cli("compare", "--pilot", one, other, "--split", split.path, "--json")[1])["groups"]
    assert cli("compare", "--pilot", "--aa")[0] == 2
    with pytest.raises(RunError, match="at least two runs"):
        pilot([one], split)
