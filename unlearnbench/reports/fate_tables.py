"""What became of a run's items in training, and what the evaluation says of them: the tables of the report.

A pair is an item in one seed. Fates are what training saw (`fates`); solved and converted are what fresh samples after
training say of the item in that seed (PROTOCOL 3.3). The two need not agree: a visit is 8 rollouts or so, at the
temperature of training, and its item has often been trained on a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from unlearnbench.records import FATES
from unlearnbench.reports.charts import bar
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.fates import Summary, summary


@dataclass(frozen=True)
class Outcome:
    """What the evaluation says of unlearnable items that met the same fate in training. Undefined is None.

    `pairs` counts items in every seed; of them `solved` were solved and `converted` converted in the evaluation of that
    seed, at a mean rate of `rate`.
    """

    name: str
    pairs: int
    rate: float | None
    solved: int | None
    converted: int | None


def by_group(run: Run) -> dict[str, Summary]:
    """Fates of each group's items; of the unlearnable alone, as counts, where only the result is left."""
    if run.watched is not None:
        return {name: summary(run.watched[rows]) for name, rows in run.places.items()}
    if (stated := run.result.fates) is None:
        return {}
    met = {fate: int(getattr(stated, fate)) for fate in FATES}
    return {"unlearnable": Summary(sum(met.values()), met, None, None, 0, None)}


def share_bar(name: str, of: Summary) -> Markup:
    """A group's fates as parts of a bar."""
    shares = [(fate, number / of.pairs) for fate, number in of.met.items()]
    told = ", ".join(f"{100 * share:.0f} % {fate}" for fate, share in shares)
    if not of.undrawn:
        return bar(shares, f"{name}: {told}")
    undrawn = of.undrawn / of.pairs
    parts = [("undrawn", undrawn), ("never", of.met["never"] / of.pairs - undrawn), *shares[1:]]
    return bar(parts, f"{name}: {told}; {100 * undrawn:.0f} % were not drawn")


def by_fate(run: Run) -> list[Outcome]:
    """What the evaluation says of the unlearnable items, by their fate in each seed; none where it lacks an item."""
    if run.fates is None or run.after is None:
        return []
    cells, found = Cells.of(run.after), run.outcomes
    if not cells.n.size or not cells.n.all():
        return []
    rate, outcomes = cells.correct / cells.n, []
    probed = found is not None and bool(found.has_probe.any())
    for fate in FATES:
        met = run.fates.met(fate)
        outcomes.append(
            Outcome(
                name=fate,
                pairs=int(met.sum()),
                rate=float(rate[met].mean()) if met.any() else None,
                solved=None if found is None else int((met & found.solved).sum()),
                converted=int((met & found.converted).sum()) if found is not None and probed else None,
            )
        )
    return outcomes
