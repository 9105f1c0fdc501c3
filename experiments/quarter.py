"""Every built-in method at a quarter of the budget, one seed: docs/results/quarter.md.

    python -m experiments.quarter    # 40 runs of half a minute; finished ones are not repeated

A look at what each method does and forgets, before anybody pays for a whole run; nothing here is a claim. Results are
written to build/experiments-quarter/<method>.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.markdown import blocks, paragraph, table
from unlearnbench.cli.progress import Bars
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io.files import write_text
from unlearnbench.methods import BUILT_IN
from unlearnbench.records import Result
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.jobs import Compute

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "build" / "experiments-quarter"
PAGE = ROOT / "docs" / "results" / "quarter.md"
BUDGET = 0.25
MUCH = 0.05
"""Share of the easy items from which a loss is marked."""


def page(results: dict[str, Result], split: Split) -> str:
    """The page as markdown. Raises KeyError where a method was not run."""
    rows = []
    for name in BUILT_IN:
        result = results[name]
        lost, easy = result.retention.easy_lost, result.retention.easy_items
        if lost is None:
            raise ValueError(f"the run of {name} counted no easy items")
        counts = [result.groups[group].solved for group in ("unlearnable", "learnable")]
        unlearnable, learnable = ("-" if count is None else f"{count:.0f}" for count in counts)
        converted = result.groups["unlearnable"].converted
        rows.append(
            [
                f"`{name}`",
                result.method.track,
                unlearnable,
                "-" if converted is None else f"{converted:.0f}",
                learnable,
                f"{lost:.0f} ({100 * lost / easy:.1f} %)" + (" *" if lost > MUCH * easy else ""),
                f"{result.cost.generated_tokens / 1e6:.2f}",
            ]
        )
    of = results["grpo"].groups
    return blocks(
        "# Every method at a quarter of the budget",
        paragraph(
            f"Written by `python -m experiments.quarter`: each built-in method on the split {split.name} (labels",
            f"`{split.hash[:12]}`) at {BUDGET:g}x, one seed, {results['grpo'].samples} samples per item, default",
            "settings. One seed and a quarter of the budget show what a method does and what it forgets; they support",
            f"no claim. Of {of['unlearnable'].items} unlearnable items: solved, and converted (their probe solved,",
            f"too). Of {of['learnable'].items} learnable items: solved. Easy lost: of the",
            f"{results['grpo'].retention.easy_items} easy items; * above {100 * MUCH:g} %. Tokens: generated in",
            "training, in millions.",
        ),
        table(
            ("method", "track", "solved", "converted", "learnable", "easy lost", "tokens (M)"),
            rows,
            left=2,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: %(default)s]")
    parser.add_argument("--workers", type=int, default=2, help="seeds at once [default: 2]")
    given = parser.parse_args()
    split, results = load_split("micro"), dict[str, Result]()
    for name in BUILT_IN:
        with Bars() as bars:
            results[name] = evaluate(
                name,
                split,
                1,
                out=given.runs / name,
                budget=BUDGET,
                compute=Compute(workers=given.workers),
                progress=bars.show,
            )
    write_text(PAGE, page(results, split) + "\n")


if __name__ == "__main__":
    main()
