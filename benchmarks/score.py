"""A million rows, in time and memory: `score` of rollouts beside the route of the paper's code, or labels from counts.

    python -m benchmarks.score [rollouts] [--rows 1000000] [--repeats 5] [--sample 2000]
    python -m benchmarks.score counts [--rows 1000000] [--repeats 5]

`rollouts`: `score` in every format: jsonl and parquet of our own rows, and the same rollouts as csv, compressed jsonl
and csv, one JSON list, as TRL logs them (parquet, matched by the prompt), as verl dumps them (jsonl, matched by the
prompt in its template), as chats, as verifiers writes them, and with 32 completions per row. They are of `micro`, three
seeds: each item's reference solution, half of them with random digits changed and random lines of other solutions put
before it, so that most differ from each other (a policy repeats itself far more, from which `score` would profit). The
paper's route (arXiv 2605.16787: load all of the JSON, math-verify on every completion) is timed on a sample and
extrapolated, as the table says; gold answers are parsed once per item there.

`counts`: `curate --from-counts` for csv and parquet, by both rules, in two shapes: few runs of very many items (base,
one training run), and the protocol's (base, three training runs, certification). Rows are in random order and ids are
long, as in real pools.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.measurement import (
    Target,
    Usage,
    described,
    in_fresh_process,
    in_turn,
    median_usage,
    progress,
    run_command,
    table,
    target_table,
)
from unlearnbench.records import Item
from unlearnbench.splits import load_split

SEEDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time `score` of a million rollouts, or labels from a million counts.")
    parser.add_argument("what", nargs="?", default="rollouts", choices=("rollouts", "counts"))
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows; the small set of rollouts has a quarter")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--sample", type=int, default=2_000, help="rollouts that math-verify grades")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-score-") as place:
        if asked.what == "counts":
            time_counts(Path(place), asked.rows, asked.repeats)
            return
        least = 4 * SEEDS * len(load_split("micro").items)
        if asked.rows < least:
            parser.error(f"--rows must be at least {least}, one per seed and item in the small set")
        time_rollouts(Path(place), asked.rows, asked.repeats, asked.sample)


def repeated(commands: dict[str, Callable[[int], list[str]]], repeats: int) -> dict[str, Usage]:
    """The median usage of some commands of unlearnbench, each given by its words in a turn, run in turn."""

    def once(words: Callable[[int], list[str]]) -> Callable[[int], Usage]:
        return lambda turn: run_command([sys.executable, "-m", "unlearnbench", *words(turn)])

    done = in_turn({name: once(words) for name, words in commands.items()}, repeats)
    return {name: median_usage(runs) for name, runs in done.items()}


# --- rollouts ---------------------------------------------------------------------------------------------------------


def time_rollouts(folder: Path, total: int, repeats: int, sample: int) -> None:
    """Score rollouts in every format and print the tables."""
    items = load_split("micro").items
    sets = {}
    for name, number in (("quarter.jsonl", total // 4), ("whole.jsonl", total)):
        progress(f"writing {name}")
        sets[name] = in_fresh_process(write_rollouts, folder / name, items, number // (SEEDS * len(items)))
    for name in FORMATS:
        progress(f"writing {name}")
        sets[name] = in_fresh_process(rewritten, folder / "whole.jsonl", folder / name)

    def words(name: str) -> Callable[[int], list[str]]:
        return lambda turn: ["score", str(folder / name), "--split", "micro", "--out", str(folder / f"{turn}-{name}")]

    runs = repeated({name: words(name) for name in sets}, repeats)
    progress("the paper's route")
    golds = {item.item_id: item.answer for item in items}
    loading, each = papers_route(folder / "whole.jsonl", golds, sample)
    progress("")

    print(f"{described('math-verify', 'pyarrow')}; medians of {repeats} runs in turn\n")
    rows = []
    for name, run in runs.items():
        cells = (f"{run.seconds:.1f}", f"{run.processor_seconds:.1f}", f"{sets[name] / run.seconds:,.0f}")
        size = (folder / name).stat().st_size / 2**20
        shown = f"score, {FORMATS.get(name, 'jsonl')}"
        rows.append([shown, f"{sets[name]:,}", f"{size:.0f}", *cells, f"{run.mebibytes:.0f}"])
    whole, number = runs["whole.jsonl"], sets["whole.jsonl"]
    paper = loading + each * number
    route = f"the paper's route, jsonl (extrapolated from {sample:,})"
    rows.append([route, f"{number:,}", "", f"{paper:,.0f}", "", f"{number / paper:,.0f}", ""])
    print(table(["what", "rollouts", "MiB", "s", "processor s", "rollouts/s", "peak MiB"], rows))
    print(f"\nOf the paper's route {loading:.1f} s load the JSON; a verdict takes {1000 * each:.2f} ms.\n")
    growth = whole.mebibytes / runs["quarter.jsonl"].mebibytes
    slowest = max(runs[name].seconds for name in FORMATS) / whole.seconds
    largest = max(runs[name].mebibytes for name in FORMATS) / whole.mebibytes
    print(target_table([
        Target("rollouts/s, times the paper's route", paper / whole.seconds, 10, digits=0),
        Target("peak memory in MiB", whole.mebibytes, 1024, at_most=True, digits=0),
        Target("peak memory, times that of a quarter of the rows", growth, 1.1, at_most=True),
        Target("slowest format, times jsonl", slowest, 1.5, at_most=True),
        Target("largest peak of a format, times jsonl", largest, 1.5, at_most=True),
    ]))  # fmt: skip


def write_rollouts(path: Path, items: tuple[Item, ...], samples: int) -> int:
    """A complete set of rollouts of these items as jsonl; returns how many."""
    rng = random.Random(0)
    lines = [item.solution for item in items]
    with path.open("w", encoding="utf-8") as file:
        for seed in range(SEEDS):
            for item in items:
                for text in completions(item, lines, samples, rng):
                    file.write(json.dumps({"item_id": item.item_id, "seed": seed, "completion": text}) + "\n")
    return SEEDS * len(items) * samples


def completions(item: Item, lines: list[str], samples: int, rng: random.Random) -> Iterator[str]:
    """The solution of an item, `samples` times, half of them edited: 20 to 200 characters each."""
    for _ in range(samples):
        text = item.solution
        if rng.random() < 0.5:
            digits = (rng.choice("0123456789") if c.isdigit() and rng.random() < 0.2 else c for c in text)
            thought = [line.partition("\\boxed")[0] for line in rng.sample(lines, rng.randint(1, 9))]
            text = "\n".join([*thought, "".join(digits)])
        yield text


FORMATS = {
    "whole.parquet": "parquet",
    "whole.csv": "csv",
    "whole.csv.gz": "csv, gzip",
    "zipped.jsonl.gz": "jsonl, gzip",
    "list.json": "one JSON list",
    "trl.parquet": "TRL's parquet, by prompt",
    "verl.jsonl": "verl's dump, by prompt",
    "chats.jsonl": "verifiers' chats, by prompt",
    "several.jsonl": "32 completions per row",
}


def rewritten(source: Path, path: Path) -> int:
    """Write the same rollouts in another format; returns how many."""
    rows = [json.loads(line) for line in source.open(encoding="utf-8")]
    prompts = {item.item_id: item.prompt for item in load_split("micro").items}
    name = path.name
    if name == "trl.parquet":
        columns = ("prompt", "completion", "seed")
        table = [{"prompt": prompts[row["item_id"]], **row} for row in rows]
        pq.write_table(pa.table({column: [row[column] for row in table] for column in columns}), path)
    elif name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif "csv" in name:
        with _text(path) as file:
            writer = csv.DictWriter(file, ["item_id", "seed", "completion"])
            writer.writeheader()
            writer.writerows(rows)
    elif name == "list.json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        with _text(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in _as_others_write(name, rows, prompts))
    return len(rows)


def _as_others_write(name: str, rows: list[dict[str, Any]], prompts: dict[str, str]) -> Iterator[dict[str, Any]]:
    if name == "verl.jsonl":
        for row in rows:
            asked = f"system\nYou are a helpful assistant.\nuser\n{prompts[row['item_id']]}\nassistant\n"
            yield {"input": asked, "output": row["completion"], "gts": "1", "score": 0.0, "seed": row["seed"]}
    elif name == "chats.jsonl":
        for row in rows:
            prompt = [{"role": "user", "content": prompts[row["item_id"]]}]
            said = [{"role": "assistant", "content": row["completion"]}]
            yield {"prompt": prompt, "completion": said, "reward": 0.0, "seed": row["seed"]}
    elif name == "several.jsonl":
        for (item, seed), some in groupby(rows, lambda row: (row["item_id"], row["seed"])):
            texts = [row["completion"] for row in some]
            for start in range(0, len(texts), 32):
                yield {"item_id": item, "seed": seed, "completions": texts[start : start + 32]}
    else:
        yield from rows


def _text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path, "wb", 1), encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


def papers_route(path: Path, golds: dict[str, str], sample: int) -> tuple[float, float]:
    """Seconds to load all rollouts at once, and seconds per verdict, the mean over a random sample of them."""
    from math_verify import parse, verify

    began = time.perf_counter()
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    loading = time.perf_counter() - began
    chosen = random.Random(0).sample(rows, sample)
    parsed = {name: parse(f"${gold}$") for name, gold in golds.items()}
    verify(parsed[chosen[0]["item_id"]], parse(chosen[0]["completion"]))  # first-use tables are not counted
    began = time.perf_counter()
    for row in chosen:
        verify(parsed[row["item_id"]], parse(row["completion"]))
    return loading, (time.perf_counter() - began) / sample


# --- counts -----------------------------------------------------------------------------------------------------------


def time_counts(folder: Path, total: int, repeats: int) -> None:
    """Make labels from counts in both formats, by both rules, and print the tables."""
    shapes: dict[Path, tuple[str, int]] = {}
    for runs, certified in ((1, False), (3, True)):
        progress(f"writing {runs} runs")
        shapes |= in_fresh_process(write_counts, folder, total, runs, certified)

    def words(path: Path, rule: str) -> Callable[[int], list[str]]:
        return lambda _: ["curate", "--from-counts", str(path), "--rule", rule, "--out", str(folder / "labels")]

    cases = {
        f"{name}, {path.suffix[1:]}, rule {rule}": (path, rule)
        for path, (name, _) in shapes.items()
        for rule in ("protocol", "paper")
    }
    done = repeated({name: words(*case) for name, case in cases.items()}, repeats)

    print(f"{described('pyarrow', 'numpy')}; medians of {repeats} runs in turn\n")
    rows = []
    for name, run in done.items():
        cells = [f"{run.seconds:.1f}", f"{run.processor_seconds:.1f}", f"{run.mebibytes:.0f}"]
        rows.append([name, f"{shapes[cases[name][0]][1]:,}", *cells])
    print(table(["counts", "rows", "s", "processor s", "peak MiB"], rows))
    slowest, largest = max(run.seconds for run in done.values()), max(run.mebibytes for run in done.values())
    print()
    print(target_table([
        Target("seconds, the slowest", slowest, 10, at_most=True, digits=1),
        Target("peak memory in MiB, the largest", largest, 1024, at_most=True, digits=0),
    ]))  # fmt: skip


def write_counts(folder: Path, rows: int, runs: int, certified: bool) -> dict[Path, tuple[str, int]]:
    """Write counts as csv and parquet; returns the name and the number of rows of each file."""
    counts = simulated_counts(rows, runs, certified)
    name = f"{len(counts['item_id'].unique()):,} items, {runs} run{'s' if runs > 1 else ''}"
    pq.write_table(counts, folder / f"{runs}.parquet")
    pyarrow.csv.write_csv(counts, folder / f"{runs}.csv")
    return {folder / f"{runs}.{suffix}": (name, counts.num_rows) for suffix in ("csv", "parquet")}


def simulated_counts(rows: int, runs: int, certified: bool) -> pa.Table:
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
