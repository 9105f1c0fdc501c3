"""The controls as rows of the board: GRPO re-run, tuned GRPO and the ceiling, pinned above the entries and unranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearnbench.leaderboard.site.board_page import Line
from unlearnbench.leaderboard.site.split_page import ControlRow, SplitFacts
from unlearnbench.reports.headline import LARGE_LOSS


@dataclass(frozen=True)
class ControlLine:
    """A control in an edition, or its means over the editions that are pooled. Shares; unknown is None."""

    name: str
    does: str
    tier: str
    edition: str
    split: str
    budget: str
    seeds: int
    converted: float
    gain: float
    """Over GRPO re-run at the same budget; 0 of GRPO re-run itself."""
    easy_lost: float | None


def control_lines(found: Sequence[Line], splits: Mapping[str, SplitFacts]) -> list[ControlLine]:
    """For each tier, edition and split page that has entries, the controls of its splits; the ceiling last."""
    page_of = {line.id: line.split for line in found if not line.pooled}
    groups: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for line in found:
        used = groups.setdefault((line.tier, line.edition, line.split), {})
        used.setdefault(line.budget, set()).update(page_of[name] for name in line.standing.entries)
    rows = []
    for (tier, edition, split), budgets in groups.items():
        for budget, pages in budgets.items():
            facts = [splits[page] for page in sorted(pages)]
            rows += [
                _line(name, does, (tier, edition, split, budget), held)
                for name, does, held in _named(facts, budget)
                if held
            ]
    return rows


def _named(facts: Sequence[SplitFacts], budget: str) -> list[tuple[str, str, list[tuple[ControlRow, ControlRow]]]]:
    """Name and meaning of each control with, per split, its row and GRPO re-run's; empty where a split has none."""
    nulls = [_find(of, "null control" + ("" if budget == "1x" else f", {budget} budget")) for of in facts]
    found = [("GRPO re-run", "GRPO again with fresh seeds: the zero of every gain", nulls)]
    if budget == "1x":
        found.append(("tuned GRPO", "GRPO at the learning rate that converts most and forgets little", _tuned(facts)))
        ceiling = [_find(of, "positive control") for of in facts]
        found.append(("ceiling", "the base taught what is missing, then GRPO: what can be reached", ceiling))
    return [(name, does, _paired(rows, nulls)) for name, does, rows in found]


def _paired(
    rows: Sequence[ControlRow | None], nulls: Sequence[ControlRow | None]
) -> list[tuple[ControlRow, ControlRow]]:
    known = [(row, null) for row, null in zip(rows, nulls, strict=True) if row is not None and null is not None]
    return known if len(known) == len(nulls) else []


def _find(of: SplitFacts, name: str) -> ControlRow | None:
    return next((row for row in of.controls if row.name == name and row.converted is not None), None)


def _tuned(facts: Sequence[SplitFacts]) -> list[ControlRow | None]:
    """Of each split, the tuned null that converts most among those that lose few easy items."""
    found: list[ControlRow | None] = []
    for of in facts:
        held = [row for row in of.controls if row.name.startswith("tuned null") and row.converted is not None]
        fair = [row for row in held if row.easy_lost is None or row.easy_lost <= LARGE_LOSS]
        found.append(max(fair, key=lambda row: row.converted or 0.0, default=None))
    return found


def _line(
    name: str, does: str, place: tuple[str, str, str, str], held: Sequence[tuple[ControlRow, ControlRow]]
) -> ControlLine:
    tier, edition, split, budget = place
    converted = _mean([row.converted or 0.0 for row, _ in held])
    lost = [row.easy_lost for row, _ in held if row.easy_lost is not None]
    return ControlLine(
        name=name,
        does=does,
        tier=tier,
        edition=edition,
        split=split,
        budget=budget,
        seeds=sum(row.seeds for row, _ in held),
        converted=converted,
        gain=converted - _mean([null.converted or 0.0 for _, null in held]),
        easy_lost=_mean(lost) if len(lost) == len(held) else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
