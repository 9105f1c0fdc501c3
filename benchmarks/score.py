"""`score` of a million rollouts, in every format: time and memory, beside the route of the paper's code.

    python -m benchmarks.score [--rows 1000000] [--repeats 5] [--sample 2000]

The formats are jsonl and parquet of our own rows, and the same rollouts as csv, compressed jsonl and csv, one JSON
list, as TRL logs them (parquet, matched by the prompt), as verl dumps them (jsonl, matched by the prompt in its
template), as chats, as verifiers writes them, and with 32 completions a row.

The rollouts are of `micro`, three seeds: each item's reference solution, half of them with random digits changed and
random lines of other solutions put before it, so that most differ from each other (a policy's own repeat far more,
which `score` would profit from). The paper's route (arXiv 2605.16787: load all of the JSON, math-verify on every
completion) is timed on a sample and extrapolated, which the table says; gold answers are parsed once an item there.
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
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import described
from benchmarks.process import Ended, elsewhere, ended, median
from benchmarks.turns import Target, judged, progress, table
from unlearnbench.records import Item
from unlearnbench.splits import load_split

SEEDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time `score` of a million rollouts.")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rollouts of the large set; the small has a quarter"
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--sample", type=int, default=2_000, help="rollouts that math-verify judges")
    asked = parser.parse_args()
    items = load_split("micro").items
    if asked.rows < 4 * SEEDS * len(items):
        parser.error(f"--rows must be at least {4 * SEEDS * len(items)}, one a seed and item in the small set")

    with tempfile.TemporaryDirectory(prefix="benchmark-score-") as place:
        folder = Path(place)
        sets = {}
        for name, rows in (("quarter.jsonl", asked.rows // 4), ("whole.jsonl", asked.rows)):
            progress(f"writing {name}")
            sets[name] = elsewhere(write_rollouts, folder / name, items, rows // (SEEDS * len(items)))
        for name in FORMATS:
            progress(f"writing {name}")
            sets[name] = elsewhere(rewritten, folder / "whole.jsonl", folder / name)
        runs: dict[str, list[Ended]] = {name: [] for name in sets}
        for turn in range(asked.repeats):
            for name in sets:
                progress(f"turn {turn + 1} of {asked.repeats}: {name}")
                out = folder / f"{turn}-{name}"
                runs[name].append(ended([sys.executable, "-m", "unlearnbench", "score", str(folder / name), *to(out)]))
        progress("the paper's route")
        loading, each = papers_route(
            folder / "whole.jsonl", {item.item_id: item.answer for item in items}, asked.sample
        )
        progress("")

        print(f"{described('math-verify', 'pyarrow')}; medians of {asked.repeats} runs in turn\n")
        rows = []
        for name in sets:
            run, size = median(runs[name]), (folder / name).stat().st_size / 2**20
            rows.append(
                [
                    f"score, {FORMATS.get(name, 'jsonl')}",
                    f"{sets[name]:,}",
                    f"{size:.0f}",
                    f"{run.seconds:.1f}",
                    f"{run.processor_seconds:.1f}",
                    f"{sets[name] / run.seconds:,.0f}",
                    f"{run.mebibytes:.0f}",
                ]
            )
        whole, total = median(runs["whole.jsonl"]), sets["whole.jsonl"]
        others = [median(runs[name]) for name in FORMATS]
        paper = loading + each * total
        route = f"the paper's route, jsonl (extrapolated from {asked.sample:,})"
        rows.append([route, f"{total:,}", "", f"{paper:,.0f}", "", f"{total / paper:,.0f}", ""])
        print(table(["what", "rollouts", "MiB", "s", "processor s", "rollouts/s", "peak MiB"], rows))
        print(f"\nOf the paper's route {loading:.1f} s load the JSON; a verdict takes {1000 * each:.2f} ms.\n")
        growth = whole.mebibytes / median(runs["quarter.jsonl"]).mebibytes
        print(
            judged(
                [
                    Target("rollouts/s, times the paper's route", paper / whole.seconds, 10, digits=0),
                    Target("peak memory in MiB", whole.mebibytes, 1024, at_most=True, digits=0),
                    Target("peak memory, times that of a quarter of the rows", growth, 1.1, at_most=True),
                    Target(
                        "slowest format, times jsonl",
                        max(run.seconds for run in others) / whole.seconds,
                        1.5,
                        at_most=True,
                    ),
                    Target(
                        "largest peak of a format, times jsonl",
                        max(run.mebibytes for run in others) / whole.mebibytes,
                        1.5,
                        at_most=True,
                    ),
                ]
            )
        )


def to(out: Path) -> list[str]:
    """The other words of the command."""
    return ["--split", "micro", "--out", str(out)]


def write_rollouts(path: Path, items: tuple[Item, ...], samples: int) -> int:
    """A complete set of rollouts of these items as jsonl; returns their number."""
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
    "several.jsonl": "32 completions a row",
}


def rewritten(source: Path, path: Path) -> int:
    """The same rollouts in another format; returns their number."""
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
    """Seconds to load all rollouts at once, and seconds a verdict, the mean over a random sample of them."""
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


if __name__ == "__main__":
    main()
