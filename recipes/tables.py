"""Tables of a split's datasheet, computed from its raw counts: groups, difficulty, controls, certification.

Nothing is read from a result: an item is *solved* in a run at a rate of at least 0.25 and with a lower limit above tau,
*converted* if its probe is solved in the same run, else *memorised* (PROTOCOL 3.3). Its probe is the first of its
changed_numbers twins that the base and every labelling run leave at or below tau.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS, Item
from unlearnbench.scoring.rates import is_above, most_below, upper_limit
from unlearnbench.splits import Control, Split

SOLVED = 0.25
Key = Callable[[Item], object]


@dataclass(frozen=True)
class Cell:
    """Right rollouts and all."""

    correct: int
    n: int

    @property
    def rate(self) -> float:
        return self.correct / self.n if self.n else float("nan")


Counts = Mapping[tuple[str, str, str], Cell]
"""By phase, problem and run."""


def counts_of(rows: Iterable[Mapping[str, object]], key: str = "item_id") -> dict[tuple[str, str, str], Cell]:
    """Rows of a counts file, by (phase, problem, run)."""
    return {
        (str(row["phase"]), str(row[key]), str(row["run"])): Cell(int(str(row["correct"])), int(str(row["n"])))
        for row in rows
    }


def solved(cell: Cell, tau: float) -> bool:
    """Whether a problem is solved in one run."""
    return cell.rate >= SOLVED and bool(is_above(cell.correct, cell.n, tau))


def probes(split: Split) -> dict[str, str]:
    """The probe of each item that has one: its first eligible twin with other numbers."""
    file = split.path / "twin_counts.parquet"
    if not file.is_file():
        return {}
    counts = counts_of(tables.read_counts(file, key="twin_id").to_pylist(), "twin_id")
    tau, runs = split.config.protocol.tau, [str(run) for run in range(1, split.config.protocol.runs + 1)]
    found: dict[str, str] = {}
    for twin in split.twins:
        cells = [counts.get(("base", twin.twin_id, "0")), *(counts.get(("after", twin.twin_id, run)) for run in runs)]
        if twin.kind == "changed_numbers" and all(cell is not None and cell.rate <= tau for cell in cells):
            found.setdefault(twin.item_id, twin.twin_id)
    return found


def control_in(folder: Path) -> Control | None:
    """A control from its folder: its counts alone; None where there is none."""
    file = folder / "counts.parquet"
    if not file.is_file():
        return None
    counts = tables.read_counts(file)
    return Control(None, counts, tuple(sorted({int(run) for run in counts["run"].to_pylist()})), files.sha256(file))


@dataclass(frozen=True)
class Share:
    """What a control does with some items: means over its runs."""

    items: int
    rate: float
    solved: float
    converted: float
    memorised: float
    """Shares of all the items; those without a probe count as solved alone."""


def share(split: Split, control: Control, items: Sequence[Item], probe_of: Mapping[str, str]) -> Share:
    """Rates and shares of these items after the runs of a control."""
    counts, tau = counts_of(control.counts.to_pylist()), split.config.protocol.tau
    rates, flags = [], np.zeros((3, len(items), len(control.seeds)))
    for row, item in enumerate(items):
        for column, run in enumerate(map(str, control.seeds)):
            cell = counts[("eval", item.item_id, run)]
            rates.append(cell.rate)
            flags[0, row, column] = hit = solved(cell, tau)
            probe = counts.get(("twin", probe_of.get(item.item_id, ""), run))
            if probe is not None:
                flags[1, row, column] = hit and solved(probe, tau)
                flags[2, row, column] = hit and not solved(probe, tau)
    means = flags.mean(axis=(1, 2)) if len(items) else np.zeros(3)
    return Share(len(items), float(np.mean(rates)) if rates else float("nan"), *means.tolist())


def groups_table(split: Split, title: str, key: Key, names: Sequence[object] | None = None) -> str:
    """Items of each kind by group, with the base policy's mean rate."""
    base = counts_of(split.counts().to_pylist())
    count = Counter((key(item), item.group) for item in split.items)
    rates: dict[object, list[float]] = defaultdict(list)
    for item in split.items:
        rates[key(item)].append(base[("base_fresh", item.item_id, "0")].rate)
    chosen = names or sorted(rates, key=str)
    rows = [f"| {title} | items | base rate | " + " | ".join(GROUPS) + " |", "|---|" + "---:|" * (len(GROUPS) + 2)]
    for name in chosen:
        cells = [str(count[name, group] or "") for group in GROUPS]
        rows.append(f"| {name} | {len(rates[name])} | {percent(float(np.mean(rates[name])))} | {' | '.join(cells)} |")
    totals = [str(sum(item.group == group for item in split.items)) for group in GROUPS]
    every = float(np.mean([rate for of in rates.values() for rate in of]))
    return "\n".join([*rows, f"| all | {len(split.items)} | {percent(every)} | {' | '.join(totals)} |"])


def difficulty_table(split: Split, title: str, key: Key, controls: Mapping[str, Control]) -> str:
    """For each kind of item: rates before and after the labelling runs, and what controls convert of the core."""
    counts, probe_of = counts_of(split.counts().to_pylist()), probes(split)
    runs = [str(run) for run in range(1, split.config.protocol.runs + 1)]
    head = ["items", "base rate", "after GRPO", "unlearnable", *(f"{name}: solved / converted" for name in controls)]
    rows = [f"| {title} | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name in sorted({key(item) for item in split.items}, key=str):
        items = [item for item in split.items if key(item) == name]
        core = [item for item in items if item.group == "unlearnable"]
        before = np.mean([counts[("base_fresh", item.item_id, "0")].rate for item in items])
        after = np.mean([counts[("after", item.item_id, run)].rate for item in items for run in runs])
        cells = [str(len(items)), percent(float(before)), percent(float(after)), str(len(core))]
        for control in controls.values():
            of = share(split, control, core, probe_of)
            cells.append(f"{percent(of.solved)} / {percent(of.converted)}" if core else "")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def controls_table(split: Split, controls: Mapping[str, Control]) -> str:
    """What each control does with the unlearnable items, and what it loses of the easy ones."""
    probe_of = probes(split)
    core, easy = ([item for item in split.items if item.group == group] for group in ("unlearnable", "easy"))
    rows = [
        "| control | seeds | rate after | solved | converted | memorised | easy: rate after |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, control in controls.items():
        of, kept = share(split, control, core, probe_of), share(split, control, easy, probe_of)
        cells = (percent(of.rate), percent(of.solved), percent(of.converted), percent(of.memorised), percent(kept.rate))
        rows.append(f"| {name} | {len(control.seeds)} | " + " | ".join(cells) + " |")
    with_probe = sum(item.item_id in probe_of for item in core)
    return "\n".join(rows) + f"\n\n{with_probe} of {len(core)} unlearnable items have a probe."


def power(split: Split, rates: Sequence[float] = (0.02, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1)) -> str:
    """How many right of the pooled fresh samples certification allows, and the chance to pass by true rate."""
    protocol = split.config.protocol
    n, tau = protocol.samples.certify * protocol.runs, protocol.tau
    most = most_below(n, tau)
    cells = [f"{percent(rate)}: {percent(_at_most(most, n, rate))}" for rate in rates]
    assert upper_limit(most, n) < tau
    return (
        f"A candidate is certified if at most {most} of its {n} fresh samples are right. Chance of that, by true rate: "
        f"{', '.join(cells)}."
    )


def _at_most(most: int, n: int, rate: float) -> float:
    chances: NDArray[np.float64] = np.array(
        [comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(most + 1)], dtype=np.float64
    )
    return float(chances.sum())


def percent(value: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.1f} %"
