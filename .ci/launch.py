"""Real launches on this machine: `accelerate launch` with two processes, and two "machines" that meet on 127.0.0.1.

    python .ci/launch.py [FOLDER]

Each must give what a plain command gives: the same draws and, to 1e-5, the same first update where two processes
train; the same bytes where they only measure; the same run, and the same labels, after one of two machines was killed
(kill -9) and both were started again. FOLDER, which keeps what was made, must be a new one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.io.tables import read_parquet
from unlearnbench.records import Protocol, Sampling
from unlearnbench.splits import Split, find_split, load_split, write_split
from unlearnbench.workers.worker_group import free_port

PLAIN = [sys.executable, "-m", "unlearnbench"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision=no"]
LAUNCH += ["--dynamo_backend=no", "--num_processes=2"]
LIMIT = 1500


def small(folder: Path) -> Split:
    """Ten items of each of four groups of micro, with counts: a split that trains in seconds."""
    micro = load_split("micro")
    items = [item for group in ("easy", "learnable", "unlearnable", "unstable") for item in _some(micro, group)]
    ids = {item.item_id for item in items}
    shutil.copytree(find_split("micro") / "policy", folder / "policy")
    samples = micro.config.protocol.samples.model_copy(
        update={"base": 1024, "base_fresh": 64, "after": 512, "certify": 64, "twins": 64}
    )
    protocol = Protocol(
        sampling=Sampling(max_tokens=micro.config.protocol.sampling.max_tokens),
        valid_trace="solution",
        runs=2,
        samples=samples,
    )
    recipe = micro.config.recipe.model_copy(
        update={"steps": 6, "prompts_per_step": 12, "checkpoint_every": 3, "micro_batch_tokens": 1024}
    )
    config = micro.config.model_copy(
        update={"name": "small", "files": {}, "recipe": recipe, "protocol": protocol, "budget": None}
    )
    counts = micro.counts()
    return write_split(
        folder,
        config,
        items,
        twins=[twin for twin in micro.twins if twin.item_id in ids],
        canaries=list(micro.canaries[:2]),
        counts=counts.filter(pc.is_in(counts["item_id"], pa.array(sorted(ids)))),
    )


def _some(split: Split, group: str) -> list[Any]:
    return [item for item in split.items if item.group == group][:10]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[str]:
    """Begin a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)


def ended(process: subprocess.Popen[str], log: Path, status: int = 0) -> str:
    """What a command has printed, once it has ended with this status."""
    printed, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == status, f"{process.args} ended with {process.returncode}:\n{log.read_text()[-3000:]}"
    return printed


def machines(words: Sequence[str], log: Path) -> list[subprocess.Popen[str]]:
    """The same command on two machines of one process each."""
    port = str(free_port())
    where = ["--num_machines=2", "--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
    return [
        start([*LAUNCH, *where, f"--machine_rank={rank}", "-m", "unlearnbench", *words], log.with_suffix(f".{rank}"))
        for rank in (0, 1)
    ]


def both(words: Sequence[str], log: Path) -> str:
    """What two machines print, of which only the first may say something."""
    printed = [ended(process, log.with_suffix(f".{rank}")) for rank, process in enumerate(machines(words, log))]
    assert printed[1] == "", printed[1]
    return printed[0]


def killed(words: Sequence[str], log: Path, sign: str, out: Path) -> None:
    """Kill the second of two machines as soon as a file like `sign` is there; the first must end by itself."""
    first, second = machines(words, log)
    until = time.monotonic() + LIMIT
    while not list(out.glob(sign)):
        assert first.poll() is None, log.with_suffix(".0").read_text()[-3000:]
        assert time.monotonic() < until, f"no {sign} in {out}"
        time.sleep(0.01)
    for pid in [second.pid, *below(second.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    second.communicate()
    began = time.monotonic()
    ended(first, log.with_suffix(".0"), status=1)
    told = [line for line in log.with_suffix(".0").read_text().splitlines() if line.startswith("unlearnbench: ")]
    assert len(told) == 1, told
    print(f"  killed: the first machine ended after {time.monotonic() - began:.1f} s with: {told[0]}", flush=True)


def below(pid: int) -> list[int]:
    """Every process that comes from another (a launcher gives its children sessions of their own)."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(further for child in found for further in below(child))]


def result(folder: Path) -> dict[str, Any]:
    """result.json without seconds."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found["cost"].pop("seconds")
    return found


def first_update(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "1/metrics.jsonl").read_text().splitlines()[0])
    return found


def evaluation(split: Path, out: Path) -> None:
    """`eval --method`: one process, two processes of one launch, two machines, two machines of which one is killed."""
    words = ["eval", "--method", "grpo", "--quick", "--split", str(split), "--json", "--out"]
    plain = ended(start([*PLAIN, *words, str(out / "one")], out / "one.log"), out / "one.log")
    one = json.loads(plain)
    launched = [*LAUNCH, "--num_machines=1", f"--main_process_port={free_port()}", "-m", "unlearnbench", *words]
    two = json.loads(ended(start([*launched, str(out / "two")], out / "two.log"), out / "two.log"))
    assert one["split_hash"] == two["split_hash"]
    ours, theirs = first_update(out / "one"), first_update(out / "two")
    for name in ("loss", "gradient_norm", "kl"):
        assert abs(ours[name] - theirs[name]) < 1e-5 * max(1.0, abs(ours[name])), (name, ours[name], theirs[name])
    same = ("reward", "rollouts", "flops")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    print(f"  first update: loss {ours['loss']!r} and {theirs['loss']!r} by two processes", flush=True)
    both([*words, str(out / "machines")], out / "machines.log")
    assert result(out / "machines") == result(out / "two"), "two machines differ from two processes of one"
    killed([*words, str(out / "killed")], out / "killed.log", "1/checkpoint/state.json", out / "killed")
    both([*words, str(out / "killed")], out / "killed.log")
    assert result(out / "killed") == result(out / "two"), "killed and resumed differs from unbroken"
    words[2] = "only_unlearnable"
    told = json.loads(both([*words, str(out / "asks")], out / "asks.log"))
    assert told["method"]["track"] == "labels", told["method"]  # what the other machine asks for is noted, too


def measuring(split: Path, out: Path) -> None:
    """`eval --checkpoint` with several shards: the bytes of one process."""
    words = [
        "eval",
        "--checkpoint",
        str(split / "policy"),
        "--split",
        str(split),
        "--samples",
        "600",
        "--json",
        "--out",
    ]
    ended(start([*PLAIN, *words, str(out / "c1")], out / "c1.log"), out / "c1.log")
    killed([*words, str(out / "c2")], out / "c2.log", "1/evaluation/.items.shards/*.parquet", out / "c2")
    both([*words, str(out / "c2")], out / "c2.log")
    for name in ("items", "twins", "canaries"):
        ours, theirs = (out / folder / f"1/evaluation/{name}.parquet" for folder in ("c1", "c2"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    print(f"  {read_parquet(ours).num_rows} and more rows, the same bytes", flush=True)


def curation(split: Path, out: Path) -> None:
    """`curate`: base rollouts are those of one process; labels those of two processes, also when killed and resumed."""
    words = ["curate", "--config", str(split / "split.yaml"), "--json", "--out"]
    ended(start([*PLAIN, *words, str(out / "l1")], out / "l1.log"), out / "l1.log")
    ended(start([*PLAIN, *words, str(out / "l2"), "--processes", "2"], out / "l2.log"), out / "l2.log")
    killed([*words, str(out / "lm")], out / "lm.log", "base/.base.0.shards/*.parquet", out / "lm/.curation")
    killed([*words, str(out / "lm")], out / "lm.log", "runs/1/checkpoint/state.json", out / "lm/.curation")
    both([*words, str(out / "lm")], out / "lm.log")
    rollouts = [(out / name / "base_rollouts.parquet").read_bytes() for name in ("l1", "l2", "lm")]
    assert rollouts[0] == rollouts[1] == rollouts[2], "base rollouts differ"
    for name in ("counts.parquet", "items.parquet", "labels.json", "twin_counts.parquet"):
        ours, theirs = out / "l2" / name, out / "lm" / name
        assert ours.is_file() == theirs.is_file() and (not ours.is_file() or ours.read_bytes() == theirs.read_bytes())
    print("  the same base rollouts, counts and labels", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        out.mkdir(parents=True, exist_ok=True)
        split = out / "small"
        if not split.is_dir():
            small(split)
        for check in (measuring, evaluation, curation):
            began = time.monotonic()
            print(f"{check.__name__}:", flush=True)
            check(split, out)
            print(f"  {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
