"""The board from outside: entries made of bundles, ranks, answers scored again, rules up to date, commands."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from made_bundle import BASE, altered, in_table, make_bundle, make_run

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
from unlearnbench.leaderboard.pooling import Score
from unlearnbench.leaderboard.ranking import claimed
from unlearnbench.leaderboard.rules_page import rules
from unlearnbench.records import Result
from unlearnbench.scoring.fates import SCHEMA
from unlearnbench.splits import Split

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def entries(made_split: Split, made_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of two entries: one converts no item, the other most of them."""
    place = tmp_path_factory.mktemp("board")
    write_json(place / "editions.json", [{"name": "one", "split": made_split.name, "split_hash": made_split.hash}])
    less = make_bundle(make_run(place / "runs" / "less", made_split, BASE), place / "less.zip")
    few = enter(less, place / "entries", id="few", tier="self-reported", split=made_split, workers=2)
    # as if it had been measured again, which the other one is
    write_json(few.folder / "entry.json", few.entry.model_copy(update={"tier": "re-measured"}))
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


@pytest.mark.checkout
def test_the_rules_are_up_to_date() -> None:
    stated = (ROOT / "leaderboard" / "RULES.md").read_text(encoding="utf-8")
    assert stated == rules(ROOT / "leaderboard" / "entries"), (
        "unlearnbench leaderboard rules --out leaderboard/RULES.md"
    )


@pytest.mark.slow  # tests/test_verification.py measures the same bundle
def test_submit_measures_what_it_writes(
    made_run: Path, made_split: Split, made_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", str(made_run), "--out", str(tmp_path / "mine.zip"), "--split", str(made_split.path)]
    assert run([*words, "--tried", "1", "--name", "Mine", "--workers", "2"]) == 0
    assert (tmp_path / "mine.zip").read_bytes() == made_bundle.read_bytes()
    assert "drawn again from its weights" in capsys.readouterr().out


def test_submit_writes_a_verified_bundle_and_the_words_of_the_pull_request(
    made_run: Path,
    made_split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["submit", str(made_run), "--out", "mine.zip", "--split", str(made_split.path), "--tried", "1"]
    words.append("--no-weights")
    assert run([*words, "--name", "Mine", "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert "its weights were not measured" in told and "Title: Leaderboard: Mine on made" in told
    assert "git add leaderboard/entries/my_algo-1x/EDITION/bundle.json" in told and "https://ADDRESS/mine.zip" in told
    assert f"EDITION is the newest one of these labels ({made_split.hash[:12]}) in leaderboard/editions.json" in told
    here = told[told.index("<<'END'") + 7 : told.index("    END")]
    ref = BundleRef.model_validate_json(here)
    assert ref.sha256 == sha256((tmp_path / "mine.zip").read_bytes()).hexdigest()

    assert run(["leaderboard", "verify", "mine.zip", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"][0]["check"] == "split"
    assert run([*words, "--address", "javascript:x"]) == 1
    assert "is not a plain address" in capsys.readouterr().err
    assert run([*words, "--address", "https://example.org/mine.zip"]) == 0
    told = capsys.readouterr().out
    assert '"address": "https://example.org/mine.zip"' in told


def test_a_quick_run_is_no_entry_and_has_no_pull_request(
    made_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = make_run(tmp_path / "quick", made_split, seeds=(1,), quick=True)
    assert run(["submit", str(quick), "--out", "quick.zip", "--split", str(made_split.path)]) == 0
    told = capsys.readouterr().out
    assert "not rankable: --quick" in told and "run `eval` without --quick" in told
    assert "git " not in told and "Title:" not in told


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
