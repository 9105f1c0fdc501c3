"""Kill `unlearnbench eval` at random moments (kill -9), resume it, and compare with an unbroken run.

    python .ci/kill_resume.py REFERENCE_DIR METHOD [KILLS]

Every kill waits a random while after the first process of the run has started, and hits the command or, every other
time, one of the processes that it has started. Ends with status 1 where result.json differs in anything but times, or
where a process outlives the command.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from orphans import descendants, still_running

TIMES = ("seconds", "cpu_seconds", "cpu_seconds_per_flop_over_null")


def result_of(folder: Path) -> dict[str, object]:
    """result.json without the times that a run took."""
    result: dict[str, object] = json.loads((folder / "result.json").read_text())
    cost = result["cost"]
    assert isinstance(cost, dict)
    for name in TIMES:
        cost.pop(name, None)
    return result


def main() -> int:
    reference, method = Path(sys.argv[1]), sys.argv[2]
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    draw = random.Random(time.time_ns())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "unlearnbench", "eval", "--method", method, "--out", str(out)]
        for kill in range(kills):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait = draw.uniform(1, 50)
            while process.poll() is None and not descendants(process.pid):
                time.sleep(0.1)
            time.sleep(wait)
            ended, started = process.poll(), descendants(process.pid)
            victim = draw.choice([number for number, _ in started] or [process.pid]) if kill % 2 else process.pid
            if ended is None:
                os.kill(victim, signal.SIGKILL)
            status = process.wait(600)  # a worker of the verifier is replaced, and the run goes on to its end
            left = still_running(started, patience=30)
            steps = {p.parent.name: p.read_text().count("\n") for p in sorted(out.glob("*/metrics.jsonl"))}
            what = "the command" if victim == process.pid else f"process {victim}"
            print(f"kill {kill + 1}: {what} after {wait:.1f} s, status {status}, steps {steps}, orphans {len(left)}")
            sys.stdout.flush()
            for number in left:
                os.kill(number, signal.SIGKILL)
            if left:
                return 1
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ours, theirs = result_of(out), result_of(reference)
        different = [key for key in theirs if ours.get(key) != theirs[key]]
        print(f"result.json differs in: {', '.join(different) or 'nothing'}")
        return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
