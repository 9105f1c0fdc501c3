"""The board from outside: entries made of bundles, ranks, answers scored again, rules up to date, commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_bundle import BASE, altered, in_table, make_bundle, make_run
from made_run import SAMPLES, eval_counts
from scipy.stats import combine_pvalues

from unlearnbench.cli.main import run
from unlearnbench.errors import DataError, RunError
from unlearnbench.io import tables
from unlearnbench.io.files import write_bytes, write_json, write_text
from unlearnbench.leaderboard.answer_archive import ANSWERS, counts_of_answers
from unlearnbench.leaderboard.board import board, edition_places, rescore
from unlearnbench.leaderboard.bundles.address import BundleRef, read_ref
from unlearnbench.leaderboard.bundles.bundle import Statement
from unlearnbench.leaderboard.bundles.writing import write_bundle
from unlearnbench.leaderboard.entries import BoardEntry, Entry, enter, read_entries
from unlearnbench.leaderboard.pooling import Score, fisher, pooled
from unlearnbench.leaderboard.ranking import Contender, claimed, holm, standings
from unlearnbench.leaderboard.rules_page import rules
from unlearnbench.leaderboard.verification import examine, rerun, summed_up
from unlearnbench.leaderboard.verification.claims import retraining_seeds
from unlearnbench.leaderboard.verification.rerun import Trained, difference
from unlearnbench.records import Result
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.fates import SCHEMA
from unlearnbench.splits import Split

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def entries(made_split: Split, made_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of two entries: one converts no item, the other most of them."""
    place = tmp_path_factory.mktemp("board")
    write_json(place / "editions.json", [{"name": "one", "split": made_split.name, "split_hash": made_split.hash}])
    less = make_bundle(make_run(place / "runs" / "less", made_split, BASE), place / "less.zip")
    enter(less, place / "entries", id="few", split=made_split, workers=2)
    enter(made_bundle, place / "entries", id="many", split=made_split, workers=2)
    return place / "entries"


def read_one(entries: Path, name: str) -> BoardEntry:
    return next(one for one in read_entries(entries) if one.entry.id == name)


def test_an_entry_holds_what_the_board_needs(entries: Path, made_run: Path, made_bundle: Path) -> None:
    assert {path.name for path in (entries / "many").iterdir()} == {"one", "my_algo.py"}
    own = {*("entry.json", "result.json", "bundle.json"), *("counts.parquet", "fates.parquet", "curves.parquet")}
    assert {path.name for path in (entries / "many" / "one").iterdir()} == {*own, "answers.parquet"}
    ref = read_ref(entries / "many" / "one" / "bundle.json")
    assert (ref.file, ref.sha256, ref.address) == ("mine.zip", sha256(made_bundle.read_bytes()).hexdigest(), None)
    many = read_one(entries, "many")
    assert many.result == tables.read_json_record(made_run / "result.json", Result)
    assert (many.entry.tier, many.entry.edition, many.entry.tried) == ("re-measured", "one", 1)
    assert (many.entry.class_name, many.entry.sampler) == ("Mine", "transformers")
    fates = tables.read_parquet(made_run / "fates.parquet", SCHEMA)
    assert tables.read_parquet(many.folder / "fates.parquet", SCHEMA).equals(fates)
    assert sum(path.stat().st_size for path in many.folder.iterdir()) < 60_000


def test_an_entry_lies_where_its_id_and_edition_say_and_has_one_source(
    entries: Path, made_bundle: Path, made_split: Split, tmp_path: Path
) -> None:
    board_folder = Path(shutil.copytree(entries, tmp_path / "entries"))
    shutil.move(board_folder / "many" / "one", board_folder / "many" / "two")
    with pytest.raises(DataError, match=r"the entry belongs into .*many/one; move it"):
        read_entries(board_folder)
    shutil.move(board_folder / "many" / "two", board_folder / "many" / "one")
    shutil.copytree(board_folder / "many", board_folder / "more")
    stated = tables.read_json_record(board_folder / "more" / "one" / "entry.json", Entry)
    write_json(board_folder / "more" / "one" / "entry.json", stated.model_copy(update={"trained_from": "more"}))
    with pytest.raises(DataError, match=r"'many' is the id of .*, too"):
        read_entries(board_folder)
    write_text(board_folder / "many" / "my_algo.py", "# another")
    with pytest.raises(RunError, match=r"my_algo\.py is another source than the bundle's"):
        enter(made_bundle, board_folder, id="many", edition="three", tier="self-reported", split=made_split, workers=1)


def test_an_id_is_that_of_one_bundle_and_an_entry_keeps_its_day(
    entries: Path, made_bundle: Path, made_split: Split, tmp_path: Path
) -> None:
    board_folder = tmp_path / "entries"
    write_json(board_folder.parent / "editions.json", [{"name": "one", "split": "made", "split_hash": made_split.hash}])
    first = enter(made_bundle, board_folder, tier="self-reported", split=made_split, workers=1)
    assert (first.entry.id, first.entry.edition) == ("my_algo-1x", "one")
    assert first.entry.entered == datetime.now(UTC).date().isoformat()
    path = first.folder / "entry.json"
    write_json(path, first.entry.model_copy(update={"entered": "2020-02-03"}))
    again = enter(made_bundle, board_folder, tier="self-reported", split=made_split, workers=1)
    assert (again.entry.id, again.entry.entered) == ("my_algo-1x", "2020-02-03")  # the same bundle

    write_json(path, first.entry.model_copy(update={"bundle": "ab" * 32}))
    other = enter(made_bundle, board_folder, tier="self-reported", split=made_split, workers=1)
    assert other.entry.id == "my_algo-1x-2" and len(read_entries(board_folder)) == 2


def test_a_self_reported_entry_is_not_measured(
    made_run: Path, made_split: Split, entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(made_run, tmp_path / "bare.zip", Statement(name="Mine", tried=1), weights=False)
    place = tmp_path / "entries"
    with pytest.raises(RunError, match=r"weights: .* has no weights, so nothing of it can be measured again"):
        enter(tmp_path / "bare.zip", place, id="bare", edition="one", split=made_split, workers=1)
    made = enter(
        tmp_path / "bare.zip", place, id="bare", edition="one", tier="self-reported", split=made_split, workers=1
    )
    assert made.entry.tier == "self-reported" and made.result == read_one(entries, "many").result


@pytest.mark.checkout
def test_the_boards_own_entries_have_their_source_once() -> None:
    entries = ROOT / "leaderboard" / "entries"
    found = read_entries(entries)
    assert len(found) == len(list(entries.glob("*/*/entry.json"))) and not list(entries.glob("*/entry.json"))
    for folder in entries.iterdir():
        own = [one for one in found if one.folder.parent == folder]
        assert own and [path.name for path in folder.iterdir() if path.is_file()] == [own[0].entry.source]
        digest = sha256((folder / own[0].entry.source).read_bytes()).hexdigest()
        assert {one.result.method.source_hash for one in own} == {digest}
    for one in found:
        needed = {"entry.json", "result.json", "counts.parquet", "fates.parquet", "answers.parquet"}
        assert needed <= {path.name for path in one.folder.iterdir()}
        assert one.entry.id in (one.folder.parent.name, f"{one.folder.parent.name}-{one.entry.edition}")


def test_an_edition_that_is_still_being_trained_waits_behind_the_older_ones() -> None:
    def of(edition: str, number: int, tier: str = "re-trained") -> list[Entry]:
        told = {"name": "x", "edition": edition, "tier": tier, "source": "x.py", "schema_version": 1}
        return [Entry.model_construct(id=f"{edition}-{k}", **told) for k in range(number)]

    order = ["open", "first", "second"]
    before = [*of("open", 31, "re-measured"), *of("first", 20)]
    assert edition_places(order, before) == {"open": 1, "first": 0, "second": 2}
    assert edition_places(order, [*before, *of("second", 9)]) == {"first": 0, "open": 1, "second": 2}
    assert edition_places(order, [*before, *of("second", 10)]) == {"second": 0, "first": 1, "open": 2}


def test_answers_give_the_counts_again_in_a_part_of_the_space(entries: Path, made_split: Split, made_run: Path) -> None:
    path = entries / "many" / "one" / "answers.parquet"
    table = tables.read_parquet(path)
    assert table.schema.names == ANSWERS.names
    assert sorted(map(len, table["tail"].to_pylist()))[table.num_rows // 2] <= len("\\boxed{1000}")
    made = counts_of_answers(path, made_split).sort_by(
        [("phase", "ascending"), ("item_id", "ascending"), ("run", "ascending")]
    )
    stated = tables.read_counts(made_run / "counts.parquet")
    assert made.equals(stated.sort_by([("phase", "ascending"), ("item_id", "ascending"), ("run", "ascending")]))


def test_three_seeds_against_three_separate_no_ranks_and_a_claim_needs_the_null_beaten(
    entries: Path, made_split: Split
) -> None:
    rows = {row.entry.id: row.standing for row in board(read_entries(entries), lambda result: made_split)}
    many, few = rows["many"], rows["few"]
    # of the 20 ways to call 3 of 6 runs the method's one is as extreme: p is 0.1 at least, two-sided
    assert (many.rank, few.rank, many.ranked) == ((1, 2), (1, 2), 2)
    assert many.conversion is not None and many.conversion.p == pytest.approx(1 / 286)
    assert many.conversion.adjusted == pytest.approx(2 / 286)  # Holm over the two entries
    assert many.claim and not few.claim
    # a tuned null that is not beaten refutes the claim
    tuned = Score(gain=0.01, interval=(-0.02, 0.04))
    assert claimed(many) and not claimed(many.model_copy(update={"tuned": tuned}))
    assert not claimed(many.model_copy(update={"conversion": many.conversion.model_copy(update={"adjusted": 0.06})}))


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


def test_withdrawn_entries_and_other_tiers_take_no_part(entries: Path, made_split: Split) -> None:
    few, many = read_entries(entries)
    apart = BoardEntry(many.folder, many.entry.model_copy(update={"tier": "re-trained"}), many.result)
    rows = board([few, apart], lambda result: made_split)
    assert [(row.entry.id, row.standing.rank) for row in rows] == [("many", (1, 1)), ("few", (1, 1))]
    gone = BoardEntry(many.folder, many.entry.model_copy(update={"withdrawn": "an error"}), many.result)
    rows = board([few, gone], lambda result: made_split)
    assert [(row.entry.id, row.standing.rank) for row in rows] == [("few", (1, 1)), ("many", None)]


def test_a_scorer_change_moves_ranks_and_says_so(entries: Path, made_split: Split, tmp_path: Path) -> None:
    found = read_entries(entries)
    moved, again = rescore(found, lambda result: made_split)
    assert [one.moved for one in moved] == [False, False]
    assert again["few"][0] == found[0].result
    # a verifier that reads other answers: what `many` stated counts as something else now
    shutil.copytree(entries, tmp_path / "entries")
    many = tmp_path / "entries" / "many" / "one"
    content = {"answers.parquet": (many / "answers.parquet").read_bytes()}
    in_table(content, "answers.parquet", lambda rows: [row | {"tail": "\\boxed{-1}"} for row in rows])
    write_bytes(many / "answers.parquet", content["answers.parquet"])
    moved, again = rescore(read_entries(tmp_path / "entries"), lambda result: made_split)
    changes = {one.id: (one.rank_before, one.rank_after, one.converted_after) for one in moved}
    assert changes == {"few": ((1, 2), (1, 2), 0), "many": ((1, 2), (1, 2), 0)}
    assert all(one.gain_after is not None and one.gain_after <= 0 for one in moved)


@pytest.mark.parametrize("rows", [0, 40])
def test_an_entry_whose_counts_are_not_its_results_is_not_ranked(
    entries: Path, made_split: Split, tmp_path: Path, rows: int
) -> None:
    shutil.copytree(entries, tmp_path / "entries")
    path = tmp_path / "entries" / "few" / "one" / "counts.parquet"
    tables.write_parquet(path, tables.read_counts(path).slice(0, rows))
    with pytest.raises(DataError, match=r"few: counts\.parquet does not have"):
        board(read_entries(tmp_path / "entries"), lambda result: made_split)


def test_answers_that_no_bundle_holds_are_refused(entries: Path, made_split: Split, tmp_path: Path) -> None:
    answers = tables.read_parquet(entries / "few" / "one" / "answers.parquet")
    many = pa.array([2**62] * answers.num_rows, pa.int64())
    path = tmp_path / "answers.parquet"
    tables.write_parquet(path, answers.set_column(answers.column_names.index("count"), "count", many))
    with pytest.raises(DataError, match=f"with count {2**62}"):
        counts_of_answers(path, made_split)


def test_a_refused_bundle_makes_no_entry(entries: Path, made_bundle: Path, made_split: Split, tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        in_table(members, "counts.parquet", lambda rows: rows[0].update(correct=32))

    bad = altered(made_bundle, tmp_path / "bad.zip", change)
    with pytest.raises(RunError, match="is refused, so it makes no entry: counts"):
        enter(bad, tmp_path / "entries", id="bad", edition="one", split=made_split, workers=1)
    assert not (tmp_path / "entries").exists()
    with pytest.raises(RunError, match="cannot be an entry's id"):
        enter(made_bundle, tmp_path / "entries", id="../out", edition="one", tier="self-reported", split=made_split)
    with pytest.raises(RunError, match=r"there is no .*editions\.json here; go to the root of a checkout"):
        enter(made_bundle, tmp_path / "entries", id="new", tier="self-reported", split=made_split)


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


@pytest.mark.checkout
def test_the_rules_are_up_to_date() -> None:
    stated = (ROOT / "leaderboard" / "RULES.md").read_text(encoding="utf-8")
    assert stated == rules(ROOT / "leaderboard" / "entries"), (
        "unlearnbench leaderboard rules --out leaderboard/RULES.md"
    )


@pytest.mark.checkout
def test_the_workflow_gives_a_pull_request_no_rights() -> None:
    text = (ROOT / ".github/workflows/leaderboard.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert list(workflow[True]) == ["pull_request"]  # YAML reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text and "pull_request_target" not in text
    # a push after the label must not run: the code that a maintainer read is that of the event which gave the label
    gate = workflow["jobs"]["rerun"]["if"]
    assert "github.event.action == 'labeled'" in gate and "github.event.label.name == 'run-this-code'" in gate
    for name, job in workflow["jobs"].items():
        runs = [step.get("run", "") for step in job["steps"]]
        assert any("leaderboard/changed.py" in line for line in runs)
        assert any("--rerun" in line for line in runs) is (name == "rerun")
        assert all("--network none" in line for line in runs if "--rerun" in line)
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        checkouts = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)
        assert checkouts[0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
        # what a stranger chose never becomes part of a command
        assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_submit_writes_a_verified_bundle_and_the_words_of_the_pull_request(
    made_run: Path,
    made_split: Split,
    made_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["submit", str(made_run), "--out", "mine.zip", "--split", str(made_split.path), "--tried", "1"]
    assert run([*words, "--name", "Mine", "--workers", "2"]) == 0
    assert (tmp_path / "mine.zip").read_bytes() == made_bundle.read_bytes()
    told = capsys.readouterr().out
    assert "drawn again from its weights" in told and "Title: Leaderboard: Mine on made" in told
    assert "git add leaderboard/entries/my_algo-1x/EDITION/bundle.json" in told and "https://ADDRESS/mine.zip" in told
    assert f"EDITION is the newest one of these labels ({made_split.hash[:12]}) in leaderboard/editions.json" in told
    here = told[told.index("<<'END'") + 7 : told.index("    END")]
    ref = BundleRef.model_validate_json(here)
    assert ref.sha256 == sha256(made_bundle.read_bytes()).hexdigest()

    assert run(["leaderboard", "verify", "mine.zip", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"][0]["check"] == "split"
    assert run([*words, "--no-weights", "--address", "javascript:x"]) == 1
    assert "is no plain address" in capsys.readouterr().err
    assert run([*words, "--no-weights", "--address", "https://example.org/mine.zip"]) == 0
    told = capsys.readouterr().out
    assert "its weights were not measured" in told and '"address": "https://example.org/mine.zip"' in told


def test_what_an_entry_shows_without_its_bundle(
    entries: Path, made_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(entries.parent, tmp_path / "board")) / "entries" / "many" / "one"
    words = ["leaderboard", "verify", str(folder), "--split", str(made_split.path), "--workers", "1"]
    assert run(words) == 1
    told = capsys.readouterr().out
    assert told.startswith("not verified") and "the bundle is not published" in told
    assert "judged again, give its counts, and these its result" in told
    assert run([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verified"], found["measured"], found["reasons"]) == (False, False, [])

    def refused() -> str:
        assert run(words) == 1
        return capsys.readouterr().out

    counts = tables.read_counts(folder / "counts.parquet")
    rows = counts.to_pylist()
    rows[0]["correct"] = (rows[0]["correct"] + 1) % 33
    tables.write_parquet(folder / "counts.parquet", pa.Table.from_pylist(rows, schema=counts.schema))
    assert "correct stated" in refused()
    tables.write_parquet(folder / "counts.parquet", counts)
    stated = json.loads((folder / "result.json").read_text())
    stated["conversion"]["gain"] = 0.99
    write_json(folder / "result.json", stated)
    assert "'conversion.gain': 0.99 is stated" in refused()
    write_text(folder.parent / "my_algo.py", "# another")
    assert "is not the source that result.json names" in refused()
    assert run(["leaderboard", "verify", str(tmp_path)]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_what_is_no_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["submit", str(tmp_path), "--out", "x.zip"]) == 1
    assert "has no result.json" in capsys.readouterr().err
    assert run(["submit", str(tmp_path), "--out", "x.tar"]) == 2
    assert run(["leaderboard", "rescore", "--entries", "none"]) == 1


ENTRY = {"id": "mine", "tier": "re-measured", "tried": 1, "withdrawn": None}
WITHDRAWN = json.dumps(ENTRY | {"withdrawn": "an error"})


@pytest.mark.checkout
@pytest.mark.parametrize(
    ("there", "files", "words"),
    [
        ((), {"mine/open/bundle.json": "{}"}, ""),
        ((), {"mine/open/bundle.json": "{}", "../../unlearnbench/verifier.py": "x"}, "may not change"),
        ((), {"mine/open/bundle.json": "{}", "../../.github/workflows/leaderboard.yml": "x"}, "may not change"),
        ((), {"mine/open/bundle.json": "{}", "../editions.json": "[]"}, "may not change"),
        ((), {"a/open/bundle.json": "{}", "b/open/bundle.json": "{}"}, "changes 2"),
        ((), {"mine/open/entry.json": "{}"}, "comes with `leaderboard enter`"),
        ((), {"mine/open/bundle.json": Path("/etc/passwd")}, "not a plain file"),
        ((), {"mine/open/run.py": "x"}, "may not change"),
        ((), {"mine/bundle.json": "{}"}, "may not change"),
        ((), {"mine/open/bundle.zip": "x"}, "may not change"),
        ((), {"mine/open/bundle.json": " " * 20_000}, "has more than 10,000 bytes"),
        ((), {"mine/open/bundle.json": "{}", "mine/two/bundle.json": "{}"}, "changes 2"),
        (("mine/open/entry.json",), {"mine/two/bundle.json": "{}"}, "is an entry already"),
        (("mine/open/bundle.json", "mine/open/entry.json"), {"mine/open/bundle.json": "other"}, "stays as it is"),
        (("mine/open/entry.json",), {"mine/open/bundle.json": "{}"}, "is an entry already"),
        (("mine/open/entry.json",), {"mine/open/entry.json": json.dumps(ENTRY | {"withdrawn": "an error"})}, ""),
        (
            ("mine/open/entry.json",),
            {"mine/open/entry.json": json.dumps(ENTRY | {"withdrawn": 3})},
            "a reason of at most",
        ),
        (
            ("mine/open/entry.json",),
            {"mine/open/entry.json": json.dumps(ENTRY | {"withdrawn": "an error", "tier": "re-trained"})},
            "in the field 'withdrawn' alone",
        ),
        ((), {"mine-2026-12/open/bundle.json": "{}"}, "those of entries trained again"),
        (("mine/open/bundle.json",), {"mine/open/bundle.json": "other"}, "stays as it is"),
        (("mine/open/entry.json",), {"mine/open/entry.json": WITHDRAWN.replace("1", "true")}, "'withdrawn' alone"),
        (
            ("mine/open/entry.json",),
            {"mine/open/entry.json": WITHDRAWN.replace("{", '{"id": "x", ')},
            "'withdrawn' alone",
        ),
        (("mine/open/entry.json",), {"mine/open/entry.json": WITHDRAWN + " " * 20_000}, "'withdrawn' alone"),
        (("mine/open/entry.json",), {"mine/open/entry.json": "\ufeff" + WITHDRAWN}, "'withdrawn' alone"),
        (("mine/open/entry.json",), {"mine/open/entry.json": WITHDRAWN.replace("error", "<b>")}, "markup or hidden"),
        (
            ("mine/open/entry.json",),
            {"mine/open/entry.json": WITHDRAWN.replace("error", "\\ud800")},
            "markup or hidden",
        ),
        (("mine/open/entry.json",), {"mine/open/entry.json": WITHDRAWN.replace("error", "\u202e")}, "markup or hidden"),
    ],
)
def test_a_pull_request_changes_one_entry_and_nothing_else(
    there: tuple[str, ...], files: dict[str, str | Path], words: str, tmp_path: Path
) -> None:
    entries = tmp_path / "repo" / "leaderboard" / "entries"

    def git(*line: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *line], cwd=tmp_path / "repo", capture_output=True, text=True, check=True)
        return done.stdout.strip()

    (tmp_path / "repo").mkdir()
    git("init", "-q")
    for name in there:
        write_text(entries / name, json.dumps(ENTRY))
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", "base")
    base = git("rev-parse", "HEAD")
    for name, content in files.items():
        place = Path(os.path.normpath(entries / name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(content) if isinstance(content, Path) else place.write_text(content)
    git("add", "-A")
    git("commit", "-q", "-m", "entry")
    script = str(ROOT / "leaderboard" / "changed.py")
    line = [sys.executable, script, base, git("rev-parse", "HEAD"), str(tmp_path / "out")]
    done = subprocess.run(line, cwd=tmp_path / "repo", capture_output=True, text=True, check=False)
    assert done.returncode == bool(words) and words in done.stderr
    # of a withdrawal there is nothing to verify
    assert (tmp_path / "out" / "bundle.json").is_file() is (not words and not there)


@pytest.mark.checkout
def test_a_withdrawal_is_not_written_again_nor_in_another_encoding(tmp_path: Path) -> None:
    entry = tmp_path / "leaderboard" / "entries" / "mine" / "open" / "entry.json"
    entry.parent.mkdir(parents=True)

    def git(*line: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *line], cwd=tmp_path, capture_output=True, check=True)

    def refused(before: str, after: bytes) -> str:
        for content in (before.encode(), after):
            entry.write_bytes(content)
            git("add", "-A")
            git("commit", "-q", "--allow-empty", "-m", "x")
        line = [sys.executable, str(ROOT / "leaderboard" / "changed.py"), "HEAD~1", "HEAD", str(tmp_path / "out")]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False).stderr

    git("init", "-q")
    assert refused(json.dumps(ENTRY), WITHDRAWN.encode()) == ""
    assert "withdrawn already" in refused(WITHDRAWN, WITHDRAWN.replace("error", "honour").encode())
    assert "'withdrawn' alone" in refused(json.dumps(ENTRY), WITHDRAWN.encode("utf-16"))


@pytest.mark.checkout
def test_histories_that_cannot_be_compared_are_one_sentence(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    line = [sys.executable, str(ROOT / "leaderboard" / "changed.py"), "a", "b", str(tmp_path / "out")]
    told = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1 and told.stderr.startswith("refused: git cannot compare b with a")
