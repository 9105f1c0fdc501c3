"""The command line as a user meets it: help, exit statuses, one sentence an error, nothing on a pipe but results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import unlearnbench.cli
from unlearnbench.cli.main import COMMANDS
from unlearnbench.cli.main import run as cli_run
from unlearnbench.splits import Split

HELP = Path(unlearnbench.cli.__file__).parent / "help.txt"
Call = Callable[..., tuple[int, str, str]]
"""The fixture `cli`: status, standard output, standard error of a command line."""


def run(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "from unlearnbench.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder, stdin=subprocess.DEVNULL
    )


def test_help_is_what_the_commands_say() -> None:
    code = "from unlearnbench.cli.main import run; run(['--help'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert told == HELP.read_text()
    assert run("--help").stdout == told
    for name in COMMANDS:
        assert f"  {name} " in told


def test_version_is_the_packages() -> None:
    assert unlearnbench.__version__ in run("--version").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, cli: Call) -> None:
    status, out, _ = cli(name, "--help")
    assert status == 0
    assert "Usage: unlearnbench" in out


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "--method", "grpo", "--seeds", "0"),
        ("eval", "--method", "grpo", "--nothing"),
        ("eval",),
        ("eval", "--method", "grpo", "--budget", "-1x"),
        ("eval", "--method", "grpo", "--set", "kl"),
        ("eval", "--method", "grpo", "--set", "kl=NaN"),
        ("eval", "--checkpoint", "x", "--seeds", "2"),
        ("curate", "--out", "x"),
        ("nothing",),
        ("--evil",),
    ],
)
def test_a_wrong_command_line_is_status_2(
    words: tuple[str, ...], tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, told = cli(*words)
    assert status == 2
    assert "Traceback" not in told
    assert out == ""


def test_the_status_is_that_of_the_process(tmp_path: Path) -> None:
    for words, status in (("eval --method grpo --nothing", 2), ("splits show nothing", 1)):
        done = run(*words.split(), folder=tmp_path)
        assert done.returncode == status
        assert done.stderr and "Traceback" not in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(("words", "meant"), [(("splts",), "splits"), (("leaderboard", "verfy"), "verify")])
def test_a_misspelt_command_is_told_the_one_that_is_likely_meant(words: tuple[str, ...], meant: str, cli: Call) -> None:
    status, _, told = cli(*words)
    assert status == 2
    assert f"Did you mean '{meant}'?" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval", "--method", "nothing"), "There is no method 'nothing'"),
        (("eval", "--method", "grpo", "--split", "nothing"), "there is no split 'nothing'"),
        (("eval", "--checkpoint", "nothing"), "There is no checkpoint nothing"),
        (("splits", "show", "nothing"), "there is no split 'nothing'"),
        (("curate", "--from-counts", "nothing.csv", "--out", "x"), "nothing.csv"),
        (("report", "nothing"), "nothing"),
    ],
)
def test_what_cannot_be_done_is_status_1_and_one_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, told = cli(*words)
    assert status == 1
    assert message in told
    assert told.count("\n") == 1
    assert "Traceback" not in told
    assert out == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in run("--debug", "splits", "show", "nothing", folder=tmp_path).stderr


def test_labels_from_counts_alone(tmp_path: Path) -> None:
    rows = ["item_id,phase,run,n,correct"]
    for item, base, after in (("a", 90, 90), ("b", 3, 100), ("c", 3, 4), ("d", 0, 0)):
        rows += [f"{item},base,0,100,{base}", f"{item},train,1,100,{after}"]
        rows += [f"{item},after,{run},128,{after}" for run in (1, 2)]
    rows += [f"c,certify,{run},256,3" for run in (1, 2)]
    rows += ["x,trace,0,5,9", "x,trace,0,5,9"]  # rows of other phases are ignored, whatever they hold
    (tmp_path / "counts.csv").write_text("\n".join(rows) + "\n")
    done = run("curate", "--from-counts", "counts.csv", "--out", "out", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"] == {
        "easy": 1,
        "learnable": 1,
        "unlearnable": 1,
        "no_reward": 1,
        "unstable": 0,
        "boundary": 0,
    }
    assert json.loads((tmp_path / "out/labels.json").read_text()) == told
    assert (tmp_path / "out/labels.parquet").is_file()
    (tmp_path / "counts.csv").write_text("\n".join([*rows, "a,base,0,100,1"]) + "\n")
    again = run("curate", "--from-counts", "counts.csv", "--out", "out2", folder=tmp_path)
    assert again.returncode == 1
    for word in ("counts.csv", "'a'", "'base'", "'0'"):
        assert word.strip("'") in again.stderr
    assert not (tmp_path / "out2").exists()


def test_counts_without_certification_say_what_would_certify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["item_id,phase,run,n,correct", "c,base,0,100,3", "c,train,1,100,4", "c,after,1,128,4", "c,after,2,128,4"]
    (tmp_path / "counts.csv").write_text("\n".join(rows) + "\n")
    words = ["curate", "--from-counts", str(tmp_path / "counts.csv"), "--out", str(tmp_path / "out")]
    assert cli_run(words) == 0
    said = capsys.readouterr().out
    assert "`certified` is null for all 1 unlearnable items" in said
    assert "sample each 128 times more" in said
    (tmp_path / "counts.csv").write_text("\n".join([*rows, "c,certify,1,256,3", "c,certify,2,256,3"]) + "\n")
    assert cli_run(words) == 0
    assert "not certified" not in capsys.readouterr().out
    (tmp_path / "counts.csv").write_text("item_id,phase\nc,base\n")
    assert cli_run(words) == 1
    assert "columns 'run', 'n', 'correct' are missing; the file has item_id, phase" in capsys.readouterr().err
    assert cli_run(["curate", "--help"]) == 0
    assert "item_id, phase, run, n and correct" in " ".join(capsys.readouterr().out.split())


def test_h_is_help_everywhere() -> None:
    """In a process of its own: a command that a test has invoked by itself keeps the help options of then."""
    names = [*COMMANDS, "methods list", "splits list"]
    code = f"from unlearnbench.cli.main import run\nfor name in {names!r}: assert run([*name.split(), '-h']) == 0, name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f"Usage: unlearnbench {name}" in done.stdout


def test_a_list_is_what_the_command_alone_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["splits"], ["splits", "--json"], ["methods"]):
        assert cli_run(words) == 0
        alone = capsys.readouterr().out
        assert cli_run([words[0], "list", *words[1:]]) == 0
        assert capsys.readouterr().out == alone


def test_what_was_released_by_position_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_run(["splits"]) == 0
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("qwen2.5-0.5b-math-easy ")]
    assert row.split()[-3:] == ["894", "100", "0"]
    assert "the 100 learnable items were released as positions" in said


def test_results_are_all_that_a_pipe_sees(tmp_path: Path) -> None:
    done = run("splits", "--json", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "micro" in json.dumps(json.loads(done.stdout))


def test_a_table_is_whole_on_a_pipe(tmp_path: Path, micro: Split) -> None:
    told = run("splits", "show", "micro", folder=tmp_path).stdout
    assert "…" not in told
    for word in ("no_reward", "unlearnable", *micro.families().values()):
        assert word in told.split()
