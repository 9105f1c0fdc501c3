"""The released rewards of a training run: known by a git blob id, checked row by row, shown by group and quarter."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import paperlike
import pytest
from click.testing import CliRunner
from paperlike import EASY_TO_LEARN, HARD

from unlearnbench.cli.splits import splits as command
from unlearnbench.curation.build import build
from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files
from unlearnbench.leaderboard.site.build import build as build_site
from unlearnbench.scoring.released_run import PARTS, UNLABELLED, released_run
from unlearnbench.splits import Split, load_split
from unlearnbench.splits import split as split_module
from unlearnbench.splits.manifest import RELEASED, released_of
from unlearnbench.splits.released_rewards import read_rewards
from unlearnbench.splits.split import shipped_folder

NAME = "prompt_reward_stats.csv"
STEPS = 12
NEVER = (HARD[2], 50)
"""Prompts that the run never rewards, one of them unlearnable."""
FOREIGN = 777
"""A prompt that the source does not have."""


def logged() -> list[dict[str, Any]]:
    """Rows as the paper's trainer writes them: some prompts twice in a step, and once more after a selection."""
    rows = []
    for step in range(1, STEPS + 1):
        for place, prompt in enumerate((*HARD, *EASY_TO_LEARN, 50, 51, FOREIGN)):
            if (step + place) % 3 == 0:
                continue
            correct = 0 if prompt in NEVER else (step * (prompt % 5 + 1)) % 9
            row = {"step": step, "prompt_id": prompt, "mean_reward": correct / 8, "std_reward": 0.1, "n": 8}
            rows.append(row | {"processed": False})
            if prompt == 51:
                rows.append(row | {"mean_reward": 1.0, "n": 4, "processed": False})
            rows.append(row | {"mean_reward": 0.5, "n": 2, "processed": True})
    return rows


def as_csv(rows: list[dict[str, Any]], names: tuple[str, ...] | None = None) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, names or list(rows[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class Place:
    """The split `paper` on a shelf, with a log of rewards that its released.json names."""

    def __init__(self, root: Path, content: bytes) -> None:
        self.root, self.artifacts, self.out = root, root / "artifacts", root / "out"
        entries = paperlike.write_artifacts(self.artifacts)
        self.source = paperlike.write_source(root / "source")
        self.split = paperlike.write_split(root / "shelf" / "paper", entries)
        self.release(content)

    def release(self, content: bytes) -> None:
        told = json.loads((self.split / RELEASED).read_text())
        blob = hashlib.sha1(f"blob {len(content)}".encode() + b"\0" + content).hexdigest()
        told["release"] |= {"rewards": {"name": NAME, "git_blob": blob, "about": "a run made up here"}}
        told["release"]["addresses"] = [self.artifacts.as_uri()]
        (self.split / RELEASED).write_text(json.dumps(told))

    def build(self, artifacts: str | None = "here") -> Split:
        folder = str(self.artifacts) if artifacts == "here" else artifacts
        return build(self.split, source=self.source, artifacts=folder, out=self.out)[0]


@pytest.fixture
def content() -> bytes:
    return as_csv(logged())


@pytest.fixture
def place(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path, content)
    monkeypatch.setattr(split_module, "SHELVES", (tmp_path / "shelf",))
    monkeypatch.setenv(split_module.HOME, str(tmp_path / "home"))
    return made


def test_the_id_that_git_gives_to_a_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello\n")
    assert files.git_blob(tmp_path / "x") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    with pytest.raises(DataError, match="there is no file"):
        files.git_blob(tmp_path / "y")


def test_the_papers_log_is_known_by_the_id_of_its_release() -> None:
    released = released_of(shipped_folder("qwen2.5-0.5b-math-easy"))
    assert released is not None and released.release is not None and released.release.rewards is not None
    assert (released.release.rewards.name, released.release.rewards.git_blob) == (
        NAME,
        "84027d1adf2a85e9a168c7a5888a3653f5b1b600",
    )


@pytest.mark.parametrize("where", ["artifacts", "source", "source/example_data", "fetched"])
def test_rewards_by_group_and_quarter(place: Place, content: bytes, where: str) -> None:
    folder = place.artifacts if where == "fetched" else place.root / where
    files.write_bytes(folder / NAME, content)
    run = released_run(place.build(None if where == "fetched" else "here"))
    assert run is not None
    group = {str(i): "unlearnable" for i in HARD} | {str(i): "learnable" for i in EASY_TO_LEARN}
    sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in logged():
        if row["processed"] or row["prompt_id"] == FOREIGN:
            continue
        cell = sums[group.get(str(row["prompt_id"]), UNLABELLED), (row["step"] - 1) * PARTS // STEPS]
        cell[0] += row["mean_reward"] * row["n"]
        cell[1] += row["n"]
    assert list(run.groups) == ["learnable", "unlearnable", UNLABELLED]
    for name, of in run.groups.items():
        expected = [sums[name, part][0] / sums[name, part][1] for part in range(PARTS)]
        assert of.quarters.tolist() == pytest.approx(expected)
        assert of.rollouts == sum(sums[name, part][1] for part in range(PARTS))
    assert (run.steps, run.items, run.unknown) == (STEPS, len(HARD) + len(EASY_TO_LEARN) + 3, 1)
    assert run.no_reward == tuple(str(number) for number in NEVER)
    assert run.groups["unlearnable"].steps.tolist() == list(range(1, STEPS + 1))


def test_they_are_shown(place: Place, content: bytes) -> None:
    files.write_bytes(place.artifacts / NAME, content)
    arguments = ["build", "paper", "--source", str(place.source), "--artifacts", str(place.artifacts)]
    assert "rewards of a released training run are in it" in CliRunner().invoke(command, arguments).stdout
    told = json.loads(CliRunner().invoke(command, ["show", "paper", "--json"]).stdout)["training_rewards"]
    assert told["no_reward"] == [str(number) for number in NEVER]
    assert [len(of["quarters"]) for of in told["groups"].values()] == [PARTS] * 3
    text = CliRunner().invoke(command, ["show", "paper"]).stdout
    assert "rewards in training (a run made up here): 12 steps, 12 prompts" in text
    assert "2 items without any reward in this run: 21, 50" in text
    assert "1 ids of the file are no items of this split" in text
    (place.root / "entries").mkdir()
    page = build_site(place.root / "entries", place.root / "site").parent / "split" / "paper" / "index.html"
    found = page.read_text(encoding="utf-8")
    assert "Rewards of a released training run" in found and "2 of 12 problems had no reward" in found
    assert f"{told['groups']['learnable']['quarters'][0]:.3f}" in found


def test_another_file_is_refused_in_one_sentence(place: Place, content: bytes) -> None:
    files.write_bytes(place.artifacts / NAME, content.replace(b"0.5", b"0.6", 1))
    for artifacts in ("here", None):
        with pytest.raises(DataError, match=f"{NAME} is not the released file: its git blob id is") as caught:
            place.build(artifacts)
        assert "\n" not in str(caught.value)
    assert not (place.out / "split.yaml").exists()
    files.write_bytes(place.artifacts / NAME, content)
    split = place.build()
    (split.path / NAME).write_bytes(content + b"13,3,1.0,0.0,8,False\n")
    with pytest.raises(DataError, match=r"is not the released file \(its git blob id differs\); remove it"):
        released_run(split)


def test_a_split_without_the_file_says_so(place: Place) -> None:
    arguments = ["build", "paper", "--source", str(place.source), "--artifacts", str(place.artifacts)]
    made = CliRunner().invoke(command, arguments)
    assert made.exit_code == 0 and f"without {NAME}, the rewards of a released training run" in made.stderr
    assert json.loads(CliRunner().invoke(command, ["show", "paper", "--json"]).stdout)["training_rewards"] is None
    assert released_run(load_split("paper")) is None
    with pytest.raises(RunError, match=f"cannot fetch {NAME}"):
        place.build(None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean_reward": "much"}, "row 2, field 'mean_reward': a number was expected, but it is 'much'"),
        ({"mean_reward": "inf"}, "row 2, field 'mean_reward': a finite number was expected"),
        ({"n": 0}, "row 2, field 'n': a number of rollouts from 1 was expected"),
        ({"step": ""}, "row 2, field 'step': it is missing"),
        ({"prompt_id": "8_0"}, "row 2, field 'prompt_id': a whole number from 0 was expected"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = logged()[:3]
    rows[1] |= change
    (tmp_path / NAME).write_bytes(as_csv(rows))
    with pytest.raises(DataError, match=words):
        read_rewards(tmp_path / NAME)


def test_a_file_without_the_column_processed(tmp_path: Path) -> None:
    rows = [row for row in logged() if not row["processed"]]
    (tmp_path / NAME).write_bytes(as_csv(rows, ("step", "prompt_id", "mean_reward", "n")))
    assert read_rewards(tmp_path / NAME).num_rows == len(rows)
    (tmp_path / NAME).write_bytes(as_csv(rows, ("step", "prompt_id", "mean_reward")))
    with pytest.raises(DataError, match="'n'"):
        read_rewards(tmp_path / NAME)
