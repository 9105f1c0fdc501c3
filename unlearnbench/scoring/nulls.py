"""What a method is compared with: null control, tuned null, and the positive control as the ceiling (PROTOCOL 3.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearnbench.records import Item, TunedNull
from unlearnbench.scoring.conversion_rule import lost, share_arm
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of, require_samples
from unlearnbench.splits import Control, Split

EASY_LOST = 0.05
"""Share of the easy items that a tuned null may lose even if the method loses fewer."""


def control_outcomes(
    control: Control, items: Sequence[Item], probes: Mapping[str, str], tau: float, name: str
) -> Outcomes:
    """A control's outcomes in all its seeds; `name` is for errors. Raises DataError for an item that it lacks."""
    return outcomes_of(control.counts, items, probes, [str(seed) for seed in control.seeds], tau, f"the {name}")


def tuned_null(
    split: Split, items: Sequence[Item], probes: Mapping[str, str], method: Outcomes, easy_lost: float | None
) -> TunedNull | None:
    """GRPO at its best learning rate: of those that lose no larger share of the easy items than the method does
    (`easy_lost`), or than EASY_LOST if that is more, the one that converts most, and of equal ones solves more.

    The gain's interval is beyond these families. None for a split that ships no tuned null, or none that forgets so
    little.
    """
    allowed = max(easy_lost or 0.0, EASY_LOST)
    found: list[tuple[float, float, float, float, Outcomes, Control]] = []
    tau = split.config.protocol.tau
    for multiple, control in split.tuned_nulls().items():
        outcomes = control_outcomes(control, items, probes, tau, f"tuned null at {multiple:g}x")
        lost_share = easy_lost_share(split, control)
        if not outcomes.has_probe.any():
            continue  # what it converts is unknown
        if lost_share <= allowed and outcomes.samples <= method.samples:
            rates = float(outcomes.converted.mean()), float(outcomes.solved.mean())
            found.append((*rates, multiple, lost_share, outcomes, control))
    if not found:
        return None
    rate, _, multiple, lost_share, outcomes, control = max(found, key=lambda one: one[:2])
    arms = share_arm(method.converted), share_arm(outcomes.converted)
    return TunedNull(
        learning_rate=multiple,
        rate=rate,
        easy_lost=lost_share,
        gain=float(method.converted.mean()) - rate,
        interval=gain_intervals(*arms, [item.family for item in items])[1],
        seeds=len(control.seeds),
    )


def easy_lost_share(split: Split, control: Control) -> float:
    """Share of the easy items that a control lost, the mean over its seeds."""
    cells = easy_cells(split, control)
    return float(lost(cells, split.config.protocol.tau).mean()) if cells.n.size else 0.0


def easy_cells(split: Split, control: Control) -> Cells:
    """A control's counts of the easy items. Raises DataError where one lacks rollouts."""
    runs, ids = [str(seed) for seed in control.seeds], split.ids("easy")
    cells = Cells.of(read_phase(control.counts, "eval", ids, runs=runs, source="a control"))
    return require_samples(cells, ids, runs, "eval", "a control")


def ceiling(split: Split, items: Sequence[Item], probes: Mapping[str, str]) -> float | None:
    """Conversion of the positive control; None where the split ships none with counts, of its probes too."""
    control = split.control("positive_control")
    if control is None or not probes:
        return None
    found = control_outcomes(control, items, probes, split.config.protocol.tau, "positive control")
    return float(found.converted.mean()) if found.has_probe.any() else None
