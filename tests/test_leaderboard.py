"""The board from outside: entries made of bundles, ranks, answers scored again, rules up to date, commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from made_bundle import altered, in_table, make_bundle, make_run

from unlearnbench.cli.main import run
from unlearnbench.errors import DataError, RunError
from unlearnbench.io import tables
from unlearnbench.io.files import write_bytes, write_json, write_text
from unlearnbench.leaderboard import rerun
from unlearnbench.leaderboard.answer_archive import ANSWERS, counts_of_answers
from unlearnbench.leaderboard.board import board, edition_places, rescore
from unlearnbench.leaderboard.claims import retraining_seeds
from unlearnbench.leaderboard.entries import BoardEntry, Entry, enter, read_entries
from unlearnbench.leaderboard.ranking import holm
from unlearnbench.leaderboard.rerun import difference
from unlearnbench.leaderboard.rules_page import rules
from unlearnbench.leaderboard.verification import verify_bundle
from unlearnbench.records import Result
from unlearnbench.scoring.counts import Cells
from unlearnbench.splits import Split

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def entries(made_split: Split, made_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of two entries: one converts 12 items, the other 48."""
    place = tmp_path_factory.mktemp("board")
    write_json(place / "editions.json", [{"name": "one", "split": made_split.name, "split_hash": made_split.hash}])
    more = make_bundle(make_run(place / "runs" / "more", made_split, converts=48), place / "more.zip")
    enter(made_bundle, place / "entries", id="few", split=made_split, workers=1)
    enter(more, place / "entries", id="many", split=made_split, workers=1)
    return place / "entries"


def test_an_entry_holds_what_the_board_needs(entries: Path, made_run: Path, made_bundle: Path) -> None:
    names = {path.name for path in (entries / "few").iterdir()}
    assert names == {
        *("entry.json", "result.json", "counts.parquet", "fates.parquet", "answers.parquet", "bundle.zip", "my_algo.py")
    }
    assert (entries / "few" / "bundle.zip").read_bytes() == made_bundle.read_bytes()
    found = {one.entry.id: one for one in read_entries(entries)}
    assert found["few"].result == tables.read_json_record(made_run / "result.json", Result)
    assert (found["few"].entry.tier, found["few"].entry.edition, found["few"].entry.tried) == ("re-scored", "one", 1)


def test_an_edition_that_is_still_being_trained_waits_behind_the_older_ones() -> None:
    def of(edition: str, number: int, tier: str = "re-trained") -> list[Entry]:
        told = {"name": "x", "edition": edition, "tier": tier, "source": "x.py", "schema_version": 1}
        return [Entry.model_construct(id=f"{edition}-{k}", **told) for k in range(number)]

    order = ["open", "first", "second"]
    before = [*of("open", 31, "re-scored"), *of("first", 20)]
    assert edition_places(order, before) == {"open": 1, "first": 0, "second": 2}
    assert edition_places(order, [*before, *of("second", 9)]) == {"first": 0, "open": 1, "second": 2}
    assert edition_places(order, [*before, *of("second", 10)]) == {"second": 0, "first": 1, "open": 2}


def test_answers_give_the_counts_again_in_a_part_of_the_space(entries: Path, made_split: Split, made_run: Path) -> None:
    path = entries / "few" / "answers.parquet"
    table = tables.read_parquet(path)
    assert table.schema.names == ANSWERS.names
    assert max(len(tail) for tail in table["tail"].to_pylist()) <= len("\\boxed{1000}")
    made = counts_of_answers(path, made_split).sort_by(
        [("phase", "ascending"), ("item_id", "ascending"), ("run", "ascending")]
    )
    stated = tables.read_counts(made_run / "counts.parquet")
    assert made.equals(stated.sort_by([("phase", "ascending"), ("item_id", "ascending"), ("run", "ascending")]))


def test_ranks_count_the_entries_that_are_significantly_better(entries: Path, made_split: Split) -> None:
    rows = {row.entry.id: row.standing for row in board(read_entries(entries), lambda result: made_split)}
    assert (rows["many"].rank, list(rows["many"].better)) == (1, [])
    assert (rows["few"].rank, list(rows["few"].better)) == (2, ["many"])
    assert rows["many"].gain is not None and rows["many"].gain > (rows["few"].gain or 0)
    assert not rows["many"].claim  # at 1x the strong null must be beaten too, and this split ships none


def test_withdrawn_entries_and_other_tiers_take_no_part(entries: Path, made_split: Split) -> None:
    few, many = read_entries(entries)
    apart = BoardEntry(many.folder, many.entry.model_copy(update={"tier": "re-trained"}), many.result)
    rows = board([few, apart], lambda result: made_split)
    assert [(row.entry.id, row.standing.rank) for row in rows] == [("many", 1), ("few", 1)]
    gone = BoardEntry(many.folder, many.entry.model_copy(update={"withdrawn": "an error"}), many.result)
    rows = board([few, gone], lambda result: made_split)
    assert [(row.entry.id, row.standing.rank) for row in rows] == [("few", 1), ("many", None)]


def test_a_scorer_change_moves_ranks_and_says_so(entries: Path, made_split: Split, tmp_path: Path) -> None:
    found = read_entries(entries)
    moved, again = rescore(found, lambda result: made_split)
    assert [one.moved for one in moved] == [False, False]
    assert again["few"][0] == found[0].result
    # a verifier that reads other answers: what `many` stated counts as something else now
    many = tmp_path / "entries" / "many"
    for one in found:
        for path in one.folder.iterdir():
            write_bytes(tmp_path / "entries" / one.entry.id / path.name, path.read_bytes())
    content = {"answers.parquet": (many / "answers.parquet").read_bytes()}
    in_table(content, "answers.parquet", lambda rows: [row | {"tail": "\\boxed{-1}"} for row in rows])
    write_bytes(many / "answers.parquet", content["answers.parquet"])
    moved, again = rescore(read_entries(tmp_path / "entries"), lambda result: made_split)
    changes = {one.id: (one.rank_before, one.rank_after, one.converted_after) for one in moved}
    assert changes == {"few": (2, 1, 12), "many": (1, 2, 0)}


@pytest.mark.parametrize("rows", [0, 40])
def test_an_entry_whose_counts_are_not_its_results_is_not_ranked(
    entries: Path, made_split: Split, tmp_path: Path, rows: int
) -> None:
    shutil.copytree(entries, tmp_path / "entries")
    path = tmp_path / "entries" / "few" / "counts.parquet"
    tables.write_parquet(path, tables.read_counts(path).slice(0, rows))
    with pytest.raises(DataError, match=r"few: counts\.parquet does not have"):
        board(read_entries(tmp_path / "entries"), lambda result: made_split)


def test_answers_that_no_bundle_holds_are_refused(entries: Path, made_split: Split, tmp_path: Path) -> None:
    answers = tables.read_parquet(entries / "few" / "answers.parquet")
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
    with pytest.raises(RunError, match="no id of an entry"):
        enter(made_bundle, tmp_path / "entries", id="../out", edition="one", split=made_split, workers=1)
    with pytest.raises(RunError, match=r"there is no .*editions\.json here; go to the root of a checkout"):
        enter(made_bundle, tmp_path / "entries", id="new", split=made_split, workers=1)


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
    items, n = len(made_split.ids("unlearnable")), np.full((60, 3), 32)

    def cells(share: float) -> Cells:
        rates = np.where(np.arange(items) % 10 < 10 * share, 0.7, 0.05)
        return Cells(draw.binomial(32, rates[:, None], (items, 3)), n)

    high, same, low = cells(0.6), cells(0.6), cells(0.1)
    assert difference(high, high, made_split) == ("trained again from the source: identical counts", False)
    assert not difference(high, same, made_split)[1]
    assert difference(high, low, made_split)[1]
    assert not difference(low, high, made_split)[1]
    one = Cells(high.correct[:, :1], high.n[:, :1])
    assert difference(one, Cells(low.correct[:, :1], low.n[:, :1]), made_split)[1]


def test_without_a_wall_before_the_network_nothing_foreign_is_trained(
    made_bundle: Path, made_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "available", lambda: ["user", "mounts", "landlock", "audit"])
    found = verify_bundle(made_bundle, made_split, workers=1)
    with pytest.raises(RunError, match=r"cannot keep the method's process from the network.*--allow-network"):
        rerun.retrain(made_bundle, found, made_split, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    assert run([*words, "--name", "Mine", "--workers", "1"]) == 0
    assert (tmp_path / "mine.zip").read_bytes() == made_bundle.read_bytes()
    told = capsys.readouterr().out
    assert "verified: " in told and "Title: Leaderboard: Mine on tiny" in told
    assert "git add leaderboard/entries/my_algo-1x/bundle.zip" in told

    assert run(["leaderboard", "verify", "mine.zip", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"][0]["check"] == "split"
    assert run(["leaderboard", "verify", "mine.zip", "--split", str(made_split.path)]) == 0
    assert capsys.readouterr().out.startswith("verified")


def test_what_is_no_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["submit", str(tmp_path), "--out", "x.zip"]) == 1
    assert "has no result.json" in capsys.readouterr().err
    assert run(["submit", str(tmp_path), "--out", "x.tar"]) == 2
    assert run(["leaderboard", "rescore", "--entries", "none"]) == 1


ENTRY = {"id": "mine", "tier": "re-scored", "tried": 1, "withdrawn": None}
WITHDRAWN = json.dumps(ENTRY | {"withdrawn": "an error"})


@pytest.mark.checkout
@pytest.mark.parametrize(
    ("there", "files", "words"),
    [
        ((), {"mine/bundle.zip": "zip"}, ""),
        ((), {"mine/bundle.zip": "zip", "../../unlearnbench/verifier.py": "x"}, "may not change"),
        ((), {"mine/bundle.zip": "zip", "../../.github/workflows/leaderboard.yml": "x"}, "may not change"),
        ((), {"mine/bundle.zip": "zip", "../editions.json": "[]"}, "may not change"),
        ((), {"a/bundle.zip": "zip", "b/bundle.zip": "zip"}, "changes 2"),
        ((), {"mine/entry.json": "{}"}, "comes with `leaderboard enter`"),
        ((), {"mine/bundle.zip": Path("/etc/passwd")}, "no plain file"),
        ((), {"mine/run.py": "x"}, "may not change"),
        (("mine/bundle.zip", "mine/entry.json"), {"mine/bundle.zip": "other"}, "stays as it is"),
        (("mine/entry.json",), {"mine/bundle.zip": "zip"}, "is an entry already"),
        (("mine/entry.json",), {"mine/entry.json": json.dumps(ENTRY | {"withdrawn": "an error"})}, ""),
        (("mine/entry.json",), {"mine/entry.json": json.dumps(ENTRY | {"withdrawn": 3})}, "a reason of at most"),
        (
            ("mine/entry.json",),
            {"mine/entry.json": json.dumps(ENTRY | {"withdrawn": "an error", "tier": "re-trained"})},
            "in the field 'withdrawn' alone",
        ),
        ((), {"mine-2026-12/bundle.zip": "zip"}, "those of entries trained again"),
        (("mine/bundle.zip",), {"mine/bundle.zip": "other"}, "stays as it is"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN.replace("1", "true")}, "'withdrawn' alone"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN.replace("{", '{"id": "x", ')}, "'withdrawn' alone"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN + " " * 20_000}, "'withdrawn' alone"),
        (("mine/entry.json",), {"mine/entry.json": "\ufeff" + WITHDRAWN}, "'withdrawn' alone"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN.replace("error", "<b>")}, "markup or hidden"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN.replace("error", "\\ud800")}, "markup or hidden"),
        (("mine/entry.json",), {"mine/entry.json": WITHDRAWN.replace("error", "\u202e")}, "markup or hidden"),
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
    assert (tmp_path / "out" / "bundle.zip").is_file() is (not words and not there)


@pytest.mark.checkout
def test_a_withdrawal_is_not_written_again_nor_in_another_encoding(tmp_path: Path) -> None:
    entry = tmp_path / "leaderboard" / "entries" / "mine" / "entry.json"
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
