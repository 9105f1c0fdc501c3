"""The peak memory of `unlearnbench eval` over the length of training: it should not grow with the number of steps.

    python -m benchmarks.memory [--budgets 0.46 2.7] [--method grpo]

One seed for each budget, about 100 and 1,000 steps of `micro` for the default: four minutes on a quiet core. The peaks
are the kernel's own high-water marks (VmHWM in /proc, so Linux only) of every process of the command, read ten times
a second until each ends: the command itself (which scores), its training worker and its measuring worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.machine import described
from benchmarks.turns import Target, judged, progress, table

COMMAND, TRAINING, MEASURING = "the command", "training worker", "measuring worker"
PROCESSES = (COMMAND, TRAINING, MEASURING)
INTERVAL = 0.1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Peak memory of eval over steps.")
    parser.add_argument("--budgets", type=float, nargs=2, default=[0.46, 2.7], help="two budgets, the smaller first")
    parser.add_argument("--method", default="grpo", help="the method that trains (default grpo)")
    chosen = parser.parse_args()
    if not Path("/proc/self/status").is_file():
        raise SystemExit("peak memory is read from /proc, which this system lacks; run it on Linux")
    steps: list[int] = []
    peaks: list[dict[str, int]] = []
    for budget in chosen.budgets:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            peaks.append(eval_peaks(chosen.method, budget, run))
            steps.append(steps_of(run))
    print(f"{described('torch', 'transformers')}\n")
    print(f"Peak resident memory of `unlearnbench eval --method {chosen.method} --seeds 1 --samples 32`:\n")
    rows = [
        [name, *(f"{peak[name] / 1024:,.0f} MiB" for peak in peaks), f"{peaks[1][name] / peaks[0][name]:.3f}"]
        for name in PROCESSES
    ]
    print(table(["process", *(f"{count:,} steps" for count in steps), "ratio"], rows))
    growth = [
        Target(f"{name}: the second peak over the first", peaks[1][name] / peaks[0][name], 1.1, at_most=True, digits=3)
        for name in PROCESSES
    ]
    print(f"\n{judged(growth)}")


def eval_peaks(method: str, budget: float, run: Path) -> dict[str, int]:
    """Peak resident KiB of each process of one eval into the folder `run`. Raises SystemExit if eval fails."""
    options = {"method": method, "seeds": 1, "samples": 32, "budget": f"{budget:g}x", "out": run}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words_of_eval = run.with_suffix(".txt")
    with words_of_eval.open("w") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench", "eval", *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        peaks = dict.fromkeys(PROCESSES, 0)
        workers: list[int] = []  # in the order in which they start: training, then measuring
        while command.poll() is None:
            for pid in workers_of(command.pid):
                if pid not in workers:
                    workers.append(pid)
            for name, pid in zip(PROCESSES, [command.pid, *workers], strict=False):
                peaks[name] = max(peaks[name], high_water(pid))
            progress(f"budget {budget:g}x: " + ", ".join(f"{n} {k / 1024:,.0f} MiB" for n, k in peaks.items()))
            time.sleep(INTERVAL)
    progress("")
    if command.returncode != 0 or not all(peaks.values()):
        raise SystemExit(f"eval failed: {words_of_eval.read_text().strip()[-500:]}")
    return peaks


def steps_of(run: Path) -> int:
    """Steps that the only seed of a run trained for."""
    return sum(1 for _ in (run / "1" / "metrics.jsonl").open(encoding="utf-8"))


def workers_of(parent: int) -> list[int]:
    """Worker processes that a process has started and that still run, oldest first."""
    workers = []
    for child in _children(parent):
        with suppress(OSError):  # a process that has ended meanwhile
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"unlearnbench.workers.supervisor" in command:
                workers += _children(child)[:1]  # behind the walls that the supervisor built
            elif b"unlearnbench.workers.worker" in command:
                workers.append(child)
    return workers


def _children(parent: int) -> list[int]:
    """Processes that a process has started and that still run, oldest first."""
    children: list[int] = []
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            children += [int(child) for child in listed.read_text().split()]
    return sorted(children)


def high_water(pid: int) -> int:
    """Peak resident KiB of a process so far, 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
