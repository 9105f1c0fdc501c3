"""A crew whose members speak at the same time: what they ask is answered in turn, and patience is counted once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearnbench.errors import RunError, out_of_memory, peer_lost
from unlearnbench.policies.policy import load_policy
from unlearnbench.splits import Split
from unlearnbench.training.hooks import Hooks
from unlearnbench.workers.worker_group import Crew, Event, Job, Place


class Speaker:
    """A member that says what it was given, together with the others, and keeps the answers."""

    def __init__(self, together: threading.Barrier, events: list[Event]) -> None:
        self.together, self.said = together, events
        self.answers: list[Mapping[str, Any]] = []

    def begin(self, job: Job) -> None:
        self.together.wait(10)

    def events(self) -> Iterator[Event]:
        yield from self.said
        yield {"done": True}

    def reply(self, answer: Mapping[str, Any]) -> None:
        self.answers.append(answer)

    def end(self) -> None: ...

    def wait(self) -> int:
        return 0

    def close(self) -> None: ...


def _work(folder: Path, events: list[Event], **options: Any) -> list[Speaker]:
    """Four members that say the same at the same time."""
    together = threading.Barrier(4)
    speakers = [Speaker(together, events) for _ in range(4)]
    job = Job("train", "seed 1", folder / "log.txt", {}, processes=4, **options)
    Crew(job, None, Place(0, 0, 4, "127.0.0.1", 1), speakers).work(threading.Event())
    return speakers


def test_what_all_processes_ask_for_at_once_is_copied_for_them_once(tmp_path: Path) -> None:
    copies: list[str] = []

    def answer(name: str) -> str:
        if not copies:
            time.sleep(0.05)  # a policy is copied
            copies.append(name)
        return copies[0]

    speakers = _work(tmp_path, [{"ask": "teacher"}], answer=answer)
    assert copies == ["teacher"]
    assert [speaker.answers for speaker in speakers] == [[{"reply": "teacher"}]] * 4


def test_where_the_system_cannot_answer_the_process_is_told_and_does_not_wait(tmp_path: Path) -> None:
    def answer(name: str) -> str:
        raise OSError(28, "No space left on device", "copy")

    (told,) = _work(tmp_path, [{"ask": "teacher"}], answer=answer)[3].answers
    assert told["error"].startswith("seed 1 asked for teacher: No space left on device (copy); ")
    assert "\n" not in told["error"]


def test_patience_is_counted_from_the_last_word_of_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Slow(threading.Timer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            time.sleep(0.002)  # the others speak meanwhile

    monkeypatch.setattr(threading, "Timer", Slow)
    _work(tmp_path, [{"items": 1}] * 5, patience=60.0)
    assert len(made) == 1 + 4 * 6
    assert all(timer.finished.is_set() for timer in made)  # none is left to end a crew that works


def test_too_little_memory_is_one_sentence_also_in_a_hook_and_for_a_policy(
    monkeypatch: pytest.MonkeyPatch, micro: Split
) -> None:
    """What torch itself raises for it: by a worker, through a hook, and while a policy is loaded."""
    import transformers

    def take(*_: Any, **__: Any) -> None:
        torch.empty(1 << 50)

    with pytest.raises(RuntimeError) as caught:
        take()
    assert out_of_memory(caught.value) and not out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="allocate memory"):
        Hooks(type("Greedy", (), {"setup": take})()).call("setup")  # type: ignore[arg-type]
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", take)
    with pytest.raises(RunError, match="too little memory to load the policy"):
        load_policy(micro.policy_path)

    code = (
        "import torch, unlearnbench.workers.worker as worker\n"
        "worker.measure = lambda *_: torch.empty(1 << 50)\n"
        "raise SystemExit(worker.main())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as worker:  # type: ignore[call-overload]
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write('{"kind": "measure"}\n')
        worker.stdin.flush()  # and left open: a worker ends with its parent
        told = json.loads(worker.stdout.readline())["error"]
        assert worker.wait() == 1
    assert told["type"] == "RunError" and "out of memory; use fewer --workers" in told["message"]


class Ends(Speaker):
    """A member that says what it was given and ends with a status."""

    def __init__(self, events: list[Event], status: int, after: float) -> None:
        super().__init__(threading.Barrier(1), events)
        self.status, self.after = status, after

    def wait(self) -> int:
        time.sleep(self.after)
        return self.status

    def events(self) -> Iterator[Event]:
        yield from self.said


@pytest.mark.parametrize("killed_is_seen_after", [0.0, 0.2])
def test_a_process_that_was_killed_is_told_and_not_what_the_others_met_then(
    tmp_path: Path, killed_is_seen_after: float
) -> None:
    """gloo tells a survivor of a reset connection in the middle of a hook, before the kill is seen or after it."""
    from torch.distributed import DistBackendError

    reset = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    assert peer_lost(reset) and peer_lost(DistBackendError("NCCL")) and not peer_lost(RuntimeError("shapes do not fit"))

    def lose(_: Any) -> None:
        raise reset

    with pytest.raises(RuntimeError, match="Connection reset"):
        Hooks(type("Honest", (), {"train": lose})()).call("train")  # type: ignore[arg-type]
    job, place = Job("train", "seed 1", tmp_path / "log.txt", {}, processes=2), Place(0, 0, 2, "127.0.0.1", 1)
    with pytest.raises(RunError, match="seed 1 ended with status -9"):
        members = [Ends([{"lost": True}], 1, 0.1), Ends([], -9, killed_is_seen_after)]
        Crew(job, None, place, members).work(threading.Event())
    with pytest.raises(RunError, match="lost one another"):
        both = [Ends([{"lost": True}], 1, 0.0) for _ in range(2)]
        Crew(job, None, place, both).work(threading.Event())
