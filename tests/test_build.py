"""Splits that travel as ids: joined with texts that the user obtains, checked, and refused when they do not fit."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paperlike
import pytest
from click.testing import CliRunner
from paperlike import EASY_TO_LEARN, HARD, HEAD, POSITIONS, TAIL

from unlearnbench.cli.main import run as command_line
from unlearnbench.cli.splits import splits as command
from unlearnbench.curation.build import build
from unlearnbench.curation.validate import validate
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import RelatedProblem
from unlearnbench.splits import Split, find_split, load_split
from unlearnbench.splits import split as split_module
from unlearnbench.splits.manifest import BUILT, RELEASED, built_of, released_of, waits
from unlearnbench.splits.source_dataset import INSTRUCTION
from unlearnbench.splits.split import shipped_folder


class Place:
    """A shelf with the split `paper`, a source, and the released files."""

    def __init__(self, root: Path) -> None:
        self.artifacts, self.out = root / "artifacts", root / "out"
        self.entries = paperlike.write_artifacts(self.artifacts)
        self.source = paperlike.write_source(root / "source")
        self.shelf = root / "shelf"
        self.split = paperlike.write_split(self.shelf / "paper", self.entries)

    def build(self, **changes: Any) -> Split:
        given: dict[str, Any] = {"source": self.source, "artifacts": str(self.artifacts), "out": self.out}
        return build(self.split, **given | changes)[0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr(split_module, "SHELVES", (made.shelf,))
    monkeypatch.setenv(split_module.HOME, str(tmp_path / "home"))
    return made


# --- what is built --------------------------------------------------------------------------------------------


def test_ids_become_a_valid_split(place: Place) -> None:
    split = place.build()
    assert validate(split.path) == []
    assert len(split.items) == 60
    assert split.ids("unlearnable") == tuple(str(index) for index in HARD)
    assert {item.group for item in split.items} == {"unlearnable", "learnable", None}
    assert {item.certified for item in split.items} == {None}
    item = next(item for item in split.items if item.item_id == "8")
    text, answer = paperlike.original(8)
    assert (item.prompt, item.answer, item.family) == (HEAD + text + TAIL, answer, "Geometry")
    assert item.solution == f"The sum is \\boxed{{{answer}}}."
    assert len(split["train"]) == 60
    assert split["unlearnable"]["item_id"] == [str(index) for index in HARD]
    assert {"similar.parquet", "sub_problems.parquet", "items.parquet"} <= split.config.files.keys()
    assert "Made by nobody." in (split.path / "NOTICE").read_text()
    assert "MIT" in (split.path / "NOTICE").read_text()


def test_the_same_texts_give_the_same_split(place: Place, tmp_path: Path) -> None:
    first = place.build()
    shuffled = paperlike.write_source(tmp_path / "other", paperlike.source_rows()[::-1])
    assert place.build(source=shuffled, out=tmp_path / "again").hash == first.hash


def test_positions_are_resolved_by_text_and_never_joined_on(place: Place) -> None:
    split = place.build()
    built = built_of(split.path)
    assert built is not None
    assert [(of.position, of.index) for of in built.resolved] == list(zip(POSITIONS, EASY_TO_LEARN, strict=False))
    assert built.unresolved == [POSITIONS[3]]
    assert split.ids("learnable") == tuple(str(index) for index in EASY_TO_LEARN)
    assert {"21", "22"} <= set(split.ids("unlearnable"))  # also positions, of other problems
    assert (built.matched, built.labelled) == (1.0, {"unlearnable": 6, "learnable": 3})
    assert built.left_out == 4


def test_two_positions_that_claim_one_row_get_none(place: Place) -> None:
    path = place.artifacts / "all_similar_learnable.json"
    rows = json.loads(path.read_text())
    first = [row for row in rows if row["id"].startswith("20_")]
    rows = [*rows, *({**row, "id": row["id"].replace("20_", "23_")} for row in first)]
    rows = [row for row in rows if not (row["id"].startswith("23_") and "999" in row["question"])]
    path.write_text(json.dumps([row for row in rows if not row["id"].startswith("23_")] + rows[-2:]))
    entries = [e | ({"sha256": files.sha256(path)} if e["name"] == path.name else {}) for e in place.entries]
    paperlike.write_split(place.split, entries)
    built = built_of(place.build().path)
    assert built is not None
    assert [of.position for of in built.resolved] == [21, 22]
    assert built.unresolved == [20, 23]


def test_generated_problems_are_linked_and_repeats_marked(place: Place) -> None:
    split = place.build()
    similar = tables.read_records(split.path / "similar.parquet", RelatedProblem)
    assert [row.problem_id for row in similar if row.leaked] == [f"unlearnable-{HARD[0]}-2"]
    assert {row.item_id for row in similar} == {str(index) for index in (*HARD, *EASY_TO_LEARN)}
    assert len({row.problem_id for row in similar}) == len(similar) == 2 * 9 + 1
    steps = tables.read_records(split.path / "sub_problems.parquet", RelatedProblem)
    assert len(steps) == 18
    assert not any(row.leaked for row in steps)
    (split.path / "similar.parquet").write_bytes((split.path / "sub_problems.parquet").read_bytes())
    assert any("similar.parquet" in problem for problem in validate(split.path))


def test_a_chat_policy_gets_the_bare_problem(place: Place) -> None:
    paperlike.write_split(place.split, place.entries, prompt_format="chat")
    assert place.build().items[8].prompt == f"{paperlike.original(8)[0]}\n{INSTRUCTION}"


def test_a_pool_without_labels(place: Place, tmp_path: Path) -> None:
    folder = paperlike.write_split(tmp_path / "scaler", None)
    told = json.loads((folder / RELEASED).read_text())
    told |= {"groups": {}, "release": None}
    told["source"] |= {"form": "problems", "file": "scaler.json", "numbering": "row"}
    (folder / RELEASED).write_text(json.dumps(told))
    data = tmp_path / "scaler.json"
    data.write_text(json.dumps([{"problem": "What is $1+1$?", "answer": "2", "solution": "By adding."}]))
    split, built = build(folder, source=data, out=tmp_path / "pool")
    (item,) = split.items
    assert (item.item_id, item.answer, item.solution, item.group) == ("0", "2", "By adding.", None)
    assert "What is $1+1$?" in item.prompt
    assert built.matched is None
    assert validate(split.path) == []


# --- what is refused ------------------------------------------------------------------------------------------


def refused(place: Place, words: str, error: type[Exception] = DataError, **changes: Any) -> str:
    """The sentence that a build is refused with; nothing was written."""
    with pytest.raises(error, match=words) as caught:
        place.build(**changes)
    assert not (place.out / "split.yaml").exists()
    assert not (place.out / "items.parquet").exists()
    return str(caught.value)


def test_another_order_of_rows_is_noticed(place: Place, tmp_path: Path) -> None:
    moved = paperlike.write_source(
        tmp_path / "moved", paperlike.source_rows({index: (index + 1) % 60 for index in range(60)})
    )
    assert "\n" not in refused(
        place, r"is not the data that the released ids number: only \d+ % of 6 items", source=moved
    )


def test_a_part_without_the_ids_is_noticed(place: Place, tmp_path: Path) -> None:
    short = paperlike.write_source(tmp_path / "short", paperlike.source_rows()[:40])
    assert "\n" not in refused(
        place, r"no row whose extra_info.index is 40 \(nor 1 more of the 6 released ids\)", source=short
    )


def test_a_source_that_is_not_there(place: Place, tmp_path: Path) -> None:
    assert "\n" not in refused(
        place, f"holds no {paperlike.SETTING}/train.parquet; name a folder laid out like", source=tmp_path / "no"
    )


Change = Callable[[dict[str, Any]], None]


def _without_gold(row: dict[str, Any]) -> None:
    row.update(gt_answer=" ", answer=" ")
    row["reward_model"].update(ground_truth="")
    row["extra_info"].update(answer="")


def _with_a_solution_alone(row: dict[str, Any]) -> None:
    row.update(gt_answer=None)
    row["reward_model"].update(ground_truth=None)
    row["extra_info"].update(answer=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row["extra_info"].update(index=None), "row 1, field 'extra_info.index': a whole number"),
        (
            lambda row: row["extra_info"].update(index=1),
            "row 2, field 'extra_info.index': 1 is the number of an earlier",
        ),
        (
            lambda row: row["prompt"][0].update(content="Question:\nx\nAnswer:\nLet's think"),
            "template of another setting",
        ),
        (_without_gold, "row 1, field 'gt_answer': there is no text; fetch the file again"),
        (_with_a_solution_alone, "row 1, field 'gt_answer': there is no text"),
    ],
)
def test_a_malformed_row_is_named(place: Place, tmp_path: Path, change: Change, words: str) -> None:
    rows = paperlike.source_rows()
    change(rows[0])
    assert "\n" not in refused(place, words, source=paperlike.write_source(tmp_path / "bad", rows))


def test_an_altered_released_file_is_refused(place: Place) -> None:
    path = place.artifacts / place.entries[0]["name"]
    path.write_bytes(path.read_bytes().replace(b"more", b"less"))
    assert "\n" not in refused(place, f"{path.name} is not the released file: its sha256 is")
    path.unlink()
    assert "\n" not in refused(place, f"holds no {path.name}")


def test_nothing_is_written_over(place: Place, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    refused(place, "full is not empty and holds no split", SplitError, out=tmp_path / "full")
    other = paperlike.write_split(tmp_path / "another", place.entries)
    refused(place, "holds the split another; name another --out", SplitError, out=other)
    files.write_text(place.out / "null_control" / "1x" / "kept", "x")
    files.write_text(place.out / "split.yaml", (place.split / "split.yaml").read_text())
    place.build()
    assert (place.out / "null_control" / "1x" / "kept").is_file()


def test_a_full_disk_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        refused(place, "no space left to write", RunError)
    assert len(place.build().items) == 60


def test_a_whole_split_needs_no_building(tiny: Split) -> None:
    with pytest.raises(SplitError, match="comes with all its files"):
        build(tiny.path)


# --- from elsewhere -------------------------------------------------------------------------------------------


@pytest.fixture
def web(place: Place) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place.artifacts)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_released_files_are_fetched_once(place: Place, web: str) -> None:
    wanted = place.artifacts / place.entries[-1]["name"]
    kept = wanted.read_bytes()
    wanted.unlink()
    refused(place, f"cannot fetch {wanted.name} from {web}: the server answers 404", RunError, artifacts=web)
    wanted.write_bytes(kept + b" ")
    refused(place, "is not the released file", artifacts=web)
    wanted.write_bytes(kept)
    for name in [entry["name"] for entry in place.entries[:-1]]:
        (place.artifacts / name).unlink()  # here already: not asked for again
    assert len(place.build(artifacts=web).ids("unlearnable")) == len(HARD)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]",
    ],
)
def test_a_broken_answer_is_one_sentence(place: Place, answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        words = r"cannot fetch all_similar_unlearnable.json from .*: the answer is broken \(.*\); fix the network"
        assert "\n" not in refused(place, words, RunError, artifacts=address)
    assert not place.out.exists()


def test_no_network_is_one_sentence(place: Place) -> None:
    assert "\n" not in refused(
        place, "127.0.0.1:1: Connection refused; fix the network connection, or name a folder", RunError, artifacts=None
    )


# --- before and after -----------------------------------------------------------------------------------------


def test_a_split_that_is_not_built_says_so(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert waits(find_split("paper"))
    with pytest.raises(SplitError, match=r"split paper is not built.*run `unlearnbench splits build paper`"):
        _ = load_split("paper").items
    assert ["not built" in problem for problem in validate(place.split)] == [True]
    for line in (
        ["eval", "--method", "grpo"],
        ["check", "grpo"],
        ["export", "--format", "trl", "--out", str(place.out)],
    ):
        assert command_line([*line, "--split", "paper"]) == 1
        told = capsys.readouterr().err
        assert "splits build paper" in told
        assert len(told.strip().splitlines()) == 1


def test_it_is_listed_and_shown_before_it_is_built(place: Place) -> None:
    (row,) = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert (row["name"], row["built"], row["items"]) == ("paper", False, None)
    assert "not built" in CliRunner().invoke(command, []).stdout
    shown = json.loads(CliRunner().invoke(command, ["show", "paper", "--json"]).stdout)
    assert shown["groups"]["unlearnable"] == {"items": 6, "certified": 0, "thin": 0}
    assert shown["groups"]["learnable"]["items"] == 4
    assert shown["released"]["learnable"] == {"ids": 0, "positions": 4, "resolved": 0, "extent": "sample"}
    assert shown["missing"] == ["Everything else."]
    text = CliRunner().invoke(command, ["show", "paper"]).stdout
    assert "unlearnable: 6 released ids, a lower bound" in text
    assert "- Everything else." in text


def test_a_built_split_is_found_by_its_name(place: Place) -> None:
    arguments = ["build", "paper", "--source", str(place.source), "--artifacts", str(place.artifacts)]
    run = CliRunner().invoke(command, arguments)
    assert run.exit_code == 0, run.output
    assert "3 of 4 positions resolved by text" in run.stdout
    split = load_split("paper")
    assert split.path == Path(os.environ[split_module.HOME]) / "splits" / "paper"
    assert len(split.items) == 60
    shown = json.loads(CliRunner().invoke(command, ["show", "paper", "--json"]).stdout)
    assert (shown["built"], shown["items"], shown["released"]["learnable"]["resolved"]) == (True, 60, 3)
    assert shown["build"]["source"] == "local"
    run = CliRunner().invoke(command, [*arguments, "--json"])
    assert json.loads(run.stdout)["labelled"] == {"unlearnable": 6, "learnable": 3}
    assert str(place.source) not in (split.path / BUILT).read_text()


def test_rollouts_on_a_built_split_are_scored(place: Place, tmp_path: Path) -> None:
    split = place.build()
    rollouts = tmp_path / "rollouts.jsonl"
    rows = [{"item_id": item.item_id, "completion": f"\\boxed{{{item.answer}}}"} for item in split.items]
    rollouts.write_text("".join(json.dumps(row) + "\n" for row in rows * 32))
    assert command_line(["score", str(rollouts), "--split", str(split.path), "--out", str(tmp_path / "scored")]) == 0
    result = json.loads((tmp_path / "scored" / "result.json").read_text())
    hard = result["groups"]["unlearnable"]
    assert (hard["items"], hard["rate_before"], hard["rate_after"], hard["solved"], hard["converted"]) == (
        6,
        None,
        1.0,
        6,
        None,
    )
    assert result["groups"]["learnable"]["items"] == 3
    assert (result["comparable"], result["conversion"]["gain"]) == (False, None)


@pytest.mark.parametrize(
    ("name", "ids", "positions"),
    [("qwen2.5-0.5b-math-easy", (894, 0), 100), ("llama-3.2-3b-it-math-hard", (517, 100), 0)],
)
def test_the_papers_ids(name: str, ids: tuple[int, int], positions: int) -> None:
    released = released_of(shipped_folder(name))
    assert released is not None and released.release is not None
    hard, learned = released.groups["unlearnable"], released.groups["learnable"]
    assert (len(set(hard.ids)), len(set(learned.ids)), len(set(learned.positions))) == (*ids, positions)
    assert not set(hard.ids) & set(learned.ids)
    assert (hard.extent, learned.extent, list(released.seeds)) == ("lower bound", "sample", [1, 42, 37])
    assert len({file.sha256 for file in released.release.files}) == 4
    recipe = load_split(name).config.recipe
    assert (recipe.steps, recipe.prompts_per_step, recipe.group_size, recipe.updates_per_batch) == (120, 256, 8, 4)
    assert (recipe.learning_rate, recipe.kl, recipe.entropy, recipe.max_tokens) == (5e-7, 1e-4, 1e-3, 5120)


def test_no_text_of_a_problem_travels_with_the_package() -> None:
    for name in ("qwen2.5-0.5b-math-easy", "llama-3.2-3b-it-math-hard", "qwen2.5-3b-deepscaler"):
        folder = shipped_folder(name)
        assert sorted(path.name for path in folder.iterdir()) == [RELEASED, "split.yaml"]
        released = released_of(folder)
        assert released is not None
        numbers = {number for of in released.groups.values() for number in (*of.ids, *of.positions)}
        assert all(isinstance(number, int) for number in numbers)
