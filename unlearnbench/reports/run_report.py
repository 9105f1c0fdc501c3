"""report.html: one self-contained page of a run: its verdict, its figures, and what they rest on.

Everything is read from the run's files and the split; no torch, no network. What methods, rollouts and splits wrote
is hostile text: jinja escapes it, `plain` makes its invisible characters visible, and the page forbids scripts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unlearnbench.errors import RunError
from unlearnbench.io import files, tables
from unlearnbench.records import FATES, GROUPS, Item, Result
from unlearnbench.reports import fate_tables, plots
from unlearnbench.reports.formatting import count, duration, number, pct, plain, plural, point_span, points, power, span
from unlearnbench.reports.headline import no_tuned, tuned_name, verdict
from unlearnbench.reports.run_files import MAX_ROWS, Run
from unlearnbench.scoring import rates
from unlearnbench.scoring.counts import MIN_SAMPLES
from unlearnbench.scoring.fates import QUANTILES, summary
from unlearnbench.scoring.null_vs_null import null_gains
from unlearnbench.splits import Split, load_split
from unlearnbench.training.ledger import read_metrics

POOLED = 0.25  # PROTOCOL 3.3: the pooled rate that a converted item reaches, as a line in the figure
MAX_TEXT = 2000  # characters shown of a prompt or a completion
MAX_FATES = 2000  # items in the table of fates
UNDEFINED = Markup('<span class="none">&ndash;</span>')

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
class Conversion:
    """An unlearnable item that the rule calls converted, and what training saw of it. Unknown is None."""

    item: Item
    before: float | None
    after: Sequence[float | None]
    first_step: int | None
    rewarded: int | None
    valid_trace: int | None
    completion: str | None


def write_report(folder: Path, split: Split, result: Result) -> Path:
    """Write report.html of the run in `folder` and return its path. The same files give the same bytes.

    Raises DataError or SplitError if a file is malformed, RunError if the page cannot be written.
    """
    run = Run(folder, split, result)
    page = templates().get_template("report.html").render(sections(run))
    path = run.folder / "report.html"
    files.write_bytes(path, page.encode("utf-8", "replace"))
    return path


def sections(run: Run) -> dict[str, Any]:
    """What verdict.html and run.html, the sections of a run's page, is written from."""
    result = run.result
    return {
        "run": run,
        "result": result,
        "protocol": run.split.config.protocol,
        "verdict": verdict(result),
        "few": f"{result.samples} samples an item, the rule needs {MIN_SAMPLES}",
        "tuned_null": tuned_name(result.conversion),
        "no_tuned": no_tuned(result),
        "gain_figure": _gain_figure(result),
        "itself": _itself(run),
        "items_figure": _items_figure(run),
        "curves_figure": _curves_figure(run),
        "families": _families(run),
        "fate_names": FATES,
        "fates": fate_tables.by_group(run),
        "fates_by_seed": fate_tables.by_seed(run),
        "fates_figure": _fates_figure(run),
        "quantiles": QUANTILES,
        "outcomes": fate_tables.by_fate(run),
        "item_fates": fate_tables.item_fates(run),
        "fates_data": fate_tables.data_url(run),
        "max_fates": MAX_FATES,
        "conversions": [_conversion(run, place) for place in run.converted[:MAX_ROWS]],
        "groups": [name for name in GROUPS if name in result.groups],
        "pass_ks": sorted({k for score in result.groups.values() for k in score.pass_at_k}, key=int),
        "min_samples": MIN_SAMPLES,
    }


def _itself(run: Run) -> dict[str, Any] | None:
    """Where the gain lies among those of GRPO's seeds over its other seeds; None where they cannot be compared."""
    gain, seeds = run.result.conversion.gain, len(run.result.seeds)
    gains = null_gains(run.split, seeds) if gain is not None and run.result.budget.multiple == 1 else []
    if gain is None or not gains:
        return None
    return {
        "seeds": seeds,
        "n": len(gains),
        "as_large": sum(other >= gain - 1e-12 for other in gains),
        "low": min(gains),
        "high": max(gains),
    }


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


@cache
def templates() -> Environment:
    """The pages' templates, each compiled once."""
    return new_templates()


def new_templates() -> Environment:
    """The pages' templates, with the filters they are written in, for a page that adds filters of its own."""
    environment = Environment(
        loader=PackageLoader("unlearnbench", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    for shown in (pct, points, span, point_span, count, number, power, duration):
        environment.filters[shown.__name__] = _or_undefined(shown)
    environment.filters["known"] = _or_undefined(lambda value: value)
    environment.filters["stated"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    environment.globals |= {"plural": plural, "max_text": MAX_TEXT}
    return environment


def _or_undefined(shown: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: UNDEFINED if value is None else shown(value)


# --- figures and tables that need more than the result ------------------------------------------------------------


def _gain_figure(result: Result) -> Markup | None:
    score = result.conversion
    named: tuple[tuple[str, float | None, tuple[float, float] | None], ...] = (
        ("these families", score.gain, score.interval),
        ("beyond these families", score.gain, score.interval_families),
    )
    if (tuned := score.tuned_null) is not None:
        named += (("over the tuned null", tuned.gain, tuned.interval),)
    rows = [(name, gain, ends) for name, gain, ends in named if gain is not None and ends is not None]
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


def _families(run: Run) -> list[tuple[str, str | None, int, float | None, float | None]]:
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


def _fates_figure(run: Run) -> Markup | None:
    if run.watched is None:
        return None
    rows = [
        plots.Fated(name, [found.met[fate] for fate in FATES], found.first_steps)
        for name, found in fate_tables.by_group(run).items()
        if found.pairs and found.first_steps is not None
    ]
    return Markup(plots.fates_plot(rows, FATES)) if rows else None


def _conversion(run: Run, place: int) -> Conversion:
    assert run.after is not None
    item, (correct, n) = run.items[place], run.after.table
    seen = None if run.fates is None else summary(run.fates[[place]])
    first = None if seen is None or seen.first_steps is None else seen.first_steps[:1].tolist()
    return Conversion(
        item=item,
        before=None if run.before is None else float(run.before[0][place]),
        after=[int(c) / int(m) if m else None for c, m in zip(correct[place], n[place], strict=True)],
        first_step=first[0] if first else None,
        rewarded=seen.rewarded if seen is not None and seen.pairs else None,
        valid_trace=None if seen is None else seen.valid,
        completion=run.completions.get(item.item_id),
    )
