"""Jobs on a Ray cluster: every worker process is started, heard and ended by an actor on some node.

    command (judge, executor) -- Ray -- actor on a node -- pipe -- supervisor, worker

The judge stays in the command's own process, where no worker can name it; a node gets what a worker process gets and
nothing else. Ray carries messages as plain bytes, which are read and validated on the command's side. The nodes share
the run's folder and have the same environment.
"""

from __future__ import annotations

import io
import logging
import os
import platform
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import unlearnbench
from unlearnbench.errors import RunError
from unlearnbench.workers.channel import Arrays, ChannelError, pack, receive, receive_json
from unlearnbench.workers.jobs import Compute, Job
from unlearnbench.workers.messages import Event, Reply, Request
from unlearnbench.workers.process import GRACE, LocalProcess, NodeLost, Place, Process, Start, free_port, places

try:
    import ray
    from ray.exceptions import RayActorError, RayError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
except ImportError as error:
    raise RunError('--ray needs Ray, which is not installed: pip install "unlearnbench[ray]"') from error

HERE = "local"
"""The address that starts a cluster of this machine alone."""
CHECK = 60.0
"""Seconds that a node has to say that it sees the run's folder."""


class Host:
    """The actor beside one worker process. Its methods run in threads, so that `end` is heard while `next` waits."""

    def __init__(self) -> None:
        self._process: LocalProcess | None = None

    def meeting(self) -> tuple[str, int]:
        """Address and free port of this node, for the processes of one job to meet."""
        address: str = ray.util.get_node_ip_address()
        return address, free_port(address)

    def begin(self, place: str, start: str) -> None:
        """Start the process and hand it its job."""
        self._process = LocalProcess(Place.model_validate_json(place))
        self._process.begin(Start.model_validate_json(start))

    def next(self, reply: str | None) -> bytes | str | None:
        """Answer the last request, and wait for the next message: its bytes, what is wrong with it, None at the end."""
        assert self._process is not None
        if reply is not None:
            self._process.reply(Reply.model_validate_json(reply))
        try:
            found = receive_json(self._process.output)
        except ChannelError as problem:
            return str(problem)
        return None if found is None else pack(*found)

    def used(self) -> float | None:
        """Processor seconds so far."""
        return None if self._process is None else self._process.used()

    def end(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.end()

    def wait(self) -> tuple[int, float]:
        """Exit status and processor seconds."""
        assert self._process is not None
        return self._process.wait(), self._process.cpu_seconds


class RemoteProcess:
    """A worker process on a node, as `WorkerGroup` sees it."""

    def __init__(self, host: Any, place: Place, label: str, free: Callable[[], None]) -> None:
        self._host, self._place, self._label, self._free = host, place, label, free
        self._reply: str | None = None
        self._closed = False
        self.killed = False
        self.cpu_seconds = 0.0

    def begin(self, start: Start) -> None:
        self._call(self._host.begin, self._place.model_dump_json(), start.model_dump_json())

    def receive(self) -> tuple[Event | Request, Arrays] | None:
        reply, self._reply = self._reply, None
        found = self._call(self._host.next, reply)
        if isinstance(found, str):
            raise ChannelError(found)
        return None if found is None else receive(io.BytesIO(found))

    def reply(self, reply: Reply) -> None:
        self._reply = reply.model_dump_json()

    def end(self) -> None:
        if not self._closed:
            self.killed = True
            with suppress(RayError):
                self._host.end.remote()

    def used(self) -> float | None:
        try:
            seconds: float | None = ray.get(self._host.used.remote(), timeout=GRACE)
        except RayError:
            return None
        return seconds

    def wait(self) -> int:
        try:
            status, self.cpu_seconds = ray.get(self._host.wait.remote(), timeout=4 * GRACE)
        except RayError:
            return -1
        return int(status)

    def close(self) -> None:
        self._closed = True
        with suppress(RayError):
            ray.kill(self._host)  # and with it whatever is left of the process: it reads the end of its input
        self._free()

    def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return ray.get(method.remote(*arguments))
        except RayActorError as problem:
            raise NodeLost(f"the machine that {self._label} ran on was lost") from problem
        except RayError as problem:
            cause = getattr(problem, "cause", None) or problem
            why = str(cause).strip().splitlines()[-1][:300] if str(cause).strip() else type(cause).__name__
            raise RunError(f"{self._label} could not be run on the cluster: {why}") from problem


class Cluster:
    """The nodes of a Ray cluster as a place for jobs: one processor core a process, and a GPU where there are any."""

    def __init__(self, address: str) -> None:
        if not ray.is_initialized():
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            own = address == HERE
            try:
                _require_port(address)
                ray.init(
                    None if own else address,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    include_dashboard=False if own else None,
                )
            except (OSError, RuntimeError, ValueError, RayError) as problem:
                why = str(problem).strip().splitlines()[0][:300]
                raise RunError(
                    f"no Ray cluster at {address!r} ({why}); start one with `ray start --head`, or give --ray alone"
                ) from problem
        self._host = ray.remote(Host)

    @property
    def gpus(self) -> int:
        """GPUs of the whole cluster."""
        return self._count("GPU")

    @property
    def cores(self) -> int:
        """Processor cores that Ray gives out on the whole cluster."""
        return self._count("CPU")

    @staticmethod
    def _count(resource: str) -> int:
        resources: dict[str, float] = ray.cluster_resources()
        return int(resources.get(resource, 0))

    def at_once(self, chains: int, compute: Compute) -> int:
        """As many as the cores, and the GPUs where there are any, of all nodes allow for."""
        return compute.workers or max(1, min(chains, (self.gpus or self.cores) // compute.processes))

    def start(self, job: Job) -> Sequence[Process]:
        bundle = {"CPU": 1.0} | ({"GPU": 1.0} if self.gpus else {})
        group = placement_group([bundle] * job.processes, strategy="PACK")
        try:
            ray.get(group.ready())
            hosts = [
                self._host.options(
                    num_cpus=bundle["CPU"],
                    num_gpus=bundle.get("GPU", 0.0),
                    max_concurrency=4,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
                ).remote()
                for rank in range(job.processes)
            ]
            meeting = self._meeting(hosts) if job.processes > 1 else None
        except RayError as problem:
            remove_placement_group(group)
            raise NodeLost(f"a machine that {job.label} was to run on was lost") from problem
        left = [job.processes]

        def free() -> None:
            left[0] -= 1
            if not left[0]:
                with suppress(RayError):
                    remove_placement_group(group)

        found = places(job, meeting)
        return [RemoteProcess(host, place, job.label, free) for host, place in zip(hosts, found, strict=True)]

    def _meeting(self, hosts: Sequence[Any]) -> Mapping[str, str]:
        """Every process sees one machine of its own: Ray shows it only its own GPU."""
        address, port = ray.get(hosts[0].meeting.remote())
        shared = {"MASTER_ADDR": address, "MASTER_PORT": str(port), "WORLD_SIZE": str(len(hosts))}
        return {**shared, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}

    def require(self, folder: Path, processes: int) -> None:
        """Every node must have this package and see the run's folder, and there must be room for one job."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if self.cores < processes or 0 < self.gpus < processes:
            raise RunError(
                f"the cluster has {self.cores} cores and {self.gpus} GPUs, too few for a job of {processes} processes; "
                "give fewer --processes, or add nodes"
            )
        folder.mkdir(parents=True, exist_ok=True)
        word = secrets.token_hex(8)
        sign = folder.resolve() / f".shared-{word}"
        sign.write_text(word)
        try:
            task = ray.remote(_seen)
            asked = [
                task.options(
                    num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(str(sign))
                for node in nodes
            ]
            mine = (word, *_versions())
            for node, said in zip(nodes, ray.get(asked, timeout=CHECK), strict=True):
                _require(node["NodeManagerAddress"], said, mine, folder)
        except RayError as problem:
            raise RunError(
                f"a node of the cluster did not answer within {CHECK:.0f} seconds; run it again"
            ) from problem
        finally:
            sign.unlink(missing_ok=True)


def _require_port(address: str) -> None:
    """Ray itself looks for minutes. Raises OSError where nobody listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CHECK).close()


def _require(address: str, said: tuple[str, ...], mine: tuple[str, ...], folder: Path) -> None:
    if said[0] != mine[0]:
        raise RunError(
            f"the node {address} does not see {folder.resolve()}; give an --out on a file system that all nodes share"
        )
    if said[1:] != mine[1:]:
        raise RunError(
            f"the node {address} has unlearnbench {said[1]} and Python {said[2]}, and this machine {mine[1]} and "
            f"{mine[2]}; install the same on every node"
        )


def _seen(sign: str) -> tuple[str, ...]:
    path = Path(sign)
    return (path.read_text() if path.is_file() else "", *_versions())


def _versions() -> tuple[str, str]:
    return unlearnbench.__version__, platform.python_version()


@cache
def cluster(address: str) -> Cluster:
    """The cluster at this address (`auto`, `ray://host:10001`, HOST:PORT), or one started here (`local`)."""
    return Cluster(address)
