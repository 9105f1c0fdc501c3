"""Does a ranking on one variant of `micro` hold on another? The same methods on several, compared pair by pair.

    make micro SEED=1
    python -m recipes.micro.variants            # splits/micro and build/micro-1
    python -m recipes.micro.variants 0 1 7      # these seeds' variants

GRPO, no training at all and the example method are run on each variant; the positive control is the one that its
recipe made. A pair that differs significantly on one variant should nowhere differ significantly the other way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from recipes.micro.make import ROOT
from unlearnbench.cli.progress import Bars
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import tables
from unlearnbench.records import Interval
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.splits import Split, load_split

METHODS = {"grpo": "grpo", "no_training": "no_training", "example": str(ROOT / "examples" / "my_algo.py")}
POSITIVE = "positive control"
SEEDS = 3


@dataclass(frozen=True)
class Variant:
    """One variant with the counts of every method that was run on it."""

    split: Split
    outcomes: dict[str, Outcomes]

    def share(self, method: str) -> float:
        """Share of the unlearnable items that it converts, a mean over seeds."""
        return float(self.outcomes[method].converted.mean())

    def gain(self, first: str, second: str) -> tuple[float, Interval]:
        """Gain of `first` over `second` and its 95 % interval over families."""
        families = [item.family for item in self.split.items if item.group == "unlearnable"]
        arms = [share_arm(self.outcomes[name].converted) for name in (first, second)]
        _, beyond = gain_intervals(arms[0], arms[1], families)
        assert beyond is not None
        return float(arms[0].values.mean() - arms[1].values.mean()), beyond


def measured(seed: int) -> Variant:
    """Run every method on the variant of this seed; what was run already is read."""
    split = load_split(ROOT / "splits" / "micro" if seed == 0 else ROOT / "build" / f"micro-{seed}")
    work = ROOT / "build" / f"micro-{seed}-work" / "methods"
    files = {POSITIVE: split.path / "positive_control" / "counts.parquet"}
    for name, method in METHODS.items():
        with Bars() as bars:
            evaluate(method, split, SEEDS, out=work / name, progress=bars.show)
        files[name] = work / name / "counts.parquet"
    items, probes, tau = (
        [item for item in split.items if item.group == "unlearnable"],
        probes_of(split),
        split.config.protocol.tau,
    )
    runs = [str(seed) for seed in range(1, SEEDS + 1)]
    found = {
        name: outcomes_of(tables.read_counts(file), items, probes, runs, tau, name) for name, file in files.items()
    }
    return Variant(split, found)


def report(variants: Sequence[Variant]) -> str:
    """Both tables as markdown, and the verdicts in words."""
    names = list(variants[0].outcomes)
    titles = [f"{variant.split.name} (n = {len(variant.split.ids('unlearnable'))})" for variant in variants]
    rows = ["| method | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(variants)]
    rows += [f"| {name} | " + " | ".join(_pct(v.share(name)) for v in variants) + " |" for name in names]
    rows += ["", "| pair | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(variants)]
    reversed_pairs = []
    for first, second in combinations(names, 2):
        gains = [variant.gain(first, second) for variant in variants]
        cells = [f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for gain, (low, high) in gains]
        rows.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
        if any(low > 0 for _, (low, _) in gains) and any(high < 0 for _, (_, high) in gains):
            reversed_pairs.append(f"{first} - {second}")
    first_everywhere = all(max(names, key=variant.share) == POSITIVE for variant in variants)
    return "\n".join(rows) + (
        f"\n\nConverted share of the certified unlearnable items with {SEEDS} seeds; gains in points with 95 % "
        f"intervals over families. The positive control is {'' if first_everywhere else 'NOT '}first on every variant. "
        f"Significantly reversed pairs: {', '.join(reversed_pairs) or 'none'}."
    )


def _pct(value: float) -> str:
    return f"{100 * value:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="*", default=[0, 1])
    print(report([measured(seed) for seed in parser.parse_args().seeds]))


if __name__ == "__main__":
    main()
