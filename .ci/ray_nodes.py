"""Commands on simulated nodes of a Ray cluster on this machine, some of which are killed while they work.

    python .ci/ray_nodes.py [FOLDER]

Each must give what the same command gives without Ray, byte for byte: an evaluation on two nodes; one whose node is
killed in training, and one in measuring; a curation whose node is killed twice; two processes that train together on
two nodes. The README's two nodes must work as written. No process may be left. FOLDER, which keeps what was made, must
be a new one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from several_processes import small

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from documents import blocks  # noqa: E402

PLAIN = [sys.executable, "-m", "unlearnbench"]
LIMIT = 1500
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
QUICK_TO_MISS = {"health_check_period_ms": 500, "health_check_timeout_ms": 3000, "health_check_failure_threshold": 6}


@contextmanager
def nodes(count: int) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head without cores, so that nothing is lost with it, and nodes of one core each."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "_system_config": QUICK_TO_MISS},
        shutdown_at_exit=True,
    )
    try:
        yield cluster, [cluster.add_node(**NODE) for _ in range(count)]
    finally:
        cluster.shutdown()


def start(words: Sequence[str], log: Path) -> subprocess.Popen[str]:
    """Begin a command."""
    with log.open("a") as file:
        return subprocess.Popen([*PLAIN, *words], stdout=subprocess.PIPE, stderr=file, text=True)


def ended(process: subprocess.Popen[str], log: Path) -> str:
    """What a command has printed, once it has ended well."""
    printed, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, f"{process.args} ended with {process.returncode}:\n{log.read_text()[-3000:]}"
    return printed


def losing(
    cluster: Cluster, machines: list[Any], process: subprocess.Popen[str], log: Path, signs: Sequence[tuple[Path, str]]
) -> None:
    """Kill the busy node as soon as a file like each sign is there, and let another one join."""
    for folder, sign in signs:
        until = time.monotonic() + LIMIT
        while not list(folder.glob(sign)):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, f"no {sign} in {folder}"
            time.sleep(0.01)
        gone = machines.pop(0)
        began = time.monotonic()
        cluster.remove_node(gone, allow_graceful=False)
        machines.append(cluster.add_node(**NODE))
        print(f"  a node was killed at {sign}; removed and replaced in {time.monotonic() - began:.1f} s", flush=True)
    ended(process, log)


def told_of_loss(log: Path) -> int:
    """How often the command said that a machine was lost."""
    return log.read_text().count("was lost; ")


def result(folder: Path) -> dict[str, Any]:
    """result.json without times."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "cpu_seconds", "cpu_seconds_per_flop_over_null"):
        found["cost"].pop(name, None)
    return found


def same_run(one: Path, other: Path) -> None:
    """Results, counts, fates and what every seed logged and drew are equal."""
    assert result(one) == result(other), (one, other)
    for name in ("counts.parquet", "fates.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), (other, name)
    for seed in (path.name for path in one.iterdir() if path.name.isdigit()):
        assert (one / seed / "metrics.jsonl").read_bytes() == (other / seed / "metrics.jsonl").read_bytes(), other
        for name in ("items", "canaries"):
            ours, theirs = (folder / seed / f"evaluation/{name}.parquet" for folder in (one, other))
            assert ours.read_bytes() == theirs.read_bytes(), (other, name)


def evaluation(split: Path, out: Path) -> None:
    """`eval --method` here, on two nodes, and on two nodes of which one is killed in training and one in measuring."""
    words = ["eval", "--method", "grpo", "--seeds", "2", "--samples", "600", "--split", str(split), "--json", "--out"]
    log = out / "eval.log"
    ended(start([*words, str(out / "here")], log), log)
    with nodes(2) as (cluster, machines):
        address = ["--ray", cluster.address]
        ended(start([*words, str(out / "nodes"), *address], log), log)
        same_run(out / "here", out / "nodes")
        print("  two seeds on two nodes: the bytes of two processes here", flush=True)
        place, lost = out / "lost", out / "lost.log"
        process = start([*words, str(place), *address], lost)
        signs = [(place, "*/.training/checkpoint/state.json"), (place, "*/evaluation/.items.shards/*.parquet")]
        losing(cluster, machines, process, lost, signs)
        same_run(out / "here", place)
        assert told_of_loss(lost) >= 1, lost.read_text()[-3000:]
        print(f"  two nodes killed, {told_of_loss(lost)} jobs went on elsewhere: the same bytes", flush=True)


def together(split: Path, out: Path) -> None:
    """Two processes that train one seed together, on two nodes: the numbers of two processes of one machine."""
    words = ["eval", "--method", "grpo", "--quick", "--processes", "2", "--split", str(split), "--json", "--out"]
    log = out / "together.log"
    ended(start([*words, str(out / "two")], log), log)
    with nodes(2) as (cluster, _):
        ended(start([*words, str(out / "apart"), "--ray", cluster.address], log), log)
    assert result(out / "two") == result(out / "apart")
    print("  one seed trained by two nodes: the result of two processes here", flush=True)


def curation(split: Path, out: Path) -> None:
    """`curate` here, and on two nodes that are killed one after the other."""
    words = ["curate", "--config", str(split / "split.yaml"), "--workers", "2", "--json", "--out"]
    log, place = out / "curate.log", out / "labels-lost"
    ended(start([*words, str(out / "labels")], log), log)
    with nodes(2) as (cluster, machines):
        process = start([*words, str(place), "--ray", cluster.address], log)
        work = place / ".curation"
        signs = [(work, "base/.base.*.shards/*.parquet"), (work, "runs/*/.training/checkpoint/state.json")]
        losing(cluster, machines, process, log, signs)
    for name in ("labels.parquet", "counts.parquet", "base_rollouts.parquet"):
        assert (out / "labels" / name).read_bytes() == (place / name).read_bytes(), name
    print("  labels of a curation whose nodes were killed twice: the same bytes", flush=True)


def refused(split: Path, out: Path) -> None:
    """A cluster that is too small, or not there, is noticed before anything starts."""
    with nodes(1) as (cluster, _):
        words = [*PLAIN, "eval", "--method", "grpo", "--quick", "--processes", "9", "--split", str(split)]
        done = subprocess.run(
            [*words, "--out", str(out / "many"), "--ray", cluster.address], capture_output=True, text=True
        )
        assert done.returncode == 1 and "too few for a job of 9 processes" in done.stderr, done.stderr
    assert not (out / "many" / "1").exists()
    done = subprocess.run([*words, "--ray", "127.0.0.1:1"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no Ray cluster" in done.stderr, done.stderr
    print("  a cluster that is too small or not there: one sentence, nothing started", flush=True)


def hidden(split: Path, out: Path) -> None:
    """A node that does not see the run's folder is named before anything starts. Needs root, to hide it."""
    if os.geteuid() != 0:
        print("  left out: only root can hide a folder from a node", flush=True)
        return
    place = out / "hidden"
    place.mkdir()
    with nodes(1) as (cluster, _):
        there = f"mount -t tmpfs none {place} && exec ray start --address {cluster.address} --num-cpus 1 --block"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        node = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", there],
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            cluster.connect()
            cluster.wait_for_nodes()
            until = time.monotonic() + LIMIT
            while int(ray.cluster_resources().get("CPU", 0)) < 2:
                assert time.monotonic() < until and node.poll() is None, "the node did not join"
                time.sleep(0.2)
            ray.shutdown()
            words = [*PLAIN, "eval", "--method", "grpo", "--quick", "--split", str(split), "--out", str(place)]
            done = subprocess.run([*words, "--ray", cluster.address], capture_output=True, text=True, timeout=LIMIT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"does not see {place}" in done.stderr and "--out" in done.stderr, done.stderr
    assert not list(place.iterdir())
    print(f"  {done.stderr.strip()}", flush=True)


def as_the_readme_says(_: Path, out: Path) -> None:
    """The README's block for Ray, word for word, with the commands of this environment."""
    (block,) = (block for block in blocks(ROOT / "README.md") if "ray start" in block.text)
    folder = out / "readme"
    folder.mkdir()
    surroundings = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (folder / "runs/two-nodes/result.json").is_file(), done.stdout[-3000:]
    print(f"  {block.where}: as written", flush=True)


def left() -> list[str]:
    """Worker processes that outlived their command."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    mine = str(Path(tempfile.gettempdir()))
    return [line for line in listed.splitlines() if "unlearnbench.workers" in line and mine in line]


def main() -> None:
    logging.getLogger("ray").setLevel(logging.WARNING)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(sys.argv[1]) if sys.argv[1:] else Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        split = small(out / "small")
        for part in (as_the_readme_says, evaluation, together, curation, refused, hidden):
            print(f"{part.__name__}:", flush=True)
            part(split.path, out)
    assert not left(), left()


if __name__ == "__main__":
    main()
