"""Real commands whose jobs several processes share: what they give, and what a kill (kill -9) in the middle leaves.

    python .ci/several_processes.py [FOLDER]

Two processes must give what one gives: the same draws and, to 1e-5, the same first update where they train; the same
bytes where they only measure. A run and a curation of which one process, or the command itself, was killed must end as
the unbroken ones do when the same command is given again, and nothing may outlive a command that was killed. FOLDER,
which keeps what was made, must be a new one.
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
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from orphans import descendants, still_running

from unlearnbench.io.tables import read_parquet
from unlearnbench.records import Protocol, Sampling
from unlearnbench.splits import Split, find_split, load_split, write_split

COMMAND = [sys.executable, "-m", "unlearnbench"]
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


def run(words: Sequence[str], log: Path) -> str:
    """What a command prints."""
    return ended(start([*COMMAND, *words], log), log)


def killed(words: Sequence[str], log: Path, sign: str, out: Path, who: Literal["command", "process"]) -> None:
    """Kill a command, or the last process that it started, as soon as a file like `sign` is there."""
    command = start([*COMMAND, *words], log)
    until = time.monotonic() + LIMIT
    while not list(out.glob(sign)):
        assert command.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until, f"no {sign} in {out}"
        time.sleep(0.01)
    started = descendants(command.pid)
    began = time.monotonic()
    os.kill(command.pid if who == "command" else max(started, key=lambda one: one[1])[0], signal.SIGKILL)
    if who == "command":
        command.communicate()
    else:
        ended(command, log, status=1)
        told = [line for line in log.read_text().splitlines() if line.startswith("unlearnbench: ")]
        assert len(told) == 1 and "status -9" in told[0], told
        seconds = time.monotonic() - began
        print(f"  a process killed: the command ended after {seconds:.1f} s with: {told[0]}", flush=True)
    assert (left := still_running(started, patience=30)) == [], f"{left} outlived the command"


def result(folder: Path) -> dict[str, Any]:
    """result.json without times."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "cpu_seconds", "cpu_seconds_per_flop_over_null"):
        found["cost"].pop(name, None)
    return found


def first_update(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "1/metrics.jsonl").read_text().splitlines()[0])
    return found


def evaluation(split: Path, out: Path) -> None:
    """`eval --method`: one process, two of them, two of which one is killed, then the command."""
    words = ["eval", "--method", "grpo", "--quick", "--split", str(split), "--json", "--out"]
    two = ["--processes", "2"]
    first = json.loads(run([*words, str(out / "one")], out / "one.log"))
    second = json.loads(run([*words, str(out / "two"), *two], out / "two.log"))
    assert first["split_hash"] == second["split_hash"]
    ours, theirs = first_update(out / "one"), first_update(out / "two")
    for name in ("loss", "gradient_norm", "kl"):
        assert abs(ours[name] - theirs[name]) < 1e-5 * max(1.0, abs(ours[name])), (name, ours[name], theirs[name])
    same = ("reward", "rollouts", "flops")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    print(f"  first update: loss {ours['loss']!r} and {theirs['loss']!r} by two processes", flush=True)
    again, saved = out / "killed", "1/.training/checkpoint/state.json"
    killed([*words, str(again), *two], out / "killed.log", saved, again, "process")
    killed([*words, str(again), *two], out / "killed.log", saved, again, "command")
    run([*words, str(again), *two], out / "killed.log")
    assert result(again) == result(out / "two"), "killed and resumed differs from unbroken"
    words[2] = "only_unlearnable"
    told = json.loads(run([*words, str(out / "asks"), *two], out / "asks.log"))
    assert told["method"]["track"] == "labels", told["method"]  # what any process asks for is noted


def measuring(split: Path, out: Path) -> None:
    """`eval --checkpoint` with several shards: the bytes of one process."""
    policy = str(split / "policy")
    words = ["eval", "--checkpoint", policy, "--split", str(split), "--samples", "600", "--json", "--out"]
    run([*words, str(out / "c1")], out / "c1.log")
    again, shards = [*words, str(out / "c2"), "--processes", "2"], "1/evaluation/.items.shards/*.parquet"
    killed(again, out / "c2.log", shards, out / "c2", "process")
    killed(again, out / "c2.log", shards, out / "c2", "command")
    run(again, out / "c2.log")
    for name in ("items", "twins", "canaries"):
        ours, theirs = (out / folder / f"1/evaluation/{name}.parquet" for folder in ("c1", "c2"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    print(f"  {read_parquet(ours).num_rows} and more rows, the same bytes", flush=True)


def curation(split: Path, out: Path) -> None:
    """`curate`: base rollouts are those of one process; labels those of two processes, also when killed and resumed."""
    words = ["curate", "--config", str(split / "split.yaml"), "--json", "--out"]
    two = ["--processes", "2"]
    run([*words, str(out / "l1")], out / "l1.log")
    run([*words, str(out / "l2"), *two], out / "l2.log")
    work = out / "lk/.curation"
    killed([*words, str(out / "lk"), *two], out / "lk.log", "base/.base.0.shards/*.parquet", work, "process")
    killed([*words, str(out / "lk"), *two], out / "lk.log", "runs/1/.training/checkpoint/state.json", work, "command")
    run([*words, str(out / "lk"), *two], out / "lk.log")
    rollouts = [(out / name / "base_rollouts.parquet").read_bytes() for name in ("l1", "l2", "lk")]
    assert rollouts[0] == rollouts[1] == rollouts[2], "base rollouts differ"
    for name in ("counts.parquet", "items.parquet", "labels.json", "twin_counts.parquet"):
        ours, theirs = out / "l2" / name, out / "lk" / name
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
