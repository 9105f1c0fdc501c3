"""A worker group over real processes that speak as they like: what each is answered, and what is said of its end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearnbench.errors import MethodError, PolicyError, RunError, UnlearnBenchError, out_of_memory, peer_lost
from unlearnbench.method import Method
from unlearnbench.policies.policy import load_policy
from unlearnbench.splits import Split
from unlearnbench.training.hooks import Hooks
from unlearnbench.workers import process, worker_group
from unlearnbench.workers.executor import run_job
from unlearnbench.workers.isolation import Isolation
from unlearnbench.workers.jobs import Job
from unlearnbench.workers.messages import Ask, Event, Items, Reply, Request, Trained, Work
from unlearnbench.workers.worker_group import WorkerGroup

SPEAK = r"""
import json, os, pathlib, signal, sys, time
rank = int(os.environ.get("RANK", 0))
started = json.loads(sys.stdin.buffer.readline())["message"]

def say(**message):
    write(json.dumps({"message": message, "arrays": []}).encode() + b"\n")

def write(content):
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()

def hear():
    return json.loads(sys.stdin.buffer.readline())["message"]

def keep(value):
    pathlib.Path(f"kept-{rank}.json").write_text(json.dumps(value))

def done():
    say(kind="done")
"""
TRAINED: dict[str, Any] = {
    "kind": "trained",
    "class_name": "Mine",
    "declared_track": "verifier",
    "start": "base",
    "hooks": [],
    "not_hooks": {},
    "settings": {},
    "steps": 1,
    "seconds": 0.5,
    "parameters": 7,
    "generated": 0,
    "prefilled": 0,
    "forward": 0,
    "trained": 0,
    "environment": {},
}


class Told:
    """A judge that answers by a function, and keeps what it is told in the end."""

    finished = False

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self._answer = answer
        self.trained: list[Trained] = []
        self.clock: Callable[[], float | None] = lambda: None
        self.seconds = 0.0

    def begin(self, clock: Callable[[], float | None]) -> None:
        self.clock = clock

    def answer(self, request: Request, arrays: Sequence[bytes]) -> Reply:
        return Reply(value=self._answer(request))

    def finish(self, trained: Trained, cpu_seconds: float) -> None:
        self.trained.append(trained)
        self.seconds = cpu_seconds


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Event]]:
    """Run a group whose processes run some code in place of a worker's; returns the events."""

    def run(code: str, watch: Callable[[Event], None] | None = None, **options: Any) -> list[Event]:
        argv = [sys.executable, "-I", "-S", "-c", SPEAK + code]
        monkeypatch.setattr(process, "command", lambda *_, **__: argv)
        events: list[Event] = []
        job = Job("none:none", Work(), "seed 1 of mine", tmp_path / "log.txt", **options)
        WorkerGroup(job, watch or events.append, process.start_here).work(threading.Event())
        return events

    return run


def _kept(folder: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("kept-*.json"))]


def test_what_processes_ask_at_once_is_answered_one_at_a_time_and_to_each_its_own(
    tmp_path: Path, work: Callable[..., list[Event]]
) -> None:
    inside, most = 0, 0

    def answer(request: Request) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        assert isinstance(request, Ask)
        return f"answer to {request.text}"

    judge = Told(answer)
    code = 'say(kind="ask", name="verdict", text=str(rank)); keep(hear()["value"]); ' + _says(**TRAINED) + "; done()"
    work(code, judge=judge, processes=4)
    assert _kept(tmp_path) == [f"answer to {rank}" for rank in range(4)]
    assert most == 1
    assert [trained.class_name for trained in judge.trained] == ["Mine"]  # the first speaks for all


def _says(**message: Any) -> str:
    return f"say(**{message!r})"


def test_where_the_system_cannot_answer_the_process_is_told_and_does_not_wait(
    tmp_path: Path, work: Callable[..., list[Event]]
) -> None:
    def answer(_: Request) -> str:
        raise OSError(28, "No space left on device", "copy")

    code = 'say(kind="ask", name="teacher"); keep(hear()); ' + _says(**TRAINED) + "; done()"
    work(code, judge=Told(answer))
    (told,) = _kept(tmp_path)
    assert told["error"].startswith("seed 1 of mine asked for teacher: No space left on device (copy); ")
    assert "\n" not in told["error"] and told["value"] is None


@pytest.mark.parametrize("problem", [PolicyError("no such policy"), MethodError("judged once")])
def test_what_the_judge_refuses_is_told_to_the_process(
    tmp_path: Path, work: Callable[..., list[Event]], problem: UnlearnBenchError
) -> None:
    def answer(_: Request) -> str:
        raise problem

    code = 'say(kind="ask", name="teacher"); keep(hear()["error"]); ' + _says(**TRAINED) + "; done()"
    work(code, judge=Told(answer))
    assert _kept(tmp_path) == [str(problem)]


def test_a_job_without_a_judge_answers_nothing(tmp_path: Path, work: Callable[..., list[Event]]) -> None:
    work('say(kind="ask", name="answer"); keep(hear()["error"]); done()')
    assert _kept(tmp_path) == ["seed 1 of mine asked for answer, which this command does not give"]


def test_patience_is_counted_from_the_last_word_of_anybody(
    work: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Slow(threading.Timer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            time.sleep(0.002)  # the others speak meanwhile

    monkeypatch.setattr(threading, "Timer", Slow)
    events = work('for _ in range(5): say(kind="items", items=1)\ndone()', processes=4, patience=60.0)
    assert events == [Items(items=1)] * 5  # those of the first process
    assert len(made) == 1 + 4 * 6
    assert all(timer.finished.is_set() for timer in made)  # none is left to end a group that works


def test_a_process_that_says_nothing_is_ended_in_one_sentence(work: Callable[..., list[Event]]) -> None:
    began = time.monotonic()
    with pytest.raises(MethodError, match=r"seed 1 of mine reported nothing for 1 seconds.*--patience") as caught:
        work('say(kind="items", items=1); time.sleep(600)', patience=1.0)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60


HEAD = b'{"message": {"kind": "%s"}, "arrays": [%s]}\n'
NAN = b'{"message": {"kind": "progress", "seed": 1, "stage": "train", "done": NaN, "rate": 1}, "arrays": []}\n'
JUNK = {
    "text": b"hello\n",
    "no line": b'{"message": ',
    "bytes": b"\xff\xfe\x00\n",
    "deep": b"[" * 200_000 + b"\n",
    "a long number": b'{"message": 1, "arrays": [' + b"9" * 5000 + b"]}\n",
    "a list": b"[]\n",
    "an unknown kind": HEAD % (b"praise", b""),
    "another record": HEAD % (b"trained", b""),
    "no number": NAN,
    "too large": HEAD % (b"done", b"99999999999999"),
    "negative": HEAD % (b"done", b"-1"),
    "cut off": HEAD % (b"done", b"100") + b"short",
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk_on_the_pipe_is_one_sentence(junk: str, work: Callable[..., list[Event]], tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(JUNK[junk])
    stays = "" if junk in ("no line", "cut off") else "time.sleep(600)"
    sentence = r"^seed 1 of mine sent .*; remove what writes to the process's own pipe$"
    with pytest.raises(MethodError, match=sentence) as caught:
        work(f'write(pathlib.Path("junk").read_bytes()); {stays}')
    assert "\n" not in str(caught.value) and "unexpected" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_process_that_leaves_early_is_named(work: Callable[..., list[Event]]) -> None:
    with pytest.raises(MethodError, match="seed 1 of mine ended its own process before its work was done"):
        work("os._exit(0)")
    with pytest.raises(MethodError, match="seed 1 of mine ended without a word about what it did"):
        work("done()", judge=Told(lambda _: None))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os._exit(3)", r"ended with status 3; its last words are in \S+log.txt; rerun"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"ended with status -9 \(killed: out of memory\?\)"),
        ("os.abort()", r"ended with status -6 \(aborted: is the disk full\?\)"),
    ],
)
def test_a_status_is_one_sentence(code: str, message: str, work: Callable[..., list[Event]]) -> None:
    with pytest.raises(RunError, match=f"seed 1 of mine {message}") as caught:
        work(code)
    assert "\n" not in str(caught.value)


def test_the_error_that_a_worker_reports_is_raised_as_it_is(work: Callable[..., list[Event]]) -> None:
    for told, raised in (("PolicyError", PolicyError), ("SystemExit", RunError), ("json", RunError)):
        with pytest.raises(raised, match=r"^the policy is gone$"):
            work(_says(kind="failed", type=told, message="the policy is gone") + "; sys.exit(1)")


LOSES = """
if rank == 0:
    say(kind="lost")
    time.sleep(0.1)
    sys.exit(1)
time.sleep({after})
{end}
"""
KILLED, LOST, HANGS = "os.kill(os.getpid(), signal.SIGKILL)", 'say(kind="lost"); sys.exit(1)', "time.sleep(600)"


@pytest.mark.parametrize("killed_is_seen_after", [0.0, 0.2])
def test_a_process_that_was_killed_is_told_and_not_what_the_others_met_then(
    work: Callable[..., list[Event]], killed_is_seen_after: float
) -> None:
    """gloo tells a survivor of a reset connection in the middle of a hook, before the kill is seen or after it."""
    from torch.distributed import DistBackendError

    reset = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    assert peer_lost(reset) and peer_lost(DistBackendError("NCCL")) and not peer_lost(RuntimeError("shapes do not fit"))

    def lose(self: Any, loop: Any) -> None:
        raise reset

    with pytest.raises(RuntimeError, match="Connection reset"):
        Hooks(type("Honest", (Method,), {"train": lose})(None)).call("train", None)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="seed 1 of mine ended with status -9"):
        work(LOSES.format(after=killed_is_seen_after, end=KILLED), processes=2)
    with pytest.raises(RunError, match="lost one another"):
        work(LOSES.format(after=killed_is_seen_after, end=LOST), processes=2)


def test_a_process_that_others_lost_and_that_hangs_is_ended(
    work: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_group, "GRACE", 0.3)
    with pytest.raises(RunError, match="lost one another"):  # not that it was killed: that was done from here
        work(LOSES.format(after=0, end=HANGS), processes=2)


def test_a_failure_ends_the_other_processes(work: Callable[..., list[Event]]) -> None:
    failed = _says(kind="failed", type="MethodError", message="the hook raised") + "; sys.exit(1)"
    with pytest.raises(MethodError, match="the hook raised"):
        work(f"if rank == 0: time.sleep(600)\n{failed}", processes=2)
    with pytest.raises(RunError, match="ended with status 3"):
        work("if rank == 0: time.sleep(600)\nos._exit(3)", processes=2)


def test_too_little_memory_is_one_sentence_also_in_a_hook_and_for_a_policy(
    monkeypatch: pytest.MonkeyPatch, micro: Split, tmp_path: Path
) -> None:
    """What torch itself raises for it: by a worker, through a hook, and while a policy is loaded."""
    import transformers

    def take(*_: Any, **__: Any) -> None:
        torch.empty(1 << 50)

    with pytest.raises(RuntimeError) as caught:
        take()
    assert out_of_memory(caught.value) and not out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="allocate memory"):
        Hooks(type("Greedy", (Method,), {"setup": take})(None)).call("setup")  # type: ignore[arg-type]
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", take)
    with pytest.raises(RunError, match="too little memory to load the policy"):
        load_policy(micro.policy_path)
    with pytest.raises(RunError, match="out of memory; use fewer --workers"):
        run_job(Job("worker_jobs:take_memory", Work(), "seed 1 of mine", tmp_path / "log.txt"))


LAUNCHED = {"RANK": "5", "WORLD_SIZE": "9", "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "9", "MASTER_ADDR": "10.0.0.1"}
LAUNCHED |= {"MASTER_PORT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
SECRETS = {"HF_TOKEN": "x", "MY_API_KEY": "x", "AWS_SECRET_ACCESS_KEY": "x", "PGPASSWORD": "x"}


def test_processes_find_one_another_and_nothing_of_a_launcher_and_foreign_code_no_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Callable[..., list[Event]]
) -> None:
    for name, value in {**LAUNCHED, **SECRETS}.items():
        monkeypatch.setenv(name, value)
    keep = "keep(dict(os.environ)); done()"
    work(keep)
    (alone,) = _kept(tmp_path)
    assert not LAUNCHED.keys() & alone.keys()
    assert SECRETS.items() <= alone.items()  # our own code may need them, to fetch a policy
    assert alone["OMP_NUM_THREADS"] == "1"
    work(keep, processes=2)
    found = _kept(tmp_path)
    assert [(e["RANK"], e["LOCAL_RANK"], e["WORLD_SIZE"], e["LOCAL_WORLD_SIZE"]) for e in found] == [
        ("0", "0", "2", "2"),
        ("1", "1", "2", "2"),
    ]
    assert {e["MASTER_ADDR"] for e in found} == {"127.0.0.1"}
    assert len({e["MASTER_PORT"] for e in found}) == 1 and found[0]["MASTER_PORT"] != "1"
    work(keep, isolation=Isolation())
    assert not SECRETS.keys() & _kept(tmp_path)[0].keys()


BURN = """
import subprocess
{before}
burning = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time\\nwhile time.process_time() < .8: pass"])
burning.wait()
time.sleep(0.2)
say(kind="items", items=1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_processor_seconds_are_those_of_a_process_and_of_all_that_it_started(
    before: str, work: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a child whose end is ignored, which the system counts for nobody."""
    monkeypatch.setattr(worker_group, "LOOK", 0.05)
    judge, seen = Told(lambda _: None), list[float | None]()
    code = BURN.format(before=before) + _says(**TRAINED) + "; done()"
    work(code, lambda _: seen.append(judge.clock()), judge=judge)
    assert seen[0] is not None and 0.6 <= seen[0] < 10
    assert 0.6 <= judge.seconds < 10
