"""Several machines at one command: the first one has the plan and the labels, the others lend their processes.

The first machine waits at a free port, whose number and a fresh key it writes into the run's folder, which all machines
share; each of the others proves that it has read the key, and is then a `crew.Member`: it is handed jobs, starts its
share of the worker processes, passes on what they say and ask, and ends when it is told to or the first machine is
gone. Lines of JSON over TCP. Weights and gradients travel between the workers themselves, by torch.distributed.
"""

from __future__ import annotations

import hmac
import json
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unlearnbench.errors import RunError, UnlearnBenchError
from unlearnbench.workers.launcher_env import Launch
from unlearnbench.workers.worker_group import Crew, Event, Job, Place, free_port

MEETING = ".meeting.json"
PATIENCE = 300.0
"""Seconds that machines wait for one another at the start."""
GRACE = 30.0
"""Seconds that a machine may take to end its workers, and a greeting to be answered."""
GREETING = 1024
"""Characters that a greeting may have: whoever sends it is a stranger."""
_LOOPBACK = ("127.0.0.1", "localhost")


class Line:
    """Messages to and from another machine, one JSON object a line."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._file = channel.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Say it, if anybody is still there to hear it."""
        with suppress(OSError), self._lock:
            self._channel.sendall((json.dumps(message) + "\n").encode())

    def receive(self, limit: int = -1) -> dict[str, Any] | None:
        """The next message, or None once the other side is gone or says more than `limit` characters."""
        try:
            line = self._file.readline(limit)
            message = json.loads(line) if line.endswith("\n") else None
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def patient(self) -> None:
        """From now on wait as long as the other machine lives; the kernel asks after it when nothing is said."""
        self._channel.settimeout(None)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                self._channel.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)

    def close(self) -> None:
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._file.close()
        self._channel.close()


class Machine:
    """Another machine, as the first one sees it: a member of every crew."""

    def __init__(self, line: Line, rank: int, local: int) -> None:
        self.rank, self.local = rank, local
        self._line = line
        self._place: Place | None = None
        self._status = 0
        self._timer: threading.Timer | None = None

    def at(self, place: Place) -> Machine:
        """The same machine, which is to take these ranks in the next job."""
        self._place, self._status = place, 0
        return self

    def begin(self, job: Job) -> None:
        assert self._place is not None
        self._line.send(
            {
                "job": {
                    "kind": job.kind,
                    "label": job.label,
                    "log": str(job.log.resolve()),
                    "payload": dict(job.payload),
                    "environment": dict(job.environment),
                    "processes": job.processes,
                },
                "place": [self._place.first, self._place.here, self._place.of, self._place.address, self._place.port],
            }
        )

    def events(self) -> Iterator[Event]:
        while (message := self._line.receive()) is not None:
            if "ended" in message:
                self._status = int(message["ended"])
                break
            yield message
        else:
            self._status = 1
            ranks = f"rank {self.rank}" + (f" to {self.rank + self.local - 1}" if self.local > 1 else "")
            told = f"the machine with {ranks} is gone; start it again, and the same command goes on where it stopped"
            yield {"error": {"type": "RunError", "message": told}}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reply(self, answer: Mapping[str, Any]) -> None:
        self._line.send({"answer": dict(answer)})

    def end(self) -> None:
        self._line.send({"stop": True})
        if self._timer is None:
            self._timer = threading.Timer(GRACE, self._line.close)
            self._timer.daemon = True
            self._timer.start()

    def wait(self) -> int:
        return self._status

    def close(self) -> None:
        """Nothing: there may be another job."""

    def leave(self, status: int) -> None:
        """Let the machine go, with this exit status."""
        self._line.send({"leave": status})
        self._line.close()


class Machines:
    """The first machine and the others, which do jobs together."""

    def __init__(self, launch: Launch, others: list[Machine]) -> None:
        self._launch, self._others = launch, others

    def crew(self, job: Job, on_event: Any) -> Crew:
        """All processes of all machines, for one job."""
        if job.processes == 1:
            return Crew(job, on_event)
        address, port = self._launch.address, free_port("")
        others = [
            machine.at(Place(machine.rank, machine.local, job.processes, address, port)) for machine in self._others
        ]
        return Crew(job, on_event, Place(0, self._launch.local, job.processes, address, port), others)


@contextmanager
def gathered(folder: Path, launch: Launch | None) -> Iterator[Machines | None]:
    """All machines of a launch, for the first one; the others work here until they are let go.

    They leave with SystemExit and the first one's status. `folder` is the same one on all machines. None where there is
    one machine. Raises RunError where not all come.
    """
    if launch is None or launch.alone:
        yield None
        return
    if not launch.first:
        raise SystemExit(follow(folder, launch))
    others = _await(folder, launch)
    status = 1
    try:
        yield Machines(launch, others)
        status = 0
    finally:
        for machine in others:
            machine.leave(status)


# --- the first machine waits ----------------------------------------------------------------------------------------


def _await(folder: Path, launch: Launch) -> list[Machine]:
    """The other machines, once all have come."""
    folder.mkdir(parents=True, exist_ok=True)
    key, found = secrets.token_hex(32), list[Machine]()
    host = "127.0.0.1" if launch.address in _LOOPBACK else ""
    until = time.monotonic() + PATIENCE
    with socket.create_server((host, 0)) as server:
        _write(folder / MEETING, {"port": server.getsockname()[1], "key": key})
        try:
            while (here := launch.local + sum(machine.local for machine in found)) < launch.world:
                server.settimeout(max(0.01, until - time.monotonic()))
                try:
                    channel, _ = server.accept()
                except TimeoutError:
                    raise RunError(
                        f"{here} of {launch.world} processes came within {PATIENCE:.0f} seconds; see what the other "
                        f"machines say, and that {folder} is on a disk that all of them share"
                    ) from None
                machine = _greeted(channel, key)
                if machine is not None and machine.rank not in {other.rank for other in found}:
                    found.append(machine)
        except BaseException:
            for machine in found:
                machine.leave(1)
            raise
        finally:
            (folder / MEETING).unlink(missing_ok=True)  # before any method runs: nobody else may come
    found.sort(key=lambda machine: machine.rank)
    expected = launch.local
    for machine in found:
        if machine.rank != expected:
            for other in found:
                other.leave(1)
            raise RunError(
                f"the first process of a machine has rank {machine.rank} where {expected} was expected; give the "
                "processes of a machine ranks that follow one another (srun --distribution=block)"
            )
        expected += machine.local
    return found


def _greeted(channel: socket.socket, key: str) -> Machine | None:
    """A machine that knows the key, after both sides have shown that they do; None for anybody else."""
    channel.settimeout(GRACE)
    line, mine = Line(channel), secrets.token_hex(16)
    line.send({"nonce": mine})
    hello = line.receive(GREETING) or {}
    proof = _proof(key, f"machine {mine} {hello.get('rank')} {hello.get('local')}")
    if not _same(hello.get("proof"), proof):
        line.close()
        return None
    line.send({"proof": _proof(key, f"first {hello.get('nonce')}")})
    line.patient()
    return Machine(line, int(hello["rank"]), int(hello["local"]))


def _proof(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()


def _same(shown: object, proof: str) -> bool:
    return hmac.compare_digest(str(shown).encode(errors="replace"), proof.encode())


def _write(path: Path, meeting: Mapping[str, Any]) -> None:
    """For the eyes of this user alone, and never half written."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(meeting, file)
    fresh.replace(path)


# --- the others work ------------------------------------------------------------------------------------------------


def follow(folder: Path, launch: Launch) -> int:
    """Work for the first machine until it lets us go; returns the exit status it names.

    Raises RunError where it is not found, or is lost.
    """
    line = _join(folder, launch)
    answers: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    work: _Work | None = None
    try:
        while (message := line.receive()) is not None:
            if "job" in message:
                work = _Work(message, line, answers)
            elif "answer" in message:
                answers.put(message["answer"])
            elif "stop" in message and work is not None:
                work.stop()
            elif "leave" in message:
                return int(message["leave"])
    finally:
        if work is not None:
            work.stop()
        line.close()
    raise RunError("the first machine is gone; start it again, and the same command goes on where it stopped")


class _Work:
    """This machine's share of one job, in a thread of its own."""

    def __init__(self, message: Mapping[str, Any], line: Line, answers: queue.SimpleQueue[Mapping[str, Any]]) -> None:
        self._line, self._answers = line, answers
        self._stopping = threading.Event()
        told, place = message["job"], Place(*message["place"])
        log = Path(told["log"])
        self._job = Job(
            kind=told["kind"],
            label=told["label"],
            log=log.with_name(f"{log.stem}.{place.first}{log.suffix}"),
            payload=told["payload"],
            environment=told["environment"],
            answer=self._ask,
            processes=told["processes"],
        )
        self._place = place
        self._crew: Crew | None = None
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._do)
        self._thread.start()

    def stop(self) -> None:
        """End the workers, and wait until they have."""
        self._stopping.set()
        with self._starting:
            if self._crew is not None:
                self._crew.end()
        self._thread.join()

    def _do(self) -> None:
        status = 1
        try:
            with self._starting:
                self._crew = Crew(self._job, None, self._place)
            self._crew.work(self._stopping)
            if not self._stopping.is_set():
                self._line.send({"done": True})
                status = 0
        except UnlearnBenchError as problem:
            self._line.send({"error": {"type": type(problem).__name__, "message": str(problem)}})
        except Exception as problem:
            told = f"unexpected {type(problem).__name__} on another machine: {problem}; see {self._job.log}"
            self._line.send({"error": {"type": "RunError", "message": told}})
        finally:
            self._line.send({"ended": status})

    def _ask(self, name: str) -> Any:
        """What the first machine answers: labels are there, and what is asked is noted there."""
        self._line.send({"ask": name})  # one question at a time: a crew sees to that
        answer = self._answer()
        if "error" in answer:
            raise RunError(answer["error"])
        return answer["reply"]

    def _answer(self) -> Mapping[str, Any]:
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                return self._answers.get(timeout=1)
        raise RunError("the command was stopped")


def _join(folder: Path, launch: Launch) -> Line:
    """Find the first machine by what it writes into the folder."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        # What another launch has left there leads nowhere: look again.
        with suppress(OSError, ValueError, KeyError):
            meeting = json.loads((folder / MEETING).read_text())
            line = Line(socket.create_connection((launch.address, int(meeting["port"])), timeout=GRACE))
            if _introduced(line, meeting["key"], launch):
                return line
            line.close()
        time.sleep(0.2)
    raise RunError(
        f"the first machine was not found within {PATIENCE:.0f} seconds; see what it says, that {folder} is on a disk "
        f"that all machines share, and that {launch.address} can be reached from here"
    )


def _introduced(line: Line, key: str, launch: Launch) -> bool:
    """Greet the first machine; whether it has shown that it knows the key."""
    mine, theirs = secrets.token_hex(16), (line.receive(GREETING) or {}).get("nonce")
    proof = _proof(key, f"machine {theirs} {launch.rank} {launch.local}")
    line.send({"rank": launch.rank, "local": launch.local, "nonce": mine, "proof": proof})
    shown = (line.receive(GREETING) or {}).get("proof")
    line.patient()
    return _same(shown, _proof(key, f"first {mine}"))
