"""Measuring in shards, over processes and machines: the bytes of one process, also after one of them was killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unlearnbench.workers.launcher_env import Launch, launched

from unlearnbench.errors import RunError, UnlearnBenchError
from unlearnbench.io.tables import write_parquet
from unlearnbench.splits import Split
from unlearnbench.workers import launcher_env, measure, measure_shards, multi_node, worker_group
from unlearnbench.workers.jobs import measure_job, measure_task, run_chains

N = 128
TORCHRUN = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CHUNK_ROLLOUTS", 2 * N)


def _job(split: Split, folder: Path, processes: int) -> tuple[worker_group.Job, dict[str, Any]]:
    """Measure ten items, two a shard."""
    problems = [(item.item_id, item.prompt, item.answer) for item in split.items[::4]]
    task = measure_task(folder / "items.parquet", "test/shards", problems, "item_id", N)
    log = folder / "log.txt"
    job = measure_job(split, split.policy_path, [task], log, seed=1, stage="measure", processes=processes)
    return job, task


@pytest.fixture(scope="module")
def whole(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process writes that draws everything in one go."""
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.policies.samplers.transformers import TransformersSampler
    from unlearnbench.verifier import Verifier

    path = tmp_path_factory.mktemp("whole") / "items.parquet"
    policy = load_policy(small_split.policy_path)
    chosen = [measure.Problem(item.item_id, item.prompt, item.answer) for item in small_split.items[::4]]
    with pytest.MonkeyPatch.context() as patch, Verifier() as verifier:
        patch.setattr(measure, "CHUNK_ROLLOUTS", 2 * N)
        rows = measure.measure(
            chosen,
            N,
            policy=policy,
            sampler=TransformersSampler(policy),
            verifier=verifier,
            sampling=small_split.config.protocol.sampling,
            root="test/shards",
        )
    write_parquet(path, rows)
    return path.read_bytes()


def test_one_of_two_processes_killed_loses_no_shard_and_two_machines_end_it_to_the_byte(
    small_split: Split, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[worker_group.Process] = []

    class Noted(worker_group.Process):
        def __init__(self, environment: Any, log: Any) -> None:
            super().__init__(environment, log)
            started.append(self)

    monkeypatch.setattr(worker_group, "Process", Noted)
    job, task = _job(small_split, tmp_path, 2)
    folder = tmp_path / ".items.shards"
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and not list(folder.glob("*.parquet")):
            time.sleep(0.005)
        started[1].end()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RunError, match=r"the measuring \(measure\) of seed 1 ended with status -9"):
        run_chains([[job]], 1)
    ended.set()
    killer.join()
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 1 <= len(done) < 5
    assert not (tmp_path / "items.parquet").exists()
    monkeypatch.setattr(measure_shards, "clear", lambda task: None)  # so that the shards can still be looked at
    left: list[int] = []
    other = threading.Thread(target=lambda: left.append(multi_node.follow(tmp_path, Launch(1, 2, 0, 1, "127.0.0.1"))))
    other.start()
    with multi_node.gathered(tmp_path, Launch(0, 2, 0, 1, "127.0.0.1")) as together:
        assert together is not None
        assert not (tmp_path / multi_node.MEETING).exists()  # nobody else may come, least of all a method
        run_chains([[job]], 1, None, together)
    other.join()
    assert left == [0]
    assert (tmp_path / "log.1.txt").exists()  # the other machine had a process of its own
    assert (tmp_path / "items.parquet").read_bytes() == whole
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(after) == 5
    assert {name: after[name] for name in done} == done  # finished shards were not drawn again
    monkeypatch.undo()
    run_chains([[job]], 1)  # nothing to do but to clear away
    assert not folder.exists()
    assert measure_shards.is_measured(task)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[multi_node.Machines, list[Any]]]:
    """Two machines, and what became of the second."""
    fate: list[Any] = []

    def other() -> None:
        try:
            fate.append(multi_node.follow(tmp_path, Launch(1, 2, 0, 1, "127.0.0.1")))
        except UnlearnBenchError as problem:
            fate.append(problem)

    thread = threading.Thread(target=other)
    thread.start()
    with multi_node.gathered(tmp_path, Launch(0, 2, 0, 1, "127.0.0.1")) as together:
        assert together is not None
        yield together, fate
    thread.join()


def test_an_error_ends_the_job_on_all_machines(tmp_path: Path, two: Any) -> None:
    together, fate = two
    job = worker_group.Job("nonsense", "the nonsense", tmp_path / "log.txt", {}, processes=2)
    with pytest.raises(RunError, match="unexpected KeyError: 'nonsense'"):
        run_chains([[job]], 1, None, together)
    assert fate == []  # the other machine waits for what is next


@pytest.mark.parametrize(
    "greeting",
    [
        json.dumps({"rank": 1, "local": 1, "nonce": "", "proof": "0" * 64}).encode(),
        '{"proof": "\N{SNOWMAN}"}'.encode(),
        b"[" * 1000,
        b"\xff",
    ],
)
def test_a_stranger_without_the_key_is_not_a_machine(
    greeting: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(multi_node, "PATIENCE", 1.0)

    def stranger() -> None:
        path = tmp_path / multi_node.MEETING
        while not path.exists():
            time.sleep(0.01)
        assert path.stat().st_mode & 0o077 == 0
        with socket.create_connection(("127.0.0.1", json.loads(path.read_text())["port"])) as channel:
            line = multi_node.Line(channel)
            line.receive()
            channel.sendall(greeting + b"\n")
            line.receive()
            line.close()

    thread = threading.Thread(target=stranger)
    thread.start()
    with (
        pytest.raises(RunError, match="1 of 2 processes came within 1 seconds"),
        multi_node.gathered(tmp_path, Launch(0, 2, 0, 1, "127.0.0.1")),
    ):
        pass
    thread.join()
    assert not (tmp_path / multi_node.MEETING).exists()


def test_a_machine_that_finds_no_first_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_node, "PATIENCE", 0.3)
    (tmp_path / multi_node.MEETING).write_text(
        json.dumps({"port": worker_group.free_port(), "key": "left by a killed launch"})
    )
    with pytest.raises(RunError, match="the first machine was not found"):
        multi_node.follow(tmp_path, Launch(1, 2, 0, 1, "127.0.0.1"))


def test_a_launch_is_read_as_torchrun_tells_it() -> None:
    assert launched({}) is None
    found = launched(TORCHRUN)
    assert found == Launch(0, 4, 0, 2, "10.0.0.1")
    assert (found.first, found.stays, found.alone) == (True, True, False)
    second = launched(TORCHRUN | {"RANK": "3", "LOCAL_RANK": "1"})
    assert second is not None
    assert (second.first, second.stays) == (False, False)
    assert tuple(TORCHRUN) == launcher_env.NEEDED


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"LOCAL_WORLD_SIZE": None}, "RANK is set and LOCAL_WORLD_SIZE is not"),
        ({"RANK": "one"}, "RANK is 'one' and must be a number"),
        ({"RANK": "4"}, "RANK 4 of WORLD_SIZE 4"),
        ({"LOCAL_RANK": "2"}, "do not fit"),
        ({"RANK": None, "ACCELERATE_MIXED_PRECISION": "no"}, "--multi_gpu in place of --cpu"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(changed: dict[str, str | None], words: str) -> None:
    environment = {name: value for name, value in {**TORCHRUN, **changed}.items() if value is not None}
    with pytest.raises(RunError, match=words) as caught:
        launched(environment)
    assert "\n" not in str(caught.value)


def test_a_worker_hears_nothing_of_the_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    one = worker_group._environments(worker_group.Job("measure", "", tmp_path / "log", {}), None)
    assert len(one) == 1
    assert not {*TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE", "MASTER_PORT"} & one[0].keys()
    place = worker_group.Place(2, 2, 4, "10.0.0.1", 1234)
    here = worker_group._environments(worker_group.Job("measure", "", tmp_path / "log", {}, processes=4), place)
    assert [(e["RANK"], e["LOCAL_RANK"], e["LOCAL_WORLD_SIZE"], e["WORLD_SIZE"]) for e in here] == [
        ("2", "0", "2", "4"),
        ("3", "1", "2", "4"),
    ]
    assert {(e["MASTER_ADDR"], e["MASTER_PORT"]) for e in here} == {("10.0.0.1", "1234")}
