"""`curate --from-counts` of a million rows: time and memory, for csv and parquet, by both rules.

    python -m benchmarks.counts [--rows 1000000] [--repeats 5]

Two shapes: few runs of very many items (base, one training run), and the protocol's (base, three training runs,
certification). Rows are in random order, ids are long, as those of real pools are.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.machine import described
from benchmarks.process import Ended, elsewhere, ended, median
from benchmarks.turns import Target, judged, progress, table

SECONDS = 10.0
MEBIBYTES = 1024.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time `curate --from-counts` of a million rows.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-counts-") as place:
        folder = Path(place)
        shapes = {}
        for runs, certified in ((1, False), (3, True)):
            progress(f"writing {runs} runs")
            shapes |= elsewhere(write_counts, folder, asked.rows, runs, certified)
        cases = {(path, rule): list[Ended]() for path in shapes for rule in ("protocol", "paper")}
        for turn in range(asked.repeats):
            for path, rule in cases:
                progress(f"turn {turn + 1} of {asked.repeats}: {path.name}, rule {rule}")
                command = [sys.executable, "-m", "unlearnbench", "curate", "--from-counts", str(path), "--rule", rule]
                cases[path, rule].append(ended([*command, "--out", str(folder / "labels")]))
        progress("")

    print(f"{described('pyarrow', 'numpy')}; medians of {asked.repeats} runs in turn\n")
    rows = []
    for (path, rule), done in cases.items():
        run, (name, number) = median(done), shapes[path]
        times = [f"{run.seconds:.1f}", f"{run.processor_seconds:.1f}", f"{run.mebibytes:.0f}"]
        rows.append([f"{name}, {path.suffix[1:]}, rule {rule}", f"{number:,}", *times])
    print(table(["counts", "rows", "s", "processor s", "peak MiB"], rows))
    slowest = max(median(done).seconds for done in cases.values())
    largest = max(median(done).mebibytes for done in cases.values())
    print()
    print(
        judged(
            [
                Target("seconds, the slowest", slowest, SECONDS, at_most=True, digits=1),
                Target("peak memory in MiB, the largest", largest, MEBIBYTES, at_most=True, digits=0),
            ]
        )
    )


def write_counts(folder: Path, rows: int, runs: int, certified: bool) -> dict[Path, tuple[str, int]]:
    """Write counts as csv and parquet; returns the name and the number of rows of each file."""
    counts = made_up_counts(rows, runs, certified)
    name = f"{len(counts['item_id'].unique()):,} items, {runs} run{'s' if runs > 1 else ''}"
    pq.write_table(counts, folder / f"{runs}.parquet")
    pyarrow.csv.write_csv(counts, folder / f"{runs}.csv")
    return {folder / f"{runs}.{suffix}": (name, counts.num_rows) for suffix in ("csv", "parquet")}


def made_up_counts(rows: int, runs: int, certified: bool) -> pa.Table:
    """About `rows` rows: base, and for every run train (with `best`), after and, if wanted, certify."""
    rng = np.random.default_rng(0)
    items = rows // (1 + runs * (3 if certified else 2))
    names = np.array([f"deepscaler/train/{number:06d}-{rng.bytes(8).hex()}" for number in range(items)], object)
    before, after = rng.beta(0.3, 1, items), rng.beta(0.3, 0.8, items)

    def part(phase: str, run: int, n: int, rate: np.ndarray) -> pa.Table:
        correct = rng.binomial(n, rate)
        best = pa.array(np.minimum(correct / 8, 1.0), mask=np.full(items, phase != "train"))
        columns = {"item_id": names, "phase": [phase] * items, "run": [str(run)] * items, "n": np.full(items, n)}
        return pa.table({**columns, "correct": correct, "best": best})

    parts = [part("base", 0, 32, before)]
    for run in range(1, runs + 1):
        parts += [part("train", run, 64, (before + after) / 2), part("after", run, 32, after)]
        parts += [part("certify", run, 128, after)] if certified else []
    counts = pa.concat_tables(parts)
    return counts.take(pa.array(rng.permutation(counts.num_rows)))


if __name__ == "__main__":
    main()
