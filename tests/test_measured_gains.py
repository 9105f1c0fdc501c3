"""The gains that `unlearnbench methods` shows: measured by the experiments, and never typed in."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from control_runs import control_runs

from experiments.entries import _is_of, measured, write_gains
from experiments.runs import Runs
from unlearnbench.cli.methods import methods as methods_command
from unlearnbench.errors import DataError
from unlearnbench.leaderboard.entries import read_entries
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.methods.gains import MEASURED, Measured, present_gain, read_measured, write_measured
from unlearnbench.scoring.comparisons.null_vs_null import null_against_null, null_gains
from unlearnbench.splits import Split

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = ROOT / "leaderboard" / "entries"


@pytest.fixture
def runs(tmp_path: Path, micro: Split) -> Runs:
    return control_runs(tmp_path, micro)


# --- GRPO against itself --------------------------------------------------------------------------------------


def test_gains_of_grpo_over_itself_are_those_of_compare_aa(micro: Split) -> None:
    gains, told = null_gains(micro, 1), null_against_null(micro, 1).method_against_rest
    assert len(gains) == told.comparisons == 10
    assert (min(gains), max(gains)) == pytest.approx((told.smallest_gain, told.largest_gain))
    assert sum(gains) / len(gains) == pytest.approx(told.mean_gain)
    assert len(null_gains(micro, 6)) == 0


# --- what is left in the repository ---------------------------------------------------------------------------


def test_a_gain_is_shown_only_for_what_was_measured(runs: Runs, tmp_path: Path) -> None:
    path, source = tmp_path / "measured.json", locate("grpo")
    write_gains(runs, path)
    found = read_measured(path)
    assert found == measured(runs.methods)
    run = runs.methods["grpo"].result
    assert found["grpo"].gain == run.conversion.gain and found["grpo"].seeds == 3
    now = found["grpo"].model_copy(update={"source_hash": source.hash})
    assert present_gain(source, {"grpo": now}) == run.conversion.gain
    for change in ({"source_hash": "0" * 64}, {"split_hash": "0" * 64}, {"split": "no such split"}):
        assert present_gain(source, {"grpo": now.model_copy(update=change)}) is None
    assert present_gain(source, {}) is None and read_measured(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[", "Invalid JSON"),
        ('{"grpo": {"split": "micro"}}', r"method 'grpo', field 'split_hash'"),
        ('{"grpo": 3}', "method 'grpo'"),
    ],
)
def test_a_malformed_file_of_gains_is_one_sentence(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "measured.json").write_text(text)
    with pytest.raises(DataError, match=named) as caught:
        read_measured(tmp_path / "measured.json")
    assert "\n" not in str(caught.value) and "make experiments" in str(caught.value)


def test_the_file_of_gains_is_in_order(tmp_path: Path) -> None:
    one = Measured(
        split="micro",
        split_hash="0" * 64,
        source_hash="1" * 64,
        budget=1,
        seeds=3,
        gain=0.5,
        interval_families=(0.1, 0.9),
    )
    write_measured({"b": one, "a": one}, tmp_path / "m.json")
    assert list(json.loads((tmp_path / "m.json").read_text())) == ["a", "b"]
    assert read_measured(tmp_path / "m.json")["b"] == one


def test_the_command_lists_the_shipped_gains() -> None:
    found = read_measured(MEASURED)
    assert set(found) <= set(BUILT_IN)
    rows = json.loads(CliRunner().invoke(methods_command, ["--json"]).stdout)
    for row in rows:
        expected = present_gain(locate(row["name"]), found) if row["name"] in BUILT_IN else None
        assert row["gain"] == expected


def test_a_half_made_entry_is_made_again(runs: Runs, tmp_path: Path) -> None:
    one = next(one for one in read_entries(ENTRIES) if one.entry.bundle is None)
    folder = tmp_path / "entry"
    shutil.copytree(one.folder, folder)
    tried = one.entry.tried or 1
    assert _is_of(folder, one.result, tried)
    assert not _is_of(folder, runs.methods["grpo"].result, tried) and not _is_of(tmp_path, one.result, tried)
    (folder / "entry.json").unlink()  # which is written last
    assert not _is_of(folder, one.result, tried)


def test_the_page_names_every_method_that_was_measured() -> None:
    shown = (ROOT / "docs/results/experiments.md").read_text(encoding="utf-8")
    for name, one in read_measured(MEASURED).items():
        assert f"| {name} | " in shown, name
        assert f"{100 * one.gain:+z.1f}".replace("-", "\N{MINUS SIGN}") in shown, name
    for picture in re.findall(r"\]\((experiments-.*?\.png)\)", shown):
        assert (ROOT / "docs/results" / picture).stat().st_size < 120_000
