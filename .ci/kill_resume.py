"""Kill `unlearnbench eval` (kill -9) at random moments, resume it, and compare with an unbroken run.

    python .ci/kill_resume.py REFERENCE_DIR METHOD [KILLS]

Every kill waits a random while after the run has started or resumed. Ends with status 1 where result.json differs in
anything but seconds, or where a worker outlives its parent.
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


def result_of(folder: Path) -> dict[str, object]:
    """result.json without the seconds that a run took."""
    result: dict[str, object] = json.loads((folder / "result.json").read_text())
    cost = result["cost"]
    assert isinstance(cost, dict)
    cost.pop("seconds")
    return result


def main() -> int:
    reference, method = Path(sys.argv[1]), sys.argv[2]
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    draw = random.Random(time.time_ns())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "unlearnbench", "eval", "--method", method, "--out", str(out)]
        for kill in range(kills):
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
            wait = draw.uniform(8, 60)
            time.sleep(wait)
            ended = process.poll()
            process.kill()
            process.wait()
            time.sleep(3)
            left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout.split()
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)
            steps = {p.parent.name: p.read_text().count("\n") for p in sorted(out.glob("*/metrics.jsonl"))}
            print(
                f"kill {kill + 1}: after {wait:.1f} s, status {ended}, steps {steps}, orphans {len(left)}", flush=True
            )
            if left:
                return 1
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ours, theirs = result_of(out), result_of(reference)
        different = [key for key in theirs if ours.get(key) != theirs[key]]
        print(f"result.json differs in: {', '.join(different) or 'nothing'}")
        return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
