"""Every item of a run: its row in items.csv, its mark beside its family's, and what the page's item browser shows."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unlearnbench.records import FATES, Item
from unlearnbench.reports.charts import Mark, marks_svg
from unlearnbench.reports.examples import Example, examples
from unlearnbench.reports.formatting import plain
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring.conversion_rule import LEAST_RATE, solved
from unlearnbench.scoring.fates import UNKNOWN
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Flags

MAX_FAMILIES = 80
"""Families with a row of marks: those that hold most solved items."""
MAX_DATA = 620_000
"""Bytes of the item browser's data; what does not fit is in items.csv alone."""
UNDRAWN = "."
"""Stands for the fate of an item that training never drew."""
_TEXTS = (1500, 160)
"""Characters of a completion, at most, and where there are many of them at least."""
_COLUMNS = (
    *("item_id", "group", "cause", "family", "certified", "thin", "probe", "rate_before", "rate_after", "seeds"),
    *("seeds_solved", "seeds_converted", "correct", "n", "fates", "rate_null"),
    "depth",
)
_ORDER = ("unlearnable", "unstable", "boundary", "no_reward", "learnable", "easy")


@dataclass(frozen=True)
class FamilyRow:
    """One family of unlearnable items: its marks, and how many of its items the mean seed converted (or solved)."""

    name: str
    svg: Markup
    hit: float | None
    items: int


@dataclass(frozen=True)
class Cause:
    """Families of one cause; `cut` of them have no row of their own."""

    name: str
    items: int
    families: Sequence[FamilyRow]
    cut: int


@dataclass(frozen=True)
class Depth:
    """Items that take so many steps: mean rates, and how many unlearnable ones the mean seed solved and converted."""

    steps: int
    items: int
    before: float | None
    after: float | None
    null: float | None
    unlearnable: int
    solved: float | None
    converted: float | None


class Items:
    """The split's items with what a run did on them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.items: Sequence[Item] = run.split.items
        self.seeds = len(run.seeds)

    @cached_property
    def solved(self) -> Flags | None:
        """Items x seeds; None with too few samples."""
        cells = self.run.everything
        return solved(cells, self.run.split.config.protocol.tau) if cells is not None and cells.enough else None

    @cached_property
    def converted(self) -> Flags:
        """Items x seeds: solved with the probe; only unlearnable items can be."""
        found = np.zeros((len(self.items), self.seeds), bool)
        if self.run.outcomes is not None:
            found[self.run.places.get("unlearnable", [])] = self.run.outcomes.converted
        return found

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """Items x seeds; NaN where nothing was measured."""
        cells = self.run.everything
        if cells is None:
            return np.full((len(self.items), self.seeds), np.nan)
        return np.where(cells.n > 0, cells.correct / np.maximum(cells.n, 1), np.nan)

    @cached_property
    def before(self) -> list[float | None]:
        found = self.run.rates_before([item.item_id for item in self.items])
        return [None] * len(self.items) if found is None else [round(rate, 4) for rate in found[0].tolist()]

    def fates(self, place: int) -> str:
        """First letters of an item's fates by seed; UNDRAWN where training never drew it, ? where there is none.

        Nothing for a run that nobody watched.
        """
        if self.run.watched is None:
            return ""
        fates, undrawn = self.run.watched.fate[place].tolist(), self._undrawn[place].tolist()
        return "".join(
            UNDRAWN if none else "?" if fate == UNKNOWN else FATES[fate][0]
            for fate, none in zip(fates, undrawn, strict=True)
        )

    @cached_property
    def _undrawn(self) -> Flags:
        shape = (len(self.items), self.seeds)
        return np.zeros(shape, bool) if self.run.watched is None else self.run.watched.undrawn

    # --- items.csv ------------------------------------------------------------------------------------------------

    def csv(self) -> str:
        """One row per item: labels, rates, and what every seed did; lists have a space between their entries."""
        probes = probes_of(self.run.split)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        cells, null = self.run.everything, self.run.null_rates
        for place, item in enumerate(self.items):
            writer.writerow(
                [item.item_id, item.group or "", item.cause or "", item.family, _known(item.certified), int(item.thin)]
                + [probes.get(item.item_id, ""), _known(self.before[place]), _mean(self.rates[place]), self.seeds]
                + ["" if self.solved is None else int(self.solved[place].sum())]
                + ["" if self.run.outcomes is None or item.group != "unlearnable" else int(self.converted[place].sum())]
                + ["" if cells is None else " ".join(map(str, values[place].tolist())) for values in _both(cells)]
                + [self.fates(place), "" if null is None else _mean(null[place : place + 1])]
                + [_known(item.depth)]
            )
        return text.getvalue()

    # --- marks ----------------------------------------------------------------------------------------------------

    def causes(self) -> list[Cause]:
        """The unlearnable items by family under their causes; empty where there are no counts of all of them."""
        places = self.run.places.get("unlearnable", [])
        if not places or np.isnan(self.rates[places]).any():
            return []
        families: dict[tuple[str, str], list[int]] = {}
        for place in places:
            item = self.items[place]
            families.setdefault((item.cause or _prefix(item.family), item.family), []).append(place)
        shown = sorted(families, key=lambda key: (-self._hits(families[key]), key))[:MAX_FAMILIES]
        found = []
        for cause in sorted({cause for cause, _ in families}):
            mine = [key for key in families if key[0] == cause]
            rows = [self._family(key[1], families[key]) for key in sorted(shown) if key[0] == cause]
            rows.sort(key=lambda row: (-(row.hit or 0.0), row.name))
            found.append(Cause(cause, sum(len(families[key]) for key in mine), rows, len(mine) - len(rows)))
        return sorted(found, key=lambda cause: (-cause.items, cause.name))

    def _hits(self, places: Sequence[int]) -> float:
        if self.solved is None:
            return float(self.rates[places].mean())
        return float(self.converted[places].sum() + self.solved[places].sum() / 1000)

    def _family(self, name: str, places: Sequence[int]) -> FamilyRow:
        rates, null = self.rates[places].mean(axis=1), self.run.null_rates
        share = np.zeros(len(places)) if self.solved is None else self.solved[places].mean(axis=1)
        marks = [
            Mark(self.items[place].item_id, float(rate), float(of), bool(self.converted[place].any()))
            for place, rate, of in zip(places, rates, share, strict=True)
        ]
        of_null = None if null is None or np.isnan(null[places]).any() else float(null[places].mean())
        hits = self.converted if self.run.outcomes is not None and self.run.outcomes.has_probe.any() else self.solved
        hit = None if hits is None else float(hits[places].sum() / self.seeds)
        return FamilyRow(name, marks_svg(marks, float(rates.mean()), of_null, LEAST_RATE), hit, len(places))

    def depths(self) -> list[Depth]:
        """All items by how many steps they take; empty where the split does not say it of every item."""
        if not self.items or any(item.depth is None for item in self.items):
            return []
        return [self._depth(steps) for steps in sorted({item.depth for item in self.items if item.depth is not None})]

    def _depth(self, steps: int) -> Depth:
        places = [place for place, item in enumerate(self.items) if item.depth == steps]
        hard = [place for place in places if self.items[place].group == "unlearnable"]
        before, null = [self.before[place] for place in places], self.run.null_rates
        known = [rate for rate in before if rate is not None]
        return Depth(
            steps,
            len(places),
            float(np.mean(known)) if len(known) == len(before) else None,
            _mean_or_none(self.rates[places]),
            None if null is None else _mean_or_none(null[places]),
            len(hard),
            None if self.solved is None else float(self.solved[hard].sum() / self.seeds),
            None if self.run.outcomes is None else float(self.converted[hard].sum() / self.seeds),
        )

    # --- the browser ----------------------------------------------------------------------------------------------

    def browser(self, most: int = MAX_DATA) -> dict[str, Any]:
        """The data for the browser, in a limited number of bytes of JSON: names once, then one row per item.

        A row is [id, group, cause, family, fates, rate before, correct by seed, solved by seed, converted by seed,
        prompt, answer, solution, completions]; a completion is [right, seed, step, reason, text].
        """
        groups, causes, families = (_Names() for _ in range(3))
        order = sorted(range(len(self.items)), key=self._rank)
        texts = examples(self.run.folder, self.run.seeds, [self.items[place].item_id for place in order])
        each = 0.6 * most / max(1, sum(map(len, texts.values()))) - 30
        length = int(min(max(each, _TEXTS[1]), _TEXTS[0]))
        cells, rows, size = self.run.everything, list[Any](), 2000
        for place in order:
            item = self.items[place]
            row = [
                item.item_id,
                groups[item.group or "unlabelled"],
                causes[item.cause or _prefix(item.family)],
                families[item.family],
                self.fates(place),
                self.before[place],
                [] if cells is None else cells.correct[place].tolist(),
                "" if self.solved is None else _bits(self.solved[place]),
                _bits(self.converted[place]) if item.group == "unlearnable" and self.run.outcomes is not None else "",
                item.prompt[: _TEXTS[0]],
                item.answer[: _TEXTS[0]],
                item.solution[:length],
                [_example(example, length) for example in texts.get(item.item_id, [])],
            ]
            row = spelled_out(row)
            size += len(script_json(row).encode()) + 1
            if size > most and rows:
                break
            rows.append(row)
        return {
            "seeds": list(self.run.result.seeds),
            "samples": self.run.result.samples,
            "fates": {name[0]: name for name in FATES} | ({UNDRAWN: "not drawn"} if self._undrawn.any() else {}),
            "groups": groups.names,
            "causes": spelled_out(causes.names),
            "families": spelled_out(families.names),
            "all": len(self.items),
            "rows": rows,
        }

    def _rank(self, place: int) -> tuple[int, float, float, int]:
        group = self.items[place].group
        hits = 0.0 if self.solved is None else -float(self.solved[place].sum())
        where = _ORDER.index(group) if group in _ORDER else len(_ORDER)
        return where, -float(self.converted[place].sum()), hits, place


class _Names:
    """Numbers names in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self._places.setdefault(name, len(self._places))

    @property
    def names(self) -> list[str]:
        return list(self._places)


def spelled_out(data: list[Any]) -> list[Any]:
    """The same lists with the hidden characters of every text spelled out."""
    return [
        plain(value) if isinstance(value, str) else spelled_out(value) if isinstance(value, list) else value
        for value in data
    ]


def script_json(data: Any) -> Markup:
    """JSON for a data block of a page: nothing in it can end the block, whatever the text is."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    text = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _example(example: Example, length: int) -> list[Any]:
    text = example.text if len(example.text) <= length else example.text[:length] + " …"
    return [int(example.correct), example.seed, example.step, example.reason, text]


def _bits(flags: Flags) -> str:
    return "".join("1" if flag else "0" for flag in flags.tolist())


def _both(cells: Any) -> tuple[Any, Any]:
    return cells.correct, cells.n


def _known(value: float | bool | None) -> str:
    return "" if value is None else str(int(value)) if isinstance(value, bool) else f"{value:g}"


def _mean(values: NDArray[np.float64]) -> str:
    mean = _mean_or_none(values)
    return "" if mean is None else f"{mean:.4f}"


def _mean_or_none(values: NDArray[np.float64]) -> float | None:
    mean = float(values.mean()) if values.size else math.nan
    return None if math.isnan(mean) else mean


def _prefix(family: str) -> str:
    return re.split(r"[^0-9A-Za-z]", family)[0] or family
