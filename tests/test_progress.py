"""How far a run is: plain lines off a terminal, progress.json, `unlearnbench status`, and curves to trackers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from results import result_of
from tensorboardX.proto.event_pb2 import Event as Logged

from unlearnbench.cli import progress as module
from unlearnbench.cli.progress import Bar, Lines, Rows
from unlearnbench.cli.status import status
from unlearnbench.errors import DataError, RunError
from unlearnbench.harness.progress_file import ProgressFile, read_progress
from unlearnbench.harness.run_config import BEGUN
from unlearnbench.harness.trackers import Trackers
from unlearnbench.io import files
from unlearnbench.io.folder_lock import locked
from unlearnbench.workers.messages import Event, Progress, Trained


def train(seed: int, done: float, step: int = 1) -> Progress:
    return Progress(seed=seed, stage="train", done=done, rate=2.0, step=step, reward=0.25)


def test_off_a_terminal_there_is_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines.place(Path("runs/x"))
        for step in range(1, 101):
            lines.show(train(1, step / 100, step))
    told = capsys.readouterr()
    assert told.out == ""
    written = told.err.splitlines()
    assert written[0].startswith("run: runs/x ") and "status runs/x" in written[0]
    assert len(written) == 1 + 10
    assert written[1].endswith("train 10 %: seed 1 10 % (step 10, reward 0.250, 2.0/s)")


def test_a_slow_run_says_something_every_thirty_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Lines("curating") as lines:
        for second in range(0, 100, 10):
            now[0] = float(second)
            lines.show(train(2, second / 10_000))
    written = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in written] == ["0:00:30", "0:01:00", "0:01:30"]
    assert "curating, train 0 %" in written[0]


def test_bars_say_something_every_thirty_seconds_off_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Bar("judging") as bar, Rows("items") as rows:
        for second in range(0, 70, 10):
            now[0] = float(second)
            bar.show(second / 100)
            rows.show("gradients", 10 * second, second / 100)
    assert capsys.readouterr().err.splitlines() == [
        "0:00:30  judging 30 %",
        "0:00:30  gradients 30 %: 300 items, 10/s",
        "0:01:00  judging 60 %",
        "0:01:00  gradients 60 %: 600 items, 10/s",
    ]


def test_progress_is_in_a_file_that_a_resumed_run_adds_to(tmp_path: Path) -> None:
    seen: list[Event] = []
    watch = ProgressFile(tmp_path, "m on micro", (1, 2), seen.append)
    watch(train(1, 0.5))
    watch(train(1, 1.0))
    assert len(seen) == 2
    found = read_progress(tmp_path)
    assert found is not None and [(of.seed, of.stage, of.done) for of in found.stages] == [(1, "train", 1.0)]
    again = ProgressFile(tmp_path, "m on micro", (1, 2), None)
    again(Progress(seed=1, stage="measure", done=1.0, rate=9.0))
    found = read_progress(tmp_path)
    assert found is not None and [of.stage for of in found.stages] == ["train", "measure"]
    ProgressFile(tmp_path, "another on micro", (1,), None)
    found = read_progress(tmp_path)
    assert found is not None and found.stages == []


def test_status_says_how_far_a_run_is(tmp_path: Path) -> None:
    watch = ProgressFile(tmp_path, "m on micro", (1, 2), None)
    watch(train(1, 1.0, 250))
    files.write_text(tmp_path / "1" / "metrics.jsonl", '{"step": 0, "reward": 0.1}\n{"step": 1, "reward": 0.6}\n{"st')
    done = CliRunner().invoke(status, [str(tmp_path)])
    assert done.exit_code == 0
    assert "m on micro, 2 seeds: in progress" in done.output and "step 250, reward 0.250" in done.output
    assert "\u2581\u2588  0.10 to 0.60" in done.output
    with locked(tmp_path):
        assert "in progress" in CliRunner().invoke(status, [str(tmp_path)]).output
    stopped = CliRunner().invoke(status, [str(tmp_path)]).output  # its command was killed, or failed
    assert "m on micro, 2 seeds: stopped" in stopped and "rerun" in stopped and "left" not in stopped
    files.write_json(tmp_path / "result.json", {})
    told = json.loads(CliRunner().invoke(status, [str(tmp_path), "--json"]).output)
    assert told["finished"] and told["reward"] == {"1": [0.1, 0.6], "2": []}
    with pytest.raises(RunError, match=r"no progress\.json"):
        status.main([str(tmp_path / "1")], standalone_mode=False)


@pytest.mark.parametrize("line", ['{"reward": "x"}', "no json", "[1]", '{"reward": [1]}', '{"reward": NaN}'])
def test_status_names_the_row_of_curves_that_cannot_be_read(tmp_path: Path, line: str) -> None:
    ProgressFile(tmp_path, "m on micro", (1,), None)
    files.write_text(tmp_path / "1" / "metrics.jsonl", f'{{"step": 0, "reward": 0.1}}\n{line}\n')
    with pytest.raises(DataError, match=r"1/metrics\.jsonl, row 2, field 'reward': a number was expected"):
        status.main([str(tmp_path)], standalone_mode=False)


def test_status_of_a_result_without_progress_is_finished(tmp_path: Path) -> None:
    """Such as `score` leaves it, and a control in a split's folder."""
    run = tmp_path / "run"
    files.write_json(run / "result.json", result_of(split="toy", seeds=(1, 2, 3)))
    assert CliRunner().invoke(status, [str(run)]).output == "grpo on toy, 3 seeds: finished\n"
    told = json.loads(CliRunner().invoke(status, [str(run), "--json"]).output)
    assert told["finished"] is True and told["stages"] == []
    with pytest.raises(RunError, match=r"there is no folder .*nowhere; give the folder of a run"):
        status.main([str(tmp_path / "nowhere")], standalone_mode=False)


def test_status_lists_the_runs_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearnbench.harness.progress_file.EVERY", 0.0)
    ProgressFile(tmp_path / "micro" / "a-1x", "a on micro", (1, 2), None)(train(1, 0.5))
    ProgressFile(tmp_path / "long-name", "b on mini", (1,), None)(train(1, 1.0))
    files.write_json(tmp_path / "long-name" / "result.json", {})
    done = CliRunner().invoke(status, [str(tmp_path)])
    assert done.exit_code == 0 and done.output.splitlines() == [
        "long-name   b on mini, 1 seed: finished",
        "micro/a-1x  a on micro, 2 seeds: in progress, train 25 %",
    ]
    told = json.loads(CliRunner().invoke(status, [str(tmp_path), "--json"]).output)
    assert [(of["state"], of["stage"], of["done"]) for of in told] == [
        ("finished", "train", 1.0),
        ("in progress", "train", 0.25),
    ]
    (tmp_path / "micro" / "a-1x" / "1").mkdir()
    with pytest.raises(RunError, match="no run in it has one; give the folder of a run"):
        status.main([str(tmp_path / "micro" / "a-1x" / "1")], standalone_mode=False)


def test_an_interrupted_training_without_a_checkpoint_is_said_to_start_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.harness.progress_file.EVERY", 0.0)
    ProgressFile(tmp_path, "m on micro", (1, 2), None)(train(2, 0.5))
    ProgressFile(tmp_path, "m on micro", (1, 2), None)  # the next command
    with Lines() as lines:
        lines.place(tmp_path)
    said = "the training of seed 2 was interrupted before its first checkpoint and starts again"
    assert capsys.readouterr().err.splitlines()[1:] == [said]
    with locked(tmp_path):
        pass
    assert said in CliRunner().invoke(status, [str(tmp_path)]).output
    (tmp_path / "2" / BEGUN[2]).mkdir(parents=True)
    with Lines() as lines:
        lines.place(tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert "it resumes" in CliRunner().invoke(status, [str(tmp_path)]).output


def test_a_tracker_that_is_not_installed_is_named() -> None:
    with pytest.raises(RunError, match="there is no tracker 'tensorbord'"):
        Trackers(["tensorbord"])


def test_metrics_of_the_judge_are_logged_as_they_come(tmp_path: Path) -> None:
    trackers = Trackers(["tensorboard"])
    folder = tmp_path / "micro" / "m-1x"
    trackers.place(folder)
    lines = [json.dumps({"step": step, "reward": step / 10, "kl": None, "gradient_norm": 1.5}) for step in range(3)]
    files.write_text(folder / "1" / "metrics.jsonl", "\n".join(lines[:2]) + "\n" + lines[2][:9])
    trackers.show(train(1, 0.5))
    trackers.show(Progress(seed=1, stage="measure", done=0.5, rate=1.0))
    files.write_text(folder / "1" / "metrics.jsonl", "\n".join(lines) + "\n")
    trackers.show(train(1, 1.0))
    trackers.close()
    written = list((folder / "tensorboard").rglob("*tfevents*"))
    assert len(written) == 1
    values = []
    content = written[0].read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Logged.FromString(content[12 : 12 + length])
        values += [(value.tag, event.step, round(value.simple_value, 3)) for value in event.summary.value]
        content = content[16 + length :]
    assert [of for of in values if of[0] == "train/reward"] == [("train/reward", step, step / 10) for step in range(3)]
    assert ("train/grad_norm", 2, 1.5) in values and not any("kl" in tag for tag, _, _ in values)


def test_events_that_are_no_progress_pass_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Trained.model_construct()
    with Lines() as lines:
        lines.show(other)
    ProgressFile(tmp_path, "m", (1,), None)(other)
    assert capsys.readouterr().err == ""
