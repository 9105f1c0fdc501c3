"""How `eval` ends on a terminal: headline, figures, a bar that fits, what is next; and words that were misspelt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_run import FEW, make_result, make_run, make_split

from unlearnbench.cli.curate import _smallest_gain
from unlearnbench.cli.ending import WIDTH, drawn_bar, show
from unlearnbench.errors import MethodError, SplitError
from unlearnbench.io import files
from unlearnbench.methods import locate
from unlearnbench.records import Result
from unlearnbench.splits import Split, find_split
from unlearnbench.splits.split import shipped_folder


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make_split(tmp_path_factory.mktemp("splits") / "tiny", probes=True)


def shown(result: Result, folder: Path | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(result, folder)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_ending_fits(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("unlearnbench.cli.console.PAGE", columns)
    folder = split.path / f"run-{columns}"
    make_run(folder, split, converts=20)
    result = make_result(split, 20, gain=0.325, interval=(0.12, 0.49))
    files.write_json(folder / "result.json", result)
    lines = shown(result, folder, capsys)
    text = "\n".join(lines)
    for said in ("Converts more than GRPO", "+32.5 points", "20 / 60", "0 / 12", "95 % interval +12.0 to +49.0"):
        assert said in text
    assert all(len(line) <= columns for line in lines if not line.startswith(("report:", "next:")))
    assert f"report: {folder / 'report.html'}" in lines
    assert f"next:   unlearnbench submit {folder} --out my_algo.zip" in lines
    assert "boundary" not in text and "lost" in text and "solved" in text


def test_a_quick_run_ends_with_the_command_that_counts(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "--quick: fewer steps, one seed and 8 samples"
    result = make_result(split, None, gain=None, comparable=False, why_not_comparable=why, samples=FEW)
    lines = shown(result, tmp_path, capsys)
    assert "Quick run: not scored" in lines and "next:   unlearnbench eval --method my_algo.py --split tiny" in lines
    assert not any(line.startswith("gain ") for line in lines)
    (head,) = (line for line in lines if line.startswith("group"))
    assert head.split() == [
        "group",
        "items",
        "before",
        "after",
        "95",
        "%",
        "interval",
    ]  # nothing is solved or converted
    show(result, tmp_path, "ideas/my algo.py")  # the user's own file, as it was given
    assert "eval --method 'ideas/my algo.py' --split tiny" in capsys.readouterr().out


def test_rollouts_without_probes_are_beside_what_grpo_solves(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a policy that is right far less often on easy items says so, however few of them it lost."""
    result = make_result(split, None, gain=None, comparable=True)
    group = result.groups["unlearnable"].model_copy(update={"solved": 15.0, "converted": None})
    fallen = result.retention.model_copy(update={"easy_lost": 0.0, "easy_rate_change": -0.443})
    score = result.conversion.model_copy(update={"gain": None, "solved_gain": 0.2, "null_seeds": 10})
    groups = {**result.groups, "unlearnable": group}
    result = result.model_copy(update={"groups": groups, "retention": fallen, "conversion": score})
    text = "\n".join(shown(result, None, capsys))
    assert "3 / 60" in text and "5.0" in text and "no null control" not in text  # 15 of 60 less 20 points
    assert "44.3 points" in text and "fell by 44 points" in text


@pytest.mark.parametrize(("gain", "interval"), [(0.3, (0.1, 0.5)), (0.0, (-0.02, 0.09)), (-0.4, (-0.9, -0.1))])
def test_the_bar_is_drawn_to_scale(split: Split, gain: float, interval: tuple[float, float]) -> None:
    bar, scale = drawn_bar(make_result(split, 20, gain=gain, interval=interval))
    cells = bar.removeprefix("gain  ")
    assert len(cells) == WIDTH and cells.count("\u25cf") == 1
    low, high = (float(end) / 100 for end in (scale.split()[0], scale.split()[-2]))
    place = round((gain - low) / (high - low) * (WIDTH - 1))
    assert cells[place] == "\u25cf"
    drawn = [number for number, cell in enumerate(cells) if cell in "\u2500\u253c\u25cf"]
    assert drawn[0] == round((interval[0] - low) / (high - low) * (WIDTH - 1))
    assert drawn[-1] == round((interval[1] - low) / (high - low) * (WIDTH - 1))
    assert drawn_bar(make_result(split, 20, gain=None)) == []


def test_misspelt_splits_and_methods_are_told_the_likely_one() -> None:
    with pytest.raises(SplitError, match=r"no split 'micor' \(did you mean 'micro'"):
        find_split("micor")
    with pytest.raises(MethodError, match="no method 'grop'; did you mean 'grpo'"):
        locate("grop")
    with pytest.raises(MethodError, match="did you mean 'grpo' or 'gspo'"):
        locate("gpro")


def test_curate_ends_with_the_gain_that_its_split_can_show_in_points() -> None:
    told = _smallest_gain(shipped_folder("micro"))
    assert re.search(r"10 null seeds detect on its 373 unlearnable items: [\d.]+ points if spread over all items", told)
    assert "if whole families are learned" in told and "%" not in told
