"""What the site says about a split: the rates of its items, its families, its controls, and rollouts of single items.

Everything is counted from the split's own files; what a split does not ship is None or empty, and the page says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.io.rollout_store import BASE_ROLLOUTS, find_rollouts, read_all
from unlearnbench.leaderboard.site.figures import Strip
from unlearnbench.records import GROUPS, Item
from unlearnbench.reports.formatting import pct
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.nulls import control_outcomes, easy_lost_share
from unlearnbench.scoring.outcomes import Outcomes
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.scoring.released_run import ReleasedRun, released_run
from unlearnbench.splits import Control, Split
from unlearnbench.verifier import Verifier

SEEDS = 3
"""Seeds whose mean rate a curve shows: as many as a method is usually scored with."""
EXAMPLES = 3  # items of a group whose rollouts are shown
SHOWN = 4  # different rollouts of an item that are shown, of those that succeed and of those that fail


@dataclass(frozen=True)
class Drawn:
    """A completion that was drawn `count` times."""

    completion: str
    count: int


@dataclass(frozen=True)
class Example:
    """An item with rollouts of the base policy, the commonest first. `before` and `after` are rates, None: unknown."""

    item: Item
    before: float | None
    after: float | None
    rollouts: int
    correct: int
    successes: Sequence[Drawn]
    failures: Sequence[Drawn]
    kinds: tuple[int, int]
    """How many different completions succeed and fail, shown or not."""


@dataclass(frozen=True)
class ControlRow:
    """What a control does to the split's items, as shares: means over its seeds. Unknown is None."""

    name: str
    does: str
    seeds: int
    solved: float | None
    converted: float | None
    """None where the split has no probes, or the control has no counts of them."""
    before: float | None
    after: float | None
    easy_lost: float | None


class SplitFacts:
    """A split as its page and the introduction show it. Raises DataError or SplitError if a file is malformed.

    A split whose problem texts are not here (`built` is False) has no items.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.built = (split.path / split.config.pool.items).is_file()
        self.items = split.items if self.built else ()
        self.ids = [item.item_id for item in self.items]
        self.tau = split.config.protocol.tau
        self.groups = [name for name in GROUPS if any(item.group == name for item in self.items)]
        self.sizes = Counter(item.group for item in self.items)

    # --- rates ----------------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Reals | None:
        """Rate of each item in the base policy, from the freshest samples that the split has of all items."""
        if "counts.parquet" not in self.split.config.files:
            return None
        counts = self.split.counts()
        rates = (pooled_rates(counts, phase, self.ids) for phase in ("base_fresh", "base"))
        return next((found for found in rates if np.isfinite(found).all()), None)

    @cached_property
    def null(self) -> Control | None:
        return self.split.control("null_control", "1x")

    @cached_property
    def after(self) -> Reals | None:
        """Rate of each item after GRPO with fresh seeds, the null control's; NaN where it has no sample."""
        return None if self.null is None else pooled_rates(self.null.counts, "eval", self.ids)

    def strips(self, *groups: str) -> list[Strip]:
        """Rates of each group's items before and after GRPO."""
        if self.before is None:
            return []
        places = {name: [i for i, item in enumerate(self.items) if item.group == name] for name in groups}
        return [
            Strip(name.replace("_", " "), self.before[rows], None if self.after is None else self.after[rows])
            for name, rows in places.items()
            if rows
        ]

    # --- what the labels rest on -----------------------------------------------------------------------------------

    @cached_property
    def rewarded(self) -> dict[str, tuple[int, int, int, int]]:
        """Of each group in the labelling runs: items, of them rewarded at least once, rewarded rollouts, rollouts."""
        if "counts.parquet" not in self.split.config.files:
            return {}
        correct, n = read_phase(self.split.counts(), "train", self.ids).pooled
        found: dict[str, tuple[int, int, int, int]] = {}
        for name in self.groups:
            rows = [i for i, item in enumerate(self.items) if item.group == name]
            met = (len(rows), int((correct[rows] > 0).sum()), int(correct[rows].sum()), int(n[rows].sum()))
            found[name] = met
        return found if n.any() else {}

    @cached_property
    def causes(self) -> list[tuple[str, list[int]]]:
        """Items of each cause by group; empty where the split states no causes."""
        met = Counter((item.cause, item.group) for item in self.items if item.cause)
        names = dict.fromkeys(item.cause for item in self.items if item.cause)
        return [(name, [met[name, group] for group in self.groups]) for name in sorted(names)]

    @cached_property
    def families(self) -> list[tuple[str, str | None, list[int]]]:
        """Name, causes, and items by group of each family; those with most unlearnable items first."""
        met = Counter((item.family, item.group) for item in self.items)
        causes: dict[str, set[str]] = {}
        for item in self.items:
            causes.setdefault(item.family, set()).update([item.cause] if item.cause else [])
        names = sorted(causes, key=lambda name: (-met[name, "unlearnable"], name))
        return [
            (name, ", ".join(sorted(causes[name])) or None, [met[name, group] for group in self.groups])
            for name in names
        ]

    @cached_property
    def released(self) -> ReleasedRun | None:
        """The rewards of a released training run, by group; None where the split has none."""
        return released_run(self.split) if self.built else None

    # --- controls ---------------------------------------------------------------------------------------------------

    @cached_property
    def controls(self) -> list[ControlRow]:
        """The shipped controls: GRPO again at each budget, at each learning rate, and the ceiling."""
        null = self.split.path / "null_control"
        multiples = sorted((file.parent.name for file in null.glob("*x/counts.parquet")), key=_multiple)
        rows = [
            ("null control" + ("" if name == "1x" else f", {name} budget"), "GRPO again, fresh seeds", found)
            for name in multiples
            if (found := self.split.control("null_control", name))
        ]
        rows += [
            (f"tuned null, {rate:g}x", f"GRPO at {rate:g} times the learning rate", found)
            for rate, found in sorted(self.split.tuned_nulls().items())
        ]
        if positive := self.split.control("positive_control"):
            rows.append(("positive control", "the base taught what is missing, then GRPO: the ceiling", positive))
        return [self._control(*row) for row in rows]

    def _control(self, name: str, does: str, control: Control) -> ControlRow:
        found, known = self._outcomes(control), control.result
        group = known.groups.get("unlearnable") if known else None
        cells = self._cells(control)
        complete = bool(cells.n.size) and bool(cells.n.sum(axis=1).all())
        return ControlRow(
            name=name,
            does=does,
            seeds=len(control.seeds),
            solved=None if found is None else float(found.solved.mean()),
            converted=float(found.converted.mean()) if found is not None and found.has_probe.any() else None,
            before=group.rate_before if group else None,
            after=float(cells.rates.mean()) if complete else None,
            easy_lost=easy_lost_share(self.split, control) if "easy" in self.groups and complete else None,
        )

    def _outcomes(self, control: Control) -> Outcomes | None:
        """What a control did on the unlearnable items; None where it has too few samples of them."""
        items = [item for item in self.items if item.group == "unlearnable"]
        if not items or not control.seeds or not self._cells(control).enough:
            return None
        return control_outcomes(control, items, probes_of(self.split), self.tau, "control")

    def _cells(self, control: Control) -> Cells:
        """Counts of the unlearnable items after a control's runs."""
        runs = [str(seed) for seed in control.seeds]
        return Cells.of(read_phase(control.counts, "eval", self.split.ids("unlearnable"), runs=runs))

    @cached_property
    def luck(self) -> list[tuple[str, float]]:
        """Share of unlearnable items that GRPO re-run gets right by ever stricter rules, the mean over its seeds.

        Empty without a null control that has enough samples, or without probes.
        """
        found = None if self.null is None else self._outcomes(self.null)
        if found is None or not found.has_probe.any():
            return []
        above = found.cells.correct > self.tau * found.cells.n
        return [
            (f"above {pct(self.tau)}", float(above.mean())),
            ("solved", float(found.solved.mean())),
            ("converted", float(found.converted.mean())),
        ]

    @cached_property
    def curves(self) -> dict[str, Reals]:
        """Rates of the unlearnable items in the base and after as many seeds of each control, where all have them."""
        ids = self.split.ids("unlearnable")
        if self.before is None or not ids:
            return {}
        place = {item_id: row for row, item_id in enumerate(self.ids)}
        found = {"before training": self.before[[place[item_id] for item_id in ids]]}
        named = (
            ("GRPO", self.null),
            ("GRPO, 4x the budget", self.split.control("null_control", "4x")),
            ("positive control", self.split.control("positive_control")),
        )
        for name, control in named:
            if control is None:
                continue
            cells = self._cells(control)
            rates = Cells(cells.correct[:, :SEEDS], cells.n[:, :SEEDS]).rates
            if np.isfinite(rates).all():
                found[name] = rates
        return found

    # --- examples ---------------------------------------------------------------------------------------------------

    @cached_property
    def examples(self) -> dict[str, list[Example]]:
        """By group, a typical item (of median rate) of each of several causes, with judged rollouts."""
        path = self.split.path / BASE_ROLLOUTS
        chosen = {name: self._typical(name) for name in self.groups}
        if not path.is_file() or self.before is None:
            return {}
        drawn = _drawn(path, [self.ids[place] for rows in chosen.values() for place in rows])
        with Verifier(rule=self.split.config.protocol.verifier_rule) as verifier:
            return {
                name: [self._example(place, drawn[self.ids[place]], verifier) for place in rows]
                for name, rows in chosen.items()
                if any(drawn[self.ids[place]] for place in rows)
            }

    def _typical(self, group: str) -> list[int]:
        """Places of items with the median base rate of their cause (or family), the group's commonest causes first."""
        if self.before is None:
            return []
        rows = [i for i, item in enumerate(self.items) if item.group == group]
        kinds: dict[str, list[int]] = {}
        for i in rows:
            kinds.setdefault(self.items[i].cause or self.items[i].family, []).append(i)
        largest = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
        before = self.before

        def middle(kind: str) -> int:
            ordered = sorted(kinds[kind], key=lambda i: (before[i], self.ids[i]))
            return ordered[len(ordered) // 2]

        return [middle(kind) for kind in islice(largest, EXAMPLES)]

    def _example(self, place: int, drawn: Counter[str], verifier: Verifier) -> Example:
        item, texts = self.items[place], list(drawn)
        verdicts = verifier.verify_many([(item.answer, text) for text in texts])
        right = {text for text, verdict in zip(texts, verdicts, strict=True) if verdict.correct}
        ordered = sorted(drawn.items(), key=lambda pair: (-pair[1], pair[0]))
        hits = [Drawn(text, count) for text, count in ordered if text in right]
        misses = [Drawn(text, count) for text, count in ordered if text not in right]
        return Example(
            item=item,
            before=_known(self.before, place),
            after=_known(self.after, place),
            rollouts=drawn.total(),
            correct=sum(hit.count for hit in hits),
            successes=hits[:SHOWN],
            failures=misses[:SHOWN],
            kinds=(len(hits), len(misses)),
        )


def pooled_rates(counts: pa.Table, phase: str, ids: Sequence[str]) -> Reals:
    """Rate of each item in a phase, pooled over runs; NaN where it has no sample."""
    correct, n = read_phase(counts, phase, ids).pooled
    return np.where(n > 0, correct / np.maximum(n, 1), np.nan)


def _drawn(path: Path, ids: Sequence[str]) -> dict[str, Counter[str]]:
    """How often each completion of these items was drawn, from the split's base rollouts; read in batches."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, Counter[str]] = {item_id: Counter() for item_id in ids}
    for batch in read_all(find_rollouts([path])):
        rows = batch.rows.filter(pc.is_in(batch.rows["problem_id"], value_set=wanted))
        for row in rows.to_pylist():
            found[row["problem_id"]][row["completion"]] += row["count"]
    return found


def _known(rates: Reals | None, place: int) -> float | None:
    return None if rates is None or not np.isfinite(rates[place]) else float(rates[place])


def _multiple(name: str) -> float:
    try:
        return float(name.removesuffix("x"))
    except ValueError:
        return float("inf")
