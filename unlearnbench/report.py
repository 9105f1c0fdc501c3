"""report.html: one self-contained page that says what a run showed, and what it did not.

Everything is read from the run's files and the split; no torch, no network. What methods, rollouts and splits wrote
is hostile text: jinja escapes it, `plain` makes its invisible characters visible, and the page forbids scripts.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unlearnbench import plots, rates, tables
from unlearnbench.errors import DataError, RunError
from unlearnbench.grid import Grid, read_phase
from unlearnbench.ledger import read_metrics
from unlearnbench.records import FATES, GROUPS, Item, Result
from unlearnbench.rule import MIN_SAMPLES, Cells, converted
from unlearnbench.splits import Control, Split, load_split

POOLED = 0.25  # PROTOCOL 3.3: the pooled rate that a converted item reaches, as a line in the figure
MAX_ROWS = 200  # items in the table of conversions
MAX_TEXT = 2000  # characters shown of a prompt or a completion
UNDEFINED = Markup('<span class="none">&ndash;</span>')

_FATES = {
    "item_id": pa.string(),
    "seed": pa.int64(),
    "fate": pa.string(),
    "first_correct_step": pa.int64(),
    "rewarded": pa.int64(),
    "rewarded_valid_trace": pa.int64(),
}
_PANELS: Sequence[tuple[str, str, bool, Callable[[Mapping[str, Any]], Any]]] = (
    ("reward", "mean of a step's rollouts", False, lambda step: step["reward"]),
    ("correct rollouts", "% of rollouts", True, lambda step: step["correct"]),
    ("kept groups", "% of groups drawn", True, lambda step: step["kept_groups"] / step["groups"]),
    ("KL to the start", "nats a token", False, lambda step: step["kl"]),
    ("gradient norm", "before clipping", False, lambda step: step["gradient_norm"]),
    ("entropy", "nats a token", False, lambda step: step["entropy"]),
    ("length", "tokens a rollout", False, lambda step: step["length"]),
    ("truncated rollouts", "% of rollouts", True, lambda step: step["truncated"]),
    ("clipped ratios", "% of tokens", True, lambda step: step["clipped"]),
)


@dataclass(frozen=True)
class Verdict:
    """The run in a sentence; `caveats` are what a reader must know before quoting it."""

    tone: Literal["more", "same", "less", "open"]
    label: str
    sentence: str
    caveats: Sequence[str]


@dataclass(frozen=True)
class Conversion:
    """An unlearnable item that the rule calls converted, and what training saw of it. Unknown is None."""

    item: Item
    before: float | None
    after: Sequence[float | None]
    first_step: int | None
    rewarded: int | None
    valid_trace: int | None
    completion: str | None


class Run:
    """A run's folder, read as the page needs it. Files that a kind of run does not have are None or empty."""

    def __init__(self, folder: Path, split: Split, result: Result) -> None:
        self.folder, self.split, self.result = Path(folder), split, result
        self.items = [item for item in split.items if item.group == "unlearnable"]
        self.ids = [item.item_id for item in self.items]
        self.seeds = [str(seed) for seed in result.seeds]

    @cached_property
    def counts(self) -> pa.Table | None:
        path = self.folder / "counts.parquet"
        return tables.read_counts(path) if path.is_file() else None

    @cached_property
    def after(self) -> Grid | None:
        """Counts of the unlearnable items after training."""
        if self.counts is None or not self.ids:
            return None
        return read_phase(self.counts, "eval", self.ids, runs=self.seeds)

    @cached_property
    def before(self) -> tuple[plots.Array, str] | None:
        """Rates before training, and what of: the policy that the runs start from, else the split's base."""
        sources = [] if self.counts is None else [(self.counts, "start", "start of the runs")]
        if "counts.parquet" in self.split.config.files:
            shipped = self.split.counts()
            sources += [
                (shipped, "base_fresh", "base, fresh samples"),
                (shipped, "base", "base, labelling samples"),
            ]
        for counts, phase, label in sources:
            correct, n = read_phase(counts, phase, self.ids).pooled
            if len(n) and n.all():
                return correct / n, f"{label} (n = {n.min()} an item)"
        return None

    @cached_property
    def null(self) -> Control | None:
        """The null control that the result was scored against, if the split still has it."""
        multiple = self.result.budget.multiple
        control = self.split.control("null_control", f"{1.0 if multiple is None else multiple:g}x")
        return control if control and control.hash == self.result.conversion.null_hash else None

    @cached_property
    def null_rates(self) -> tuple[plots.Array, str] | None:
        """Rates under as many seeds of the null control as the run has: more would be less spread by chance."""
        if self.null is None or len(self.null.seeds) < len(self.seeds):
            return None
        seeds = [str(seed) for seed in self.null.seeds[: len(self.seeds)]]
        correct, n = read_phase(self.null.counts, "eval", self.ids, runs=seeds).pooled
        return (correct / n, f"null control, {len(seeds)} seeds, sorted by itself") if n.all() else None

    @cached_property
    def converted(self) -> list[int]:
        """Places of the converted items (PROTOCOL 3.3), the highest pooled rate first; none where undefined."""
        if self.after is None or self.result.groups["unlearnable"].converted is None:
            return []
        cells = Cells.of(self.after)
        chosen = converted(cells, self.split.config.protocol.tau)
        return [int(place) for place in np.argsort(-cells.rates, kind="stable") if chosen[place]]

    @cached_property
    def fates(self) -> list[dict[str, Any]]:
        """The unlearnable items' rows of fates.parquet; none for a run that nobody watched."""
        path = self.folder / "fates.parquet"
        if not path.is_file():
            return []
        table = tables.read_parquet(path, _FATES)
        rows: list[dict[str, Any]] = table.filter(
            pc.is_in(table["item_id"], pa.array(self.ids, pa.string()))
        ).to_pylist()
        return rows

    @cached_property
    def completions(self) -> dict[str, str]:
        """One correct completion after training of each converted item that is shown."""
        missing = {self.ids[place] for place in self.converted[:MAX_ROWS]}
        found: dict[str, str] = {}
        for seed in self.seeds:
            path = self.folder / seed / "evaluation" / "items.parquet"
            if not missing or not path.is_file():
                continue
            try:
                with pq.ParquetFile(path) as file:  # in pieces: a long-answer split holds gigabytes of them
                    for piece in file.iter_batches(8192, columns=["item_id", "completion", "correct"]):
                        wanted = pc.is_in(piece["item_id"], pa.array(sorted(missing), pa.string()))
                        rows = piece.filter(pc.and_(wanted, pc.fill_null(piece["correct"], False)))
                        for row in rows.to_pylist():
                            found.setdefault(row["item_id"], row["completion"])
                        missing -= found.keys()
            except (OSError, KeyError, pa.ArrowException) as error:
                raise DataError(f"{path} is not a readable table of rollouts: {error}") from error
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json of the first seed that has one, flattened."""
        for seed in self.seeds:
            path = self.folder / seed / "environment.json"
            if path.is_file():
                try:
                    found = dict(json.loads(path.read_bytes()))
                    return found | dict(found.pop("packages", {}))
                except (TypeError, ValueError) as error:
                    raise DataError(f"{path} is not a JSON object ({error})") from error
        return {}


def write_report(folder: Path, split: Split, result: Result) -> Path:
    """Write report.html of the run in `folder` and return its path. The same files give the same bytes.

    Raises DataError or SplitError if a file is malformed, RunError if the page cannot be written.
    """
    run = Run(folder, split, result)
    page = (
        _templates()
        .get_template("report.html")
        .render(
            run=run,
            result=result,
            protocol=split.config.protocol,
            verdict=verdict(result),
            few=f"{result.samples} samples an item, the rule needs {MIN_SAMPLES}",
            gain_figure=_gain_figure(result),
            items_figure=_items_figure(run),
            curves_figure=_curves_figure(run),
            families=_families(run),
            fates=_fates(run),
            conversions=[_conversion(run, place) for place in run.converted[:MAX_ROWS]],
            groups=[name for name in GROUPS if name in result.groups],
            pass_ks=sorted({k for score in result.groups.values() for k in score.pass_at_k}, key=int),
            max_text=MAX_TEXT,
            min_samples=MIN_SAMPLES,
        )
    )
    path = run.folder / "report.html"
    tables.write_bytes(path, page.encode("utf-8", "replace"))
    return path


def rebuild(folder: Path, split: str | Path | None = None) -> Path:
    """Write report.html again from the files in `folder`; `split` defaults to the shipped split of that name.

    Raises RunError if there is no result there, or if it was scored on other labels than the split's.
    """
    source = Path(folder) / "result.json"
    if not source.is_file():
        raise RunError(f"{folder} has no result.json; give the folder of a finished run (--out of `eval`)")
    result = tables.read_json_record(source, Result)
    found = load_split(split or result.split)
    if found.hash != result.split_hash:
        raise RunError(
            f"{source} was scored on other labels than those in {found.path} (field split_hash); name the split "
            "that it was scored on with --split"
        )
    return write_report(folder, found, result)


# --- numbers and text as they are shown -----------------------------------------------------------------------


def plain(text: str) -> str:
    """Text with control, formatting and surrogate characters spelled out: none can hide or reorder others."""
    hidden = ("Cc", "Cf", "Cs", "Co")
    return "".join(f"\\u{{{ord(c):x}}}" if unicodedata.category(c) in hidden and c not in "\n\t" else c for c in text)


def pct(value: float) -> str:
    """A fraction in percent; a small one keeps a digit that is not 0."""
    return f"{_number(100 * value, 2 if 0 < abs(value) < 0.001 else 1)}\u202f%"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{_number(100 * value, 1, '+')} points"


def span(interval: Sequence[float]) -> str:
    """An interval of fractions, in percent."""
    return f"{_number(100 * interval[0], 1)} to {_number(100 * interval[1], 1)}\u202f%"


def point_span(interval: Sequence[float]) -> str:
    """An interval of differences, in percentage points with their signs."""
    return f"{_number(100 * interval[0], 1, '+')} to {_number(100 * interval[1], 1, '+')} points"


def count(value: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,}".replace(",", "\u202f")


def power(value: float) -> str:
    """A large number as a power of ten."""
    exponent = math.floor(math.log10(value)) if value >= 1 else 0
    if exponent < 7:
        return count(round(value))
    raised = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value / 10**exponent:.2f}\u202f\N{MULTIPLICATION SIGN}\u202f10{raised}"


def duration(seconds: float) -> str:
    """Seconds in units that can be read."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: float, digits: int, sign: str = "-") -> str:
    return f"{value:{sign}z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def plural(number: int, noun: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("unlearnbench", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    for shown in (pct, points, span, point_span, count, power, duration):
        environment.filters[shown.__name__] = _or_undefined(shown)
    environment.filters["known"] = _or_undefined(lambda value: value)
    environment.filters["stated"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    environment.globals["plural"] = plural
    return environment


def _or_undefined(shown: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: UNDEFINED if value is None else shown(value)


# --- the verdict ----------------------------------------------------------------------------------------------


def verdict(result: Result) -> Verdict:
    """What the run showed in one sentence, and not more than that."""
    score, unlearnable, caveats = result.conversion, result.groups["unlearnable"], _caveats(result)
    name, budget = result.method.name, result.budget.multiple
    rate = f"{name} converted {pct(unlearnable.conversion or 0)} of {plural(unlearnable.items, 'unlearnable item')}"
    where = f"track {result.method.track}, budget {'unknown' if budget is None else f'{budget:g}x'}"
    where += f", {plural(len(result.seeds), 'seed')}"
    if not result.comparable or score.gain is None:
        why = (result.why_not_comparable or "it has no null control to be compared with").rstrip(".")
        if unlearnable.conversion is None:
            rate = f"with {result.samples} samples an item it is undefined what {name} converted"
            rate = rate if unlearnable.items else "there are no unlearnable items"
        elif score.gain is not None:
            rate += f", {points(score.gain)} beside the null control"
        label = "no gain defined" if result.comparable else "not comparable"
        return Verdict("open", label, f"{label.capitalize()}: {why}; {rate} ({where}).", caveats)
    interval = score.interval_families or score.interval
    tone, label, end = _direction(interval, score.scope)
    gain = f"a gain of {points(score.gain)}"
    if interval is not None:
        over = "families" if score.interval_families else "the items of these families"
        gain += f" (95 % interval over {over}: {point_span(interval)})"
    null = f"the null control, GRPO re-run with fresh seeds, {pct(score.null_rate or 0)}"
    return Verdict(tone, label, f"{rate}, {null}: {gain}, {end} (scope: {score.scope or 'none'}; {where}).", caveats)


def _direction(
    interval: Sequence[float] | None, scope: str | None
) -> tuple[Literal["more", "same", "less", "open"], str, str]:
    if interval is None:
        return "open", "no interval", "without an interval, so nothing follows from it"
    if interval[0] > 0:
        label = "more than GRPO re-run"
        return "more", label if scope in (None, "families") else f"{label}, {scope}", "which excludes 0"
    if interval[1] < 0:
        return "less", "less than GRPO re-run", "which excludes 0: it converted fewer than GRPO re-run"
    end = "which holds 0: it did not convert more than GRPO re-run, as far as this run can tell"
    return "same", "no more than GRPO re-run", end


def _caveats(result: Result) -> list[str]:
    """What a reader must know before quoting the verdict, the gravest first."""
    score, unlearnable, kept, found = result.conversion, result.groups["unlearnable"], result.retention, []
    if result.canaries.converted:
        found.append(
            f"{result.canaries.converted} of {plural(result.canaries.items, 'canary', 'canaries')} converted: "
            "their stored answers are wrong on purpose, so whoever gives them has read the gold answers."
        )
    interval = score.interval_families or score.interval
    if result.comparable and interval and interval[0] > 0:
        if score.strong_null_rate is None:
            found.append("No strong null (GRPO with a tuned learning rate) was scored; a claim must beat it too.")
        elif (unlearnable.conversion or 0) <= score.strong_null_rate:
            rate = pct(score.strong_null_rate)
            found.append(f"The strong null (GRPO with a tuned learning rate) converted {rate}: no less.")
    if unlearnable.converted_at_start:
        items = plural(unlearnable.converted_at_start, "item was", "items were")
        found.append(f"{items} converted before this training began, in the policy that it started from.")
    if result.method.track == "undeclared":
        found.append("Nothing of the training was metered (track undeclared): never ranked with other runs.")
    elif result.method.track != "verifier":
        found.append(f"Track {result.method.track}: it read more than prompts and verdicts; ranked in its track only.")
    memorised = [kind for kind, twin in result.twins.items() if twin.verdict == "memorised"]
    if memorised:
        found.append(f"Memorised: the gain does not carry over to twins ({', '.join(memorised)}).")
    if kept.easy_lost:
        found.append(f"{kept.easy_lost} of {plural(kept.easy_items, 'easy item')} lost.")
    return found


# --- figures and tables that need more than the result ------------------------------------------------------------


def _gain_figure(result: Result) -> Markup | None:
    score = result.conversion
    named = (("these families", score.interval), ("beyond these families", score.interval_families))
    rows = [(name, score.gain, ends) for name, ends in named if score.gain is not None and ends is not None]
    return Markup(plots.gain_plot(rows)) if rows else None


def _items_figure(run: Run) -> Markup | None:
    if run.after is None or not run.after.pooled[1].all():
        return None
    correct, n = run.after.pooled
    low, high = rates.clopper_pearson(correct, n)
    before, before_label = run.before or (None, "")
    null, null_label = run.null_rates or (None, "")
    return Markup(
        plots.conversion_plot(
            plots.Rates(correct / n, low, high),
            [plain(item.cause or _prefix(item.family)) for item in run.items],
            before=before,
            before_label=before_label,
            null=null,
            null_label=null_label,
            tau=run.split.config.protocol.tau,
            threshold=POOLED,
        )
    )


def _prefix(family: str) -> str:
    return re.split(r"[^0-9A-Za-z]", family)[0] or family


def _curves_figure(run: Run) -> Markup | None:
    logged = {seed: read_metrics(run.folder / seed) for seed in run.seeds}
    panels = [
        plots.Panel(title, unit, {seed: _series(steps, value) for seed, steps in logged.items() if steps}, share)
        for title, unit, share, value in _PANELS
    ]
    panels = [panel for panel in panels if any(np.isfinite(values).any() for values in panel.seeds.values())]
    return Markup(plots.learning_curves(panels)) if panels else None


def _series(steps: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> plots.Array:
    """One quantity over the steps; NaN where a step did not log it (no group had a signal)."""

    def at(step: Mapping[str, Any]) -> float:
        try:
            return float(value(step))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return math.nan

    return np.array([at(step) for step in steps], dtype=np.float64)


def _families(run: Run) -> list[tuple[str, str | None, int, int | None, int | None]]:
    """Of each family: name, causes, items, converted, and converted by all seeds of the null control."""
    null = run.null.result.conversion.families if run.null and run.null.result else {}
    causes = {
        family: ", ".join(sorted({item.cause for item in run.items if item.family == family and item.cause}))
        for family in run.result.conversion.families
    }
    found = sorted(run.result.conversion.families.items(), key=lambda pair: (-(pair[1].converted or 0), pair[0]))
    return [
        (name, causes[name] or None, of.items, of.converted, null[name].converted if name in null else None)
        for name, of in found
    ]


def _fates(run: Run) -> list[tuple[str, list[int], int]]:
    """Of each fate: how many unlearnable items met it in each seed (if known), and in all."""
    if not run.fates:
        stated = run.result.fates
        return [] if stated is None else [(fate, [], getattr(stated, fate)) for fate in FATES]
    met = [(row["fate"], str(row["seed"])) for row in run.fates]
    by_seed = {fate: [met.count((fate, seed)) for seed in run.seeds] for fate in FATES}
    return [(fate, counts, sum(counts)) for fate, counts in by_seed.items()]


def _conversion(run: Run, place: int) -> Conversion:
    assert run.after is not None
    item, (correct, n) = run.items[place], run.after.table
    seen = [row for row in run.fates if row["item_id"] == item.item_id]
    valid = [row["rewarded_valid_trace"] for row in seen if row["rewarded_valid_trace"] is not None]
    return Conversion(
        item=item,
        before=None if run.before is None else float(run.before[0][place]),
        after=[int(c) / int(m) if m else None for c, m in zip(correct[place], n[place], strict=True)],
        first_step=min(
            (row["first_correct_step"] for row in seen if row["first_correct_step"] is not None), default=None
        ),
        rewarded=sum(row["rewarded"] for row in seen) if seen else None,
        valid_trace=sum(valid) if valid else None,
        completion=run.completions.get(item.item_id),
    )
