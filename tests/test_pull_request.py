"""A pull request to the leaderboard changes one entry and nothing else; withdrawals stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unlearnbench.io.files import write_text

ROOT = Path(__file__).parents[1]


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
