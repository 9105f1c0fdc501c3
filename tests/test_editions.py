"""An edition closed and its entries trained again: what the commit must hold, what is drawn from it, who takes part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from made_bundle import make_run
from tiny import rehash

from unlearnbench.cli.main import run
from unlearnbench.errors import MethodError, RunError, SplitError
from unlearnbench.harness.evaluate import evaluate_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.board import board
from unlearnbench.leaderboard.close_edition import close, drawn_seed
from unlearnbench.leaderboard.editions import Beacon, Edition, editions, find_splits, published, round_after
from unlearnbench.leaderboard.entries import BoardEntry, Entry, enter, read_entries
from unlearnbench.leaderboard.retrain_edition import (
    Means,
    enter_run,
    find_edition,
    ordered,
    retrain_entry,
    take_part,
)
from unlearnbench.leaderboard.site.board_page import lines
from unlearnbench.leaderboard.site.build import command
from unlearnbench.leaderboard.verification.claims import retraining_seeds
from unlearnbench.methods import locate
from unlearnbench.records import SplitConfig
from unlearnbench.splits import Split, load_split

WHO = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]


WHEN = 1_750_000_000
"""When everything is committed, in seconds since 1970: rounds of the beacon an hour later are long published."""
VALUE = "0123456789abcdef" * 4


def git(repo: Path, *words: str, when: int = WHEN) -> str:
    dated = os.environ | {"GIT_COMMITTER_DATE": f"{when} +0000", "GIT_AUTHOR_DATE": f"{when} +0000"}
    done = subprocess.run(["git", *WHO, *words], cwd=repo, capture_output=True, text=True, check=True, env=dated)
    return done.stdout.strip()


def drawn(entries: Path, name: str = "two") -> str:
    """What --beacon is given for an edition: its round, and a value."""
    return f"{close(name, entries).round}:{VALUE}"


def commit_all(repo: Path) -> str:
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "--allow-empty", "-m", "entries")
    return git(repo, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def entered(made_split: Split, made_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose board has one entry, `mine`, committed."""
    repo = tmp_path_factory.mktemp("closing") / "repo"
    board_folder = repo / "leaderboard"
    files.write_json(
        board_folder / "editions.json", [{"name": "open", "split": made_split.name, "split_hash": made_split.hash}]
    )
    enter(made_bundle, board_folder / "entries", id="mine", tier="self-reported", split=made_split, workers=1)
    git(repo.parent, "init", "-q", str(repo))
    commit_all(repo)
    return repo


@pytest.fixture
def repo(entered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(entered, tmp_path / "repo"))


def variant(made_split: Split, folder: Path, seed: int, tuned: bool = True) -> Split:
    """A split that says that it was made from this seed."""
    shutil.copytree(made_split.path, folder)
    config = tables.read_yaml_record(folder / "split.yaml", SplitConfig)
    named = config.model_copy(update={"name": f"micro-{seed}", "seed": seed})
    files.write_text(folder / "split.yaml", json.dumps(named.model_dump(mode="json")))
    rehash(folder)
    if tuned:
        shutil.copytree(folder / "null_control" / "1x", folder / "tuned_null" / "1.4")
    return load_split(folder)


def closed(repo: Path, made_split: Split, folder: Path) -> tuple[Edition, Split]:
    """The repository's edition `two`, closed, with its variant."""
    entries = repo / "leaderboard" / "entries"
    value = drawn(entries)
    seed = close("two", entries, value=value).seed
    assert seed is not None
    split = variant(made_split, folder, seed)
    close("two", entries, value=value, split=split)
    return find_edition(entries, "two", split.path)[0], split


def test_the_seed_of_a_variant_follows_from_edition_and_commit() -> None:
    commit = "ccec98b8a582b067375f4acfeb2d0900b6265163"
    bits = f"{int(sha256(f'2026-11/{commit}'.encode()).hexdigest()[:8], 16):032b}"
    assert bits[0] == "0" and drawn_seed("2026-11", commit) == int(bits, 2) == 1409396168
    first = next(name for name in map(str, range(9)) if sha256(f"{name}/{commit}".encode()).digest()[0] > 127)
    assert drawn_seed(first, commit) == int(sha256(f"{first}/{commit}".encode()).hexdigest()[:8], 16) - 2**31
    # with a beacon, what is drawn follows from its round and value, too
    text = f"2027-01/{commit}/123/{VALUE}"
    assert drawn_seed("2027-01", commit, Beacon(round=123, value=VALUE)) == int(
        f"{int(sha256(text.encode()).hexdigest()[:8], 16):032b}"[1:], 2
    )


@pytest.mark.checkout
def test_the_boards_editions_can_be_drawn_again() -> None:
    for edition in editions(Path(__file__).parents[1] / "leaderboard" / "entries"):
        if edition.drawn_from is not None:
            assert drawn_seed(edition.name, edition.drawn_from, edition.beacon) == edition.variant


def test_a_round_is_the_first_one_an_hour_after_the_commit() -> None:
    # drand's own arithmetic: round = 1 + floor((time - genesis) / period), for a time at which a round is published
    for when in (WHEN, WHEN + 1, WHEN + 2, WHEN + 3):
        found = round_after(when)
        assert published(found) >= when + 3600 > published(found - 1)
        assert found == 1 + (published(found) - 1_692_803_367) // 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{round}", "is not ROUND:VALUE"),
        ("{round}:", "is not ROUND:VALUE"),
        ("{round}:0123", "is not ROUND:VALUE"),
        (f"{{round}}:{VALUE.upper()}", "is not ROUND:VALUE"),
        (f"{{round}}:{VALUE}00", "is not ROUND:VALUE"),
        (f"-1:{VALUE}", "is not ROUND:VALUE"),
        (f"seven:{VALUE}", "is not ROUND:VALUE"),
        (f"7:{VALUE}", "draws from round"),
    ],
)
def test_a_value_that_is_malformed_or_of_another_round(repo: Path, value: str, words: str) -> None:
    entries = repo / "leaderboard" / "entries"
    closed_ = close("two", entries)
    assert closed_.seed is None and closed_.round == round_after(WHEN) and str(closed_.round) in closed_.address
    with pytest.raises(RunError, match=words):
        close("two", entries, value=value.format(round=closed_.round))


def test_a_round_that_is_not_published_yet_is_waited_for(repo: Path) -> None:
    entries = repo / "leaderboard" / "entries"
    git(repo, "commit", "-q", "--allow-empty", "-m", "now", when=int(time.time()))
    with pytest.raises(RunError, match=r"is published at .* UTC; wait until then"):
        close("two", entries, value=drawn(entries))
    with pytest.raises(RunError, match="has no seed yet"):
        close("two", entries, split=load_split("micro"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("mine/my_algo.py", "changed", r"mine/my_algo.py is not in commit"),
        ("mine/open/more.txt", "untracked", r"mine/open/more.txt is not in commit"),
        ("late/open/bundle.json", "not entered", r"late/open has no entry.json yet"),
    ],
)
def test_a_commit_closes_only_what_it_holds(repo: Path, file: str, content: str, words: str) -> None:
    entries = repo / "leaderboard" / "entries"
    before = close("two", entries)
    files.write_text(entries / file, content)
    with pytest.raises(RunError, match=words):
        close("two", entries)
    if "late" not in file:
        commit = commit_all(repo)
        assert close("two", entries).commit == commit != before.commit
        with pytest.raises(RunError, match="is not in commit"):
            close("two", entries, before.commit)


def test_no_such_commit_is_one_sentence(repo: Path) -> None:
    with pytest.raises(RunError, match="there is no commit 'nowhere'"):
        close("two", repo / "leaderboard" / "entries", "nowhere")


def test_an_edition_is_written_with_the_variant_that_was_drawn(
    repo: Path, made_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = repo / "leaderboard" / "entries"
    value = drawn(entries)
    assert run(["leaderboard", "close", "two", "--entries", str(entries)]) == 0
    assert f"--beacon {value.partition(':')[0]}:VALUE" in capsys.readouterr().out
    seed = close("two", entries, value=value).seed
    assert seed is not None and seed == drawn_seed(
        "two", git(repo, "rev-parse", "HEAD"), Beacon(round=int(value.partition(":")[0]), value=VALUE)
    )
    assert run(["leaderboard", "close", "two", "--entries", str(entries), "--beacon", value]) == 0
    assert f"make micro SEED={seed}" in (said := capsys.readouterr().out) and f"--beacon {value} --split" in said
    with pytest.raises(RunError, match=f"with seed 7, and edition two drew the seed {seed}"):
        close("two", entries, value=value, split=variant(made_split, tmp_path / "seven", 7))
    with pytest.raises(RunError, match="has no tuned_null yet"):
        close("two", entries, value=value, split=variant(made_split, tmp_path / "early", seed, tuned=False))
    assert [edition.name for edition in editions(entries)] == ["open"]

    split = variant(made_split, tmp_path / "build" / "variant", seed)
    done = close("two", entries, value=value, split=split)
    commit = git(repo, "rev-parse", "HEAD")
    beacon = Beacon(round=int(value.partition(":")[0]), value=VALUE)
    assert editions(entries)[-1] == Edition(
        name="two", split=split.name, split_hash=split.hash, variant=seed, drawn_from=commit, beacon=beacon
    )
    assert list(done.missing) == ["null_control/4x", "positive_control"]
    kept = Split(entries.parent / "editions" / "two")
    assert (kept.hash, kept.items, kept.canaries) == (split.hash, split.items, split.canaries)
    # it can be trained on without the variant's folder, on any machine
    assert find_edition(entries, "two")[1].hash == split.hash
    weights = "policy/model.safetensors"
    assert (kept.path / weights).read_bytes() == (split.path / weights).read_bytes()
    (split.path / "similar.parquet").write_bytes(b"problems")
    # what is made later is brought by the same call, whatever was committed meanwhile; another commit is refused
    shutil.copytree(split.path / "null_control" / "1x", split.path / "null_control" / "4x")
    later = commit_all(repo)
    assert close("two", entries, split=split).missing == ["positive_control"]
    assert kept.control("null_control", "4x") is not None and len(editions(entries)) == 2
    assert (kept.path / "similar.parquet").read_bytes() == b"problems"
    shutil.rmtree(kept.path / "policy")
    with pytest.raises(RunError, match=r"has no policy, so nothing can be trained on it; name with --split"):
        find_edition(entries, "two")
    assert find_edition(entries, "two", split.path)[1].path == split.path
    with pytest.raises(RunError, match="edition two is there already, closed by commit"):
        close("two", entries, later)


def test_who_takes_part_is_what_the_closing_commit_holds(repo: Path, made_split: Split, tmp_path: Path) -> None:
    entries = repo / "leaderboard" / "entries"
    edition, split = closed(repo, made_split, tmp_path / "variant")
    mine = ordered(entries, [], edition)[0]
    again = take_part(mine, edition, split)
    assert again.seeds == retraining_seeds(sha256(again.source).hexdigest(), split.hash)
    assert again.id == "mine-two" and again.source == mine.source.read_bytes()
    # a source that was changed after the edition was closed is not what is trained
    files.write_text(mine.source, "raise SystemExit")
    assert take_part(mine, edition, split).source == again.source
    # nor is a class or sampler that entry.json names since
    files.write_json(mine.folder / "entry.json", mine.entry.model_copy(update={"class_name": "Other"}))
    assert take_part(mine, edition, split).then.class_name == "Mine"

    late = Path(shutil.copytree(mine.folder.parent, entries / "late")) / "open"
    stated = tables.read_json_record(late / "entry.json", Entry).model_copy(update={"id": "late"})
    files.write_json(late / "entry.json", stated)
    commit_all(repo)
    assert [one.entry.id for one in ordered(entries, [], edition)] == ["mine"]
    reason = retrain_entry(read_entries(entries)[0], edition, split, tmp_path / "out", entries).why
    assert reason is not None and "was not there when edition two was closed" in reason
    gone = BoardEntry(mine.folder, mine.entry.model_copy(update={"withdrawn": "an error"}), mine.result)
    assert retrain_entry(gone, edition, split, tmp_path / "out", entries).why == "it is withdrawn: an error"
    shutil.rmtree(split.path / "null_control")
    missing = retrain_entry(mine, edition, split, tmp_path / "out", entries).why
    assert missing is not None and "has no null_control/1x yet" in missing
    assert not (tmp_path / "out").exists()


def test_an_edition_that_was_closed_in_the_earlier_layout_is_trained_again(
    repo: Path, made_split: Split, tmp_path: Path
) -> None:
    """Commits of before have an entry's files, its source too, in <id>/."""
    entries = repo / "leaderboard" / "entries"
    for path in (entries / "mine" / "open").iterdir():
        path.rename(entries / "mine" / path.name)
    (entries / "mine" / "open").rmdir()
    commit = commit_all(repo)
    (entries / "mine" / "open").mkdir()
    for path in [path for path in (entries / "mine").iterdir() if path.is_file() and path.suffix != ".py"]:
        path.rename(entries / "mine" / "open" / path.name)
    commit_all(repo)
    edition = Edition(name="two", split="x", split_hash="y", variant=1, drawn_from=commit)
    mine = read_entries(entries)[0]
    assert [one.entry.id for one in ordered(entries, [], edition)] == ["mine"]
    assert take_part(mine, edition, made_split).source == mine.source.read_bytes()


@pytest.mark.slow
def test_a_run_trained_again_becomes_an_entry_beside_the_first_and_is_shown_first(
    repo: Path, made_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = repo / "leaderboard" / "entries"
    edition, split = closed(repo, made_split, tmp_path / "variant")
    mine = ordered(entries, ["mine"], edition)[0]
    again = take_part(mine, edition, split)
    # the run's files as `evaluate` leaves them, with the seeds that nobody chose
    make_run(tmp_path / "out" / "mine" / "run", split, seeds=tuple(again.seeds))
    made = enter_run(again, edition, split, tmp_path / "out" / "mine", entries, workers=2)
    assert made.folder == entries / "mine" / "two" and not list(made.folder.glob("*.zip"))
    assert (made.entry.id, made.entry.tier, made.entry.edition) == ("mine-two", "re-trained", "two")
    assert made.entry.trained_from == "mine" and made.source == mine.source
    assert (made.entry.tried, made.result.split_hash) == (mine.entry.tried, split.hash)
    told = retrain_entry(mine, edition, split, tmp_path / "out", entries)
    assert told.before and told.made is not None and told.made.result == made.result  # it is not trained once more

    shutil.rmtree(split.path)  # anybody's clone: the variant was never made there
    words = ["--entries", str(entries), "--split", str(made_split.path), "--json"]
    assert run(["leaderboard", "standings", *words]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["entry"]["id"], row["standing"]["rank"]) for row in rows] == [("mine-two", [1, 1]), ("mine", [1, 1])]
    assert run(["leaderboard", "standings", *words, "--edition", "two"]) == 0
    assert [row["entry"]["id"] for row in json.loads(capsys.readouterr().out)] == ["mine-two"]
    assert run(["leaderboard", "standings", *words, "--track", "answer"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    find = find_splits(entries, [made_split.path])
    shown = lines(read_entries(entries), find, lambda split: split.name, editions(entries))
    assert [(line.id, line.edition) for line in shown] == [
        ("mine-two", "pooled"),
        ("mine-two", "two"),
        ("mine", "pooled"),
        ("mine", "open"),
    ]
    seed, kept = edition.variant, find(made.result)
    again = "unlearnbench leaderboard retrain --again --edition two"
    assert command(shown[1], kept, entries) == f"{again} mine"
    shutil.rmtree(kept.path / "policy")
    assert command(shown[1], kept, entries) == f"make micro SEED={seed} && {again} --split build/micro-{seed} mine"
    assert run(["leaderboard", "rescore", *words]) == 0
    assert [row["moved"] for row in json.loads(capsys.readouterr().out)] == [False, False]
    shutil.rmtree(entries.parent / "editions")
    with pytest.raises(SplitError, match="is not shipped here"):
        board(read_entries(entries), find_splits(entries, [made_split.path]))


def test_a_bundle_of_other_seeds_makes_no_re_trained_entry(repo: Path, made_split: Split, tmp_path: Path) -> None:
    edition, split = closed(repo, made_split, tmp_path / "variant")
    again = take_part(ordered(repo / "leaderboard" / "entries", [], edition)[0], edition, split)
    make_run(tmp_path / "mine" / "run", split, seeds=(4, 5, 6))
    with pytest.raises(RunError, match="holds a run of the seeds 4, 5, 6"):
        enter_run(again, edition, split, tmp_path / "mine", repo / "leaderboard" / "entries", workers=1)


def test_what_was_trained_again_is_withdrawn_with_its_origin(repo: Path) -> None:
    entries = repo / "leaderboard" / "entries"
    mine = read_entries(entries)[0]
    shutil.copytree(mine.folder, entries / "mine" / "two")
    changes = {"id": "mine-two", "tier": "re-trained", "edition": "two", "trained_from": "mine"}
    files.write_json(entries / "mine" / "two" / "entry.json", mine.entry.model_copy(update=changes))
    assert [one.entry.withdrawn for one in read_entries(entries)] == [None, None]
    files.write_json(mine.folder / "entry.json", mine.entry.model_copy(update={"withdrawn": "a leak"}))
    assert [one.entry.withdrawn for one in read_entries(entries)] == ["a leak", "a leak"]


def test_an_open_edition_or_another_split_is_refused(
    repo: Path, made_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = repo / "leaderboard" / "entries"
    _, split = closed(repo, made_split, tmp_path / "variant")
    line = ["leaderboard", "retrain", "--entries", str(entries), "--out", str(tmp_path / "out")]
    for words, told in (
        (["--edition", "open", "--split", str(made_split.path)], "has no sealed variant"),
        (["--edition", "two", "--split", str(made_split.path)], "leave --split out, or name the folder that"),
        (["--edition", "three", "--split", str(split.path)], "there is no edition 'three'"),
        (["other", "--edition", "two", "--split", str(split.path)], "there is no entry 'other'"),
    ):
        assert run([*line, *words]) == 1
        assert told in capsys.readouterr().err


def test_why_an_entry_could_not_be_trained_again_is_its_outcome(repo: Path, made_split: Split, tmp_path: Path) -> None:
    entries = repo / "leaderboard" / "entries"
    edition, split = closed(repo, made_split, tmp_path / "variant")
    (split.policy_path / "model.safetensors").write_bytes(b"no weights")
    mine = ordered(entries, [], edition)[0]
    told = retrain_entry(mine, edition, split, tmp_path / "out", entries, Means(allow_network=True))
    assert told.made is None and told.why is not None
    assert "policy" in told.why and "\n" not in told.why and "unexpected" not in told.why


LOOKS = """
import pathlib
import unlearnbench as ub

class Looks(ub.Method):
    def setup(self):
        raise ValueError(f"there are {len(pathlib.Path(FILE).read_bytes())} bytes")
"""


def test_what_the_board_keeps_of_a_variant_is_hidden_from_what_is_trained_again(
    small_split: Split, tmp_path: Path
) -> None:
    package = tmp_path / "beside"  # a method may read the packages that lie beside its file
    kept = package / "editions" / "two" / "items.parquet"
    files.write_text(package / "__init__.py", "")
    files.write_text(kept, "labels")
    method = tmp_path / "looks.py"
    method.write_text(LOOKS.replace("FILE", repr(str(kept))))
    config = RunConfig(split=small_split, method=locate(str(method)), seeds=(1,), samples=2, quick=True)
    with pytest.raises(MethodError, match="there are 6 bytes"):
        evaluate_run(config, tmp_path / "seen")
    with pytest.raises(MethodError, match=r"PermissionError|FileNotFoundError"):
        evaluate_run(replace(config, hidden=(kept.parent,)), tmp_path / "hidden")
