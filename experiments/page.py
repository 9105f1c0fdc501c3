"""docs/results/experiments.md from the files of the runs that are finished: the paper's claims, and every method.

    python -m experiments.page                     # the page, its pictures and methods/measured.json
    python -m experiments.page --runs DIR          # runs that are elsewhere

No figure and no conclusion is typed in: runs that are missing are named, and what they would say is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments import augmentations, gradients, method_gains, paper_claims, partition, training_reward
from experiments.entries import write_gains
from experiments.markdown import blocks, paragraph
from experiments.runs import Runs, collect
from experiments.sweep import ROOT, RUNS, SEEDS
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.io import files
from unlearnbench.methods import BUILT_IN
from unlearnbench.methods.gains import MEASURED
from unlearnbench.splits import load_split

PAPER = "[arXiv 2605.16787](https://arxiv.org/abs/2605.16787)"
RECOMMENDED_SEEDS = 10


def page(runs: Runs, pictures: Path) -> str:
    """The whole page; pictures are written beside it."""
    found = gradients.read_all(runs)
    sections = [
        paper_claims.section(runs, found),
        method_gains.section(runs, pictures),
        training_reward.section(runs, pictures),
        gradients.section(found, augmentations.section(runs.split, runs.folder)),
        partition.section(runs.split),
    ]
    numbered = [blocks(f"## {number}. {one.title}", one.text) for number, one in enumerate(sections, start=1)]
    return blocks(_head(runs), *numbered, _limits(runs)) + "\n"


def _head(runs: Runs) -> str:
    split = runs.split
    which = "Every method" if runs.built_in == len(BUILT_IN) else f"{runs.built_in} of {len(BUILT_IN)} methods"
    return blocks(
        f"# {which}, and the paper's claims, on `{split.name}`",
        paragraph(
            "Written by `make experiments` (`python -m experiments.sweep`, then `python -m experiments.page`) from the",
            f"result files, counts and ledgers of runs on the split {split.name}, labels `{split.hash[:12]}`, score",
            f"version 2. {runs.built_in} of {len(BUILT_IN)} methods were run, with {SEEDS} seeds each unless a table",
            f"says otherwise (a method that claims a gain should have {RECOMMENDED_SEEDS}). The paper is {PAPER};",
            "of its results only the shares of its groups were within reach as numbers, so its claims are in our",
            "words.",
        ),
    )


def _limits(runs: Runs) -> str:
    policy = runs.split.config.base_policy.parameters
    size = "" if policy is None else f"of {policy / 1e3:.0f} thousand parameters "
    return blocks(
        "## What cannot be said here",
        paragraph(
            f"micro is a policy {size}on generated problems, whose mix of causes was chosen so that groups of a useful",
            "size come out ([datasheet](micro.md)). Agreement shows that the phenomenon and its signs exist in a",
            "setting where their causes are known; it is no evidence about language models of another size or about",
            "natural mathematics. Disagreement shows what a claim of the paper needs beyond these conditions: it does",
            "not refute the claim in the paper's own settings, whose splits are the place to test that.",
        ),
        paragraph(
            f"{_tuned(runs)} {SEEDS} seeds have two degrees of",
            "freedom: gains of a few points are not excluded for most methods, and a tie is no proof of equality.",
            "Not measured: marks of a judge model for reasoning.",
        ),
    )


def _tuned(runs: Runs) -> str:
    if not runs.tuned:
        return "Every method ran with its default settings, not tuned."
    return f"{len(runs.tuned)} methods were tuned over learning rates, the others ran with their default settings."


def write(folder: Path, split: str, root: Path) -> None:
    """The page, its pictures and the methods' gains, under `root`."""
    runs = collect(folder, load_split(split))
    text = page(runs, root / "docs/results")
    write_gains(runs, root / MEASURED.relative_to(ROOT))
    files.write_text(root / "docs/results/experiments.md", text)
    for name in runs.missing:
        print(f"missing: {name}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument("--split", default="micro", help="name or folder of the split [default: micro]")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds docs and unlearnbench")
    given = parser.parse_args()
    try:
        write(given.runs, given.split, given.root)
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
