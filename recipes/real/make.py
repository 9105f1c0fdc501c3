"""A real language model, end to end, on a CPU: policy, problems, labels, training, evaluation, diagnosis, report.

    make real                      # in .venv-vllm, which it makes; everything under build/real
    make real ARGS=--short         # the same path with few of everything, in minutes
    make real ARGS="--math FILE"   # and the level 1 problems of a copy of MATH-500 (jsonl)

Every stage is one command of the product, printed before it runs, and can be resumed. What each took
is written to measured.json. How good the labels are that so few samples give: docs/results/real-model.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from recipes.real.competition import LEVEL, write_competition
from recipes.real.pool import FULL, SHORT, Size, write_pool
from unlearnbench.io import files, tables

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ("--sampler", "vllm", "--engine", "dtype=bfloat16", "--engine", "max_model_len=1024")
QUIET = {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few of everything: minutes, and no labels to speak of")
    parser.add_argument("--math", type=Path, help="a copy of MATH-500 (jsonl) [default: $MATH]")
    parser.add_argument("--seed", type=int, default=0, help="of the problems and all draws")
    parser.add_argument("--out", type=Path, help="where everything goes [default: build/real, or build/real-short]")
    given = parser.parse_args()
    size = SHORT if given.short else FULL
    out = (given.out or ROOT / "build" / ("real-short" if given.short else "real")).resolve()
    named = given.math or (Path(os.environ["MATH"]) if os.environ.get("MATH") else None)
    Real(out, size, given.seed).run(named)


class Real:
    """The stages in order, each timed."""

    def __init__(self, out: Path, size: Size, seed: int) -> None:
        self.out, self.size, self.seed = out, size, seed
        self.file = out / "measured.json"
        self.measured: dict[str, dict[str, float]] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def run(self, competition: Path | None) -> None:
        out, size = self.out, self.size
        self._ub("doctor", "doctor")
        began = _clocks()
        write_pool(out / "pool", out / "policy", size, self.seed)
        self._note("policy and problems", began)
        split, run = out / "split", out / "grpo"
        self._ub("curate", "curate", "--config", out / "pool" / "split.yaml", "--out", split, *ENGINE)
        self._ub("validate", "splits", "validate", split)
        evaluated = ("--split", split, "--seeds", 1, "--budget", "0.5x", "--samples", size.samples, "--out", run)
        self._ub("eval", "eval", "--method", "grpo", *evaluated, *ENGINE)
        self._ub("report", "report", run, "--split", split)
        counts = json.loads((split / "labels.json").read_text())["counts"]
        groups = ",".join(group for group in ("easy", "learnable", "unlearnable", "unstable") if counts[group])
        fewer = ("--rollouts-per-item", size.rollouts_per_item, "--parts", 2, "--items-per-group", size.items_per_group)
        few = ("--split", split, "--groups", groups, *fewer, "--cap", 8 * size.rollouts_per_item)
        self._ub("diagnose", "diagnose", split / "policy", *few, "--out", out / "similarity")
        if competition is None or not competition.is_file():
            where = "" if competition is None else f" at {competition}"
            print(f"\nMATH-500 level 1 is left out: there is no copy of it{where}; name one with MATH=FILE.")
            return
        write_competition(out / "math", competition, out / "policy")
        both = ("--checkpoint", out / "policy", "--checkpoint", run / "1" / "checkpoint", "--split", out / "math")
        self._ub("math", "eval", *both, "--samples", size.competition, "--out", out / "math-eval", *ENGINE)
        counts_of = tables.read_counts(out / "math-eval" / "counts.parquet").to_pylist()
        for run_of, policy in (("1", "base policy"), ("2", "after GRPO")):
            rows = [row for row in counts_of if row["run"] == run_of]
            right, drawn = (sum(row[name] for row in rows) for name in ("correct", "n"))
            print(f"MATH-500 level {LEVEL}, {policy}: {right} of {drawn} rollouts right, {len(rows)} problems")

    def _ub(self, stage: str, *arguments: object) -> None:
        """One command of the product; its output is this program's. Ends the program where it fails."""
        words = [str(argument) for argument in arguments]
        print(f"\n$ unlearnbench {' '.join(words)}", flush=True)
        began = _clocks()
        done = subprocess.run([sys.executable, "-m", "unlearnbench", *words], env=os.environ | QUIET, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        self._note(stage, began)

    def _note(self, stage: str, began: tuple[float, float]) -> None:
        """Seconds on the clock and of processors, those of earlier tries included."""
        clock, processors = (now - then for now, then in zip(_clocks(), began, strict=True))
        before = self.measured.get(stage, {"seconds": 0.0, "processor_seconds": 0.0})
        self.measured[stage] = {
            "seconds": round(before["seconds"] + clock, 1),
            "processor_seconds": round(before["processor_seconds"] + processors, 1),
        }
        files.write_json(self.file, self.measured)
        print(f"({stage}: {clock:.0f} s, {processors:.0f} s of processors)", flush=True)


def _clocks() -> tuple[float, float]:
    """The clock, and what processors have worked for this process and those it waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(use.ru_utime + use.ru_stime for use in spent)


if __name__ == "__main__":
    main()
