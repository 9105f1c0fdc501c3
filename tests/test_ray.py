"""`--ray` where there is no cluster, or no Ray. What it does on nodes is tried by .ci/ray_nodes.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unlearnbench.splits import Split


def command(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from unlearnbench.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_cluster_that_is_not_there_is_one_sentence(small_split: Split, tmp_path: Path) -> None:
    words = ("eval", "--method", "grpo", "--quick", "--split", small_split.path, "--out", tmp_path / "run")
    done = command(*words, "--ray", "127.0.0.1:1")
    told = "no Ray cluster at '127.0.0.1:1'" if importlib.util.find_spec("ray") else 'pip install "unlearnbench[ray]"'
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and told in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("eval", "--method", "grpo", "--quick"), ("curate", "--config")])
def test_a_launcher_is_told_what_takes_its_place(words: tuple[str, ...], small_split: Split, tmp_path: Path) -> None:
    split = (small_split.path / "split.yaml",) if "--config" in words else ("--split", small_split.path)
    done = command(*words, *split, "--out", tmp_path / "run", WORLD_SIZE="2", RANK="0")
    assert done.returncode == 1 and "--processes" in done.stderr and "--ray" in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()
