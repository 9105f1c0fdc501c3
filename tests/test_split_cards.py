"""Splits as others meet them: on the command line, by `load_dataset` and on the data set's cards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import COUNTS, add_control, make

from unlearnbench.cli.splits import splits as command
from unlearnbench.curation.validate import validate
from unlearnbench.errors import SplitError
from unlearnbench.records import TWIN_KINDS
from unlearnbench.splits import Split, cards, split, write_split

# --- the command line -----------------------------------------------------------------------------------------


def test_the_list_of_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "SHELVES", (tmp_path,))
    assert "No splits are shipped" in CliRunner().invoke(command, []).stdout
    make(tmp_path / "tiny")
    assert "tiny" in CliRunner().invoke(command, []).stdout
    (row,) = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert (row["name"], row["items"], row["groups"]["easy"]["items"]) == ("tiny", 10, 2)


def test_show(tiny: Split) -> None:
    add_control(tiny, "null_control/1x")
    run = CliRunner().invoke(command, ["show", str(tiny.path), "--json"])
    shown = json.loads(run.stdout)
    assert shown["groups"]["unlearnable"] == {"items": 2, "certified": 2, "thin": 0}
    assert shown["groups"]["boundary"] == {"items": 0, "certified": 0, "thin": 0}
    assert shown["families"]["family 0"] == {"items": 5, "groups": dict.fromkeys(sorted(COUNTS), 1)}
    assert shown["controls"]["null_control"]["1x"]["seeds"] == [9, 10]
    assert shown["controls"]["positive_control"] is None
    assert shown["hash"] == tiny.hash
    assert shown["budget"] == {"flops_1x": 1000}
    assert shown["twin_kinds"] == dict.fromkeys(sorted(TWIN_KINDS), 10)
    table = CliRunner().invoke(command, ["show", str(tiny.path)])
    assert table.exit_code == 0
    assert "unlearnable" in table.stdout
    assert isinstance(CliRunner().invoke(command, ["show", "nowhere"]).exception, SplitError)


def test_validate_command(tiny: Split) -> None:
    run = CliRunner().invoke(command, ["validate", str(tiny.path)])
    assert (run.exit_code, run.stdout) == (0, "valid\n")
    (tiny.path / "data" / "easy.parquet").unlink()
    run = CliRunner().invoke(command, ["validate", str(tiny.path)])
    assert run.exit_code == 1
    assert len(run.stdout.splitlines()) == 2
    run = CliRunner().invoke(command, ["validate", str(tiny.path), "--json"])
    assert run.exit_code == 1
    assert json.loads(run.stdout)["valid"] is False
    assert len(json.loads(run.stdout)["problems"]) == 2


# --- load_dataset and the cards -------------------------------------------------------------------------------

LOAD = """
from datasets import load_dataset
whole = load_dataset("unlearnbench")
assert sorted(whole) == ["easy", "learnable", "no_reward", "train", "unlearnable", "unstable"], whole
part = load_dataset("unlearnbench", "micro", split="unlearnable")
assert part["item_id"][:] == ["item-04", "item-05"], part
assert load_dataset("unlearnbench", "other", split="train").num_rows == 10
assert load_dataset("splits", "micro", split="easy").num_rows == 2
"""


@pytest.mark.checkout
def test_load_dataset_works_at_the_root_of_a_checkout(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    make(tmp_path / "splits" / "micro")
    make(tmp_path / "splits" / "other")
    for card in ("unlearnbench/README.md", "splits/README.md"):
        (tmp_path / card).parent.mkdir(exist_ok=True)
        shutil.copy(root / card, tmp_path / card)
    (tmp_path / "unlearnbench" / "schema.json").write_text("{}")  # the package's own files are no data
    cards.write_cards(tmp_path)
    assert cards.cards(tmp_path) == {
        tmp_path / card: (tmp_path / card).read_text() for card in ("unlearnbench/README.md", "splits/README.md")
    }
    assert (tmp_path / "splits/README.md").read_text().endswith((root / "splits/README.md").read_text()[-200:])
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


def shipped(name: str) -> Path:
    folder = Path(__file__).parents[1] / "splits" / name
    if not (folder / "split.yaml").is_file():
        pytest.skip(f"splits/{name} is not made yet")
    return folder


def test_shipped_micro_is_valid() -> None:
    assert validate(split.find_split("micro")) == []


@pytest.mark.checkout
def test_the_cards_follow_the_shipped_splits() -> None:
    root = shipped("micro").parents[1]
    for card, expected in cards.cards(root).items():
        assert card.read_text("utf-8") == expected, f"{card}: run splits.write_cards()"


def test_reading_a_split_needs_neither_torch_nor_datasets() -> None:
    script = (
        "import sys, unlearnbench.io.tables, unlearnbench.splits, unlearnbench.curation.validate;"
        "import unlearnbench.cli.splits;"
        "print([name for name in ('torch', 'datasets', 'transformers', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_new_labels_change_the_cards_head_by_which_datasets_caches(small_split: Split, tmp_path: Path) -> None:
    shelf = tmp_path / "splits"
    shutil.copytree(small_split.path, shelf / "small")
    before = cards.front_matter(shelf, "")
    items = [item.model_copy(update={"thin": not item.thin}) for item in small_split.items]
    write_split(shelf / "small", small_split.config, items)
    assert cards.front_matter(shelf, "") != before
