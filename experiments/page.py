"""docs/results/experiments.md from the runs' files: the paper's experiments on `micro`, beside what the paper says.

    python -m experiments.page                     # the page, its pictures, leaderboard/entries and the methods' gains
    python -m experiments.page --runs DIR          # runs that lie elsewhere

No figure and no conclusion is typed in: runs that are missing are named, and what they would say is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import curves, gradients, interventions, methods, partition, passk, rest
from experiments.entries import write_entries, write_gains
from experiments.markdown import VERDICTS, Finding, blocks, paragraph, table
from experiments.runs import Runs, collect
from experiments.sweep import ROOT, RUNS
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.io import files
from unlearnbench.methods.gains import MEASURED
from unlearnbench.splits import load_split

WORK = ROOT / "build" / "experiments"
PAPER = "[arXiv 2605.16787](https://arxiv.org/abs/2605.16787)"


def page(runs: Runs, found: gradients.Found, pictures: Path) -> str:
    """The whole page; pictures are written beside it."""
    every, board = methods.section(runs)
    sections = [
        partition.section(runs.split),
        curves.section(runs, pictures),
        every,
        interventions.section(board),
        gradients.mid_training(runs, found),
        passk.section(runs, pictures),
        gradients.along_training(runs, found, pictures),
        rest.section(runs),
    ]
    numbered = [
        blocks(f"## {number}. {section.title}", section.text) for number, section in enumerate(sections, start=1)
    ]
    findings = [finding for section in sections for finding in section.findings]
    return blocks(_head(runs), _summary(findings), *numbered, _limits()) + "\n"


def _head(runs: Runs) -> str:
    split = runs.split
    missing = f"Missing runs: {', '.join(runs.missing)}." if runs.missing else ""
    return blocks(
        "# The paper's experiments on `micro`",
        paragraph(
            "This page is written by `make experiments` (`python -m experiments.sweep`, then `python -m",
            f"experiments.page`) from result files, counts and ledgers of runs on the split {split.name}, labels",
            f"`{split.hash[:12]}`; both commands go on where they were stopped. The paper is {PAPER}. Where a number",
            "of it was within reach, it stands beside ours: the shares of its groups. Its claims are those of its",
            "abstract and of its released code's experiments, in our words.",
            missing,
        ),
    )


def _summary(findings: Sequence[Finding]) -> str:
    claims, others = ([one for one in findings if one.of_paper == paper] for paper in (True, False))
    counted = {verdict: sum(one.verdict == verdict for one in claims) for verdict in VERDICTS}
    return blocks(
        "## Where `micro` agrees with the paper, and where not",
        paragraph(
            f"Of {len(claims)} claims of the paper micro agrees with {counted['agrees']} and differs from",
            f"{counted['differs']}; {counted['cannot be said']} cannot be decided at this size. Each verdict follows",
            "from intervals by a rule in `experiments/`: a claim that nothing happens agrees only where the interval",
            "leaves no room for much, and differs only where it excludes nothing happening.",
        ),
        _findings(claims),
        paragraph("Beside them, what others say, what this benchmark promises, and what one would expect:"),
        _findings(others),
    )


def _findings(findings: Sequence[Finding]) -> str:
    rows = [[str(one.experiment), one.claim, one.here, one.verdict] for one in findings]
    return table(["experiment", "claim", "on micro", "verdict"], rows, left=4)


def _limits() -> str:
    return blocks(
        "## What cannot be said here",
        paragraph(
            "micro is a policy of 412 thousand parameters on generated problems, whose mix of causes was chosen so",
            "that groups of a useful size come out ([datasheet](micro.md)). Agreement shows that the phenomenon and",
            "its signs exist in a setting where their causes are known; it is no evidence about language models of",
            "another size or about natural mathematics. Disagreement shows what a claim of the paper needs beyond",
            "these conditions: it does not refute the claim in the paper's own settings, whose splits are the place",
            "to test that.",
        ),
        paragraph(
            "Every method ran with its default settings and three seeds: a rank is a rank of these settings at this",
            "budget. Three seeds have two degrees of freedom, so gains of a few points are not excluded for most",
            "methods (the upper ends of the intervals), and a tie is no proof of equality. The paper's reading of",
            "reasoning traces and its similarity between an item and its own augmentations were not repeated.",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="for diagnoses and bundles [default: build/experiments]"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs, leaderboard and unlearnbench lie")
    parser.add_argument("--workers", type=int, help="processes of a diagnosis [default: one a core]")
    given = parser.parse_args()
    try:
        write(given.runs, given.work, given.root, given.workers)
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


def write(folder: Path, work: Path, root: Path, workers: int | None = None) -> None:
    """The page, its pictures, the leaderboard's entries and the methods' gains, under `root`."""
    runs = collect(folder, load_split("micro"))
    found = gradients.diagnose_all(gradients.places(runs), runs.split, work / "similarity", _tell, workers)
    text = page(runs, found, root / "docs/results")
    _tell("entries of the leaderboard")
    write_entries(runs, root / "leaderboard" / "entries", work / "bundles")
    write_gains(runs, root / MEASURED.relative_to(ROOT))
    files.write_text(root / "docs/results/experiments.md", text)
    for name in runs.missing:
        _tell(f"missing: {name}")


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
