"""Walls around foreign code, tried from inside: what a process behind them can read, reach, see and leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from orphans import descendants, still_running

from unlearnbench.harness.policy_ref import base_folder
from unlearnbench.harness.training_jobs import Run, training_job
from unlearnbench.io.files import write_text
from unlearnbench.methods import locate
from unlearnbench.splits import Split, seal, shipped_splits
from unlearnbench.splits.split import shipped_folder
from unlearnbench.splits.write import write_config
from unlearnbench.training.run_spec import Limits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.isolation import Isolation, available
from unlearnbench.workers.jobs import Compute, Job, TrainJob

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
ROOT = Path(__file__).resolve().parents[1]
WALLS = available()
needs_mounts = pytest.mark.skipif("mounts" not in WALLS, reason="this system has no user namespaces for everybody")
needs_landlock = pytest.mark.skipif("landlock" not in WALLS, reason="this kernel has no Landlock")
needs_network = pytest.mark.skipif("network" not in WALLS, reason="this system has no network namespaces")

SUPERVISED = """
import json, os, signal, socket, subprocess, sys, time
from pathlib import Path
from unlearnbench.workers import isolation, supervisor, worker
{before}

def tried(act):
    try:
        return act()
    except OSError as problem:
        return type(problem).__name__

def main():
    found = {{}}
{code}
    sys.stdout.write(json.dumps(found) + "\\n")
    sys.stdout.flush()
    return 0

worker.main = main
sys.exit(supervisor.main(int(sys.argv[1])))
"""


def _start(code: str, walls: Isolation, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """A supervisor whose worker runs some code; its standard input stays open."""
    script = SUPERVISED.format(code="\n".join(f"    {line}" for line in code.strip().splitlines()), before=before)
    with tempfile.TemporaryFile() as file:
        file.write(walls.model_dump_json().encode())
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", script, str(file.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            pass_fds=[file.fileno()],
            **options,
        )


def _behind(code: str, walls: Isolation, before: str = "") -> dict[str, Any]:
    """What the code found."""
    with _start(code, walls, before) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Folders for a process: one that it may write to, one that it may read, with something hidden in it, another."""
    for name in ("mine/x", "readable/open.txt", "readable/secret/gold.txt", "readable/gold.txt", "other/gold.txt"):
        write_text(tmp_path / name, "42")
    return tmp_path


def _walls(places: Path, **changes: Any) -> Isolation:
    readable = (str(places / "readable"), str(ROOT), *[entry for entry in sys.path if entry])
    hidden = (str(places / "readable/secret"), str(places / "readable/gold.txt"), str(places / "nowhere"))
    return Isolation(writable=(str(places / "mine"),), readable=readable, hidden=hidden, **changes)


READS = """
places = Path({places!r})
for name in ("readable/open.txt", "readable/secret/gold.txt", "readable/gold.txt", "other/gold.txt"):
    found[name] = tried((places / name).read_text)
    found[name + " by the shell"] = subprocess.run(["cat", places / name], capture_output=True, text=True).stdout
for name in ("mine/y", "readable/y", "other/y", "readable/secret/y"):
    found[name] = tried(lambda: (places / name).write_text("1"))
found["listed"] = tried(lambda: os.listdir(places / "other"))
found["walls"] = os.environ["UNLEARNBENCH_WALLS"].split(",")
"""


@needs_mounts
@needs_landlock
@pytest.mark.parametrize("alone", [True, False])
def test_only_what_is_named_can_be_read_and_written(places: Path, alone: bool) -> None:
    found = _behind(READS.format(places=str(places)), _walls(places, alone=alone))
    assert found["readable/open.txt"] == found["readable/open.txt by the shell"] == "42"
    for name in ("readable/secret/gold.txt", "readable/gold.txt", "other/gold.txt"):
        assert found[name] in ("FileNotFoundError", "PermissionError")
        assert found[f"{name} by the shell"] == ""
    assert found["mine/y"] == 1
    assert {found[name] for name in ("readable/y", "other/y", "readable/secret/y")} <= {"PermissionError", "OSError"}
    assert found["listed"] == "PermissionError"
    assert found["walls"] == (WALLS if alone else [wall for wall in WALLS if wall not in ("processes", "network")])
    assert (places / "mine/y").read_text() == "1"
    assert sorted(path.name for path in (places / "readable").iterdir()) == ["gold.txt", "open.txt", "secret"]
    assert (places / "readable/secret/gold.txt").read_text() == "42"  # for everybody else it is there


@needs_mounts
def test_what_is_hidden_stays_hidden_without_landlock(places: Path) -> None:
    found = _behind(READS.format(places=str(places)), _walls(places), "isolation._landlock = lambda *_, **__: False")
    assert found["readable/secret/gold.txt by the shell"] == found["readable/gold.txt by the shell"] == ""
    assert found["other/gold.txt"] == "42"  # it was not named: this is what Landlock is for
    assert "landlock" not in found["walls"]


@needs_landlock
def test_what_is_not_named_stays_closed_without_namespaces(places: Path) -> None:
    found = _behind(READS.format(places=str(places)), _walls(places), "supervisor.enter = lambda _: []")
    assert found["other/gold.txt"] == "PermissionError" and found["other/gold.txt by the shell"] == ""
    assert found["walls"] == ["landlock", "audit"]


def test_without_either_honest_code_is_refused_what_is_hidden(places: Path) -> None:
    before = "supervisor.enter = lambda _: []; isolation._landlock = lambda *_, **__: False"
    code = READS.format(places=str(places)) + "found['link'] = tried((places / 'mine/link').read_text)"
    (places / "mine/link").symlink_to(places / "readable/secret/gold.txt")
    found = _behind(code, _walls(places), before)
    assert found["readable/secret/gold.txt"] == found["readable/gold.txt"] == found["link"] == "PermissionError"
    assert found["readable/open.txt"] == "42"
    assert found["walls"] == ["audit"]


UNCOVERS = """
import ctypes
libc, secret = ctypes.CDLL(None), Path({secret!r})
found["unmounted"] = libc.umount2(os.fsencode(secret), 2) == 0
found["namespace"] = libc.unshare(0x10000000 | 0x20000) == 0
found["unmounted in another"] = libc.umount2(os.fsencode(secret), 2) == 0
found["mounted"] = libc.mount(b"tmpfs", os.fsencode(secret.parent), b"tmpfs", 0, None) == 0
found["gold"] = tried((secret / "gold.txt").read_text)
status = Path("/proc/self/status").read_text().splitlines()
found["rights"] = [line.split()[1] for line in status if line.startswith(("CapPrm", "CapBnd", "NoNewPrivs"))]
"""


@needs_mounts
@needs_landlock
def test_what_is_covered_cannot_be_uncovered(places: Path) -> None:
    found = _behind(UNCOVERS.format(secret=str(places / "readable/secret")), _walls(places))
    assert not (found["unmounted"] or found["unmounted in another"] or found["mounted"])
    assert found["gold"] in ("FileNotFoundError", "PermissionError")
    if not found["namespace"]:  # in another user namespace it has rights, over nothing
        assert found["rights"] == ["0" * 16, "0" * 16, "1"]


SEES = """
found["processes"] = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
found["me"], found["parent"] = os.getpid(), os.getppid()
found["signal"] = tried(lambda: os.kill({outside}, 0))
found["memory"] = tried(lambda: open("/proc/{outside}/mem", "rb").close())
found["environment"] = tried(lambda: open("/proc/{outside}/environ", "rb").read())
"""


@pytest.mark.skipif("processes" not in WALLS, reason="this system has no process namespaces")
def test_other_processes_are_neither_seen_nor_reached(places: Path) -> None:
    found = _behind(SEES.format(outside=os.getpid()), _walls(places))
    assert found["processes"] == [found["me"]] == [1]
    assert found["parent"] == 0
    assert found["signal"] == "ProcessLookupError"
    assert found["memory"] == found["environment"] == "FileNotFoundError"


REACHES = """
def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    return "connected"

found["outside"] = tried(lambda: connect({port}))
inside = socket.socket()
found["inside"] = tried(lambda: inside.bind(("127.0.0.1", 0)) or inside.listen() or connect(inside.getsockname()[1]))
"""


@needs_network
def test_the_network_leads_nowhere_but_to_itself(places: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = REACHES.format(port=server.getsockname()[1])
        found = _behind(code, _walls(places))
        assert found["outside"] == "ConnectionRefusedError"  # nobody listens there
        assert found["inside"] == "connected"  # an engine talks to its own processes so
        assert _behind(code, _walls(places, alone=False))["outside"] == "connected"  # processes that train together


LEAVES = """
child = os.fork()
if child == 0:
    os.setsid()
    for number in range(1, 30):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep({seconds})
    os._exit(0)
os.waitpid(child, 0)
sys.stdin.readline()
{then}
"""


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("then", ["", "os._exit(3)", "signal.signal(15, signal.SIG_DFL); os.kill(os.getpid(), 15)"])
def test_nothing_outlives_the_worker(places: Path, alone: bool, then: str) -> None:
    """A child that has left its session, ignores signals and whose parent has ended; however the worker ends."""
    with _start(LEAVES.format(seconds=600, then=then), _walls(places, alone=alone)) as process:
        started = _when(lambda: descendants(process.pid), at_least=2)
        process.communicate(timeout=60)
    assert still_running(started) == []
    if then == "os._exit(3)":
        assert process.returncode == 3  # its own status is passed on
    if "kill" in then and not alone:
        assert process.returncode == -15  # the first process of a namespace is not ended by a signal of its own


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_whoever_started_it(places: Path, alone: bool, how: signal.Signals) -> None:
    """Its supervisor is asked to end (SIGTERM), or the command that started it is killed."""
    code = LEAVES.format(seconds=600, then="time.sleep(600)")
    if how == signal.SIGTERM:
        with _start(code, _walls(places, alone=alone)) as process:
            started = _when(lambda: descendants(process.pid), at_least=2)
            process.send_signal(how)
            process.communicate(timeout=60)
        assert still_running(started) == []
        return
    write_text(places / "walls.json", _walls(places, alone=alone).model_dump_json())
    harness = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_isolation import _start\n"
        "from unlearnbench.workers.isolation import Isolation\n"
        "walls = Isolation.model_validate_json(Path(sys.argv[2]).read_text())\n"
        f"process = _start({code!r}, walls)\n"
        "process.wait()"
    )
    command = [sys.executable, "-c", harness, str(Path(__file__).parent), str(places / "walls.json")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        started = _when(lambda: descendants(process.pid), at_least=3)
        process.kill()
    assert still_running(started, patience=20) == []


def _when(found: Callable[[], set[tuple[int, int]]], at_least: int) -> set[tuple[int, int]]:
    """What is found once there is enough of it, and a moment later."""
    until = time.monotonic() + 60
    while True:
        if len(found()) >= at_least:
            time.sleep(0.2)  # a process that is on its way out may have been counted, or its child missed
            if len(there := found()) >= at_least:
                return there
        assert time.monotonic() < until, f"only {len(found())} of {at_least} processes were seen"
        time.sleep(0.05)


def test_more_paths_than_a_command_line_holds(places: Path) -> None:
    walls = _walls(places)
    many = walls.model_copy(update={"hidden": (*walls.hidden, *(f"/nowhere/{'x' * 100}-{k}" for k in range(5000)))})
    assert len(many.model_dump_json()) > 500_000
    assert _behind("found['done'] = 1", many) == {"done": 1}


# --- what a run hides -------------------------------------------------------------------------------------------------


def _job(split: Split, folder: Path, method: str = "grpo", **changes: Any) -> Job:
    sealed = seal(split, folder / ".sealed")
    run = Run(split, sealed, locate(method), "eval", "test", Limits(None, 1), Compute(), **changes)
    with Verifier() as verifier:
        return training_job(run, 1, folder / "1", verifier)


def _isolation(split: Split, folder: Path, **changes: Any) -> Isolation:
    isolation = _job(split, folder, **changes).isolation
    assert isolation is not None
    return isolation


def _covered(path: Path, isolation: Isolation) -> bool:
    return any(path == Path(name) or path.is_relative_to(name) for name in isolation.hidden)


def test_of_every_split_that_is_known_here_nothing_is_visible(small_split: Split, tmp_path: Path) -> None:
    isolation = _isolation(small_split, tmp_path)
    for folder in (small_split.path, *map(shipped_folder, shipped_splits())):
        assert all(_covered(path.resolve(), isolation) for path in folder.iterdir())
    assert not _covered(tmp_path / ".sealed", isolation)
    assert not _covered(tmp_path / "1/.training", isolation)
    assert str(tmp_path / "1") not in isolation.readable


def test_a_run_inside_the_split_that_it_fills_sees_its_own_folder_alone(small_split: Split, tmp_path: Path) -> None:
    """As the null control's does: `--out SPLIT/null_control/1x`."""
    split = Split(Path(shutil.copytree(small_split.path, tmp_path / "small")))
    write_text(split.path / "null_control/4x/counts.parquet", "earlier")
    folder = split.path / "null_control/1x"
    isolation = _isolation(split, folder)
    for name in ("items.parquet", "twins.parquet", "canaries.json", "null_control/4x/counts.parquet", "data"):
        assert _covered(split.path / name, isolation)
    assert not _covered(folder / ".sealed", isolation) and not _covered(folder / "1/.training", isolation)


def test_the_copy_of_a_method_can_be_read_in_the_working_folders_runs(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `eval --method FILE` keeps it without `--out`: beside what the judge writes, among runs that are hidden."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "runs/now/1/rollouts/0.parquet", "judged")
    write_text(tmp_path / "mine.py", "import unlearnbench as ub\n\n\nclass Mine(ub.Method):\n    pass\n")
    job = _job(small_split, tmp_path / "runs/now", str(tmp_path / "mine.py"))
    assert isinstance(job.work, TrainJob) and job.isolation is not None
    kept = Path(job.work.method.file)
    assert kept.parent == tmp_path / "runs/now/1"
    assert not _covered(kept, job.isolation) and str(kept) in job.isolation.readable
    assert _covered(tmp_path / "runs/now/1/rollouts/0.parquet", job.isolation)


def test_a_base_policy_of_another_folder_can_be_read(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that an earlier run has left, among runs that are hidden."""
    monkeypatch.chdir(tmp_path)
    split = Path(shutil.copytree(small_split.path, tmp_path / "small"))
    policy = Path(shutil.copytree(split / "policy", tmp_path / "runs/earlier/1/checkpoint"))
    write_text(tmp_path / "runs/earlier/counts.parquet", "results")
    reference = small_split.config.base_policy.model_copy(update={"path": "../runs/earlier/1/checkpoint"})
    write_config(split, small_split.config.model_copy(update={"base_policy": reference}))
    isolation = _isolation(Split(split), tmp_path / "runs/now")
    assert base_folder(Split(split)).samefile(policy)
    assert not _covered(policy.resolve(), isolation)
    assert any(os.path.realpath(name) == str(policy.resolve()) for name in isolation.readable)
    assert _covered(tmp_path / "runs/earlier/counts.parquet", isolation)
