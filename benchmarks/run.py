"""`make bench`: the benchmarks one after another, each in a process of its own, on one thread.

    python -m benchmarks.run [NAME ...] [--all] [--data DIR] [--write docs/results/benchmarks.md]

Without names, those that take minutes; `--all` adds `memory` (two long runs) and `whole` (a fresh clone). `--write`
replaces the table of each in a page, between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measurement import ONE_THREAD, progress

QUICK = {
    "training": ["training"],
    "sampling": ["sampling"],
    "gradients": ["gradients"],
    "counts": ["score", "counts"],
    "score": ["score", "rollouts"],
    "start": ["start", "cli"],
    "verify": ["verify", "speed"],
}
"""The benchmarks that take minutes: each name with its module and what the module is to measure."""

LONG = {
    "training-106m": ["training", "--policy", "106m"],
    "sampling-106m": ["sampling", "--policy", "106m", "--repeats", "3", "--items", "32", "--samples", "8"],
    "memory": ["memory", "eval"],
    "whole": ["start", "clone"],
}
ALL = QUICK | LONG


def main() -> None:
    """Run them, print their tables, and write them into a page if one is named."""
    parser = argparse.ArgumentParser(description="Measure unlearnbench, side by side with what it is compared to.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--all", action="store_true", help=f"also {' and '.join(LONG)}, which take long")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a markdown page to write the tables into")
    parser.add_argument("--data", type=Path, metavar="DIR", help="real completions for `verify` (see its --help)")
    chosen = parser.parse_args()
    names = chosen.names or list(ALL if chosen.all else QUICK)
    if unknown := sorted(set(names) - set(ALL)):
        parser.error(f"there is no benchmark {unknown[0]}; choose from {', '.join(ALL)}")
    page = chosen.write.read_text(encoding="utf-8") if chosen.write else None
    if page is not None:
        for name in names:
            replaced(page, name, "")  # fails before anything is measured if a place is missing
    failed = []
    for name in names:
        progress(f"{name} ...")
        module, *what = ALL[name]
        command = [sys.executable, "-m", f"benchmarks.{module}", *what]
        if name == "verify" and chosen.data is not None:
            command += ["--data", str(chosen.data)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
        if done.returncode != 0:  # it has printed the reason to standard error
            failed.append(name)
            continue
        print(f"## {name}\n\n{done.stdout}", flush=True)
        if page is not None:
            page = replaced(page, name, done.stdout)
            chosen.write.write_text(page, encoding="utf-8")
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def replaced(page: str, name: str, text: str) -> str:
    """The page with other text between a benchmark's markers. Raises SystemExit if it has no such markers."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, found, rest = page.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"the page has no place for {name}: add the lines {begin.strip()} and {end}")
    return f"{head}{begin}\n{text.strip()}\n\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    main()
