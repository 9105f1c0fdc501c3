"""report.html: one self-contained page of a run: its headline, its figures, and what they rest on.

Everything is read from the run's files and the split; no torch, no network. What methods, rollouts and splits wrote
is hostile text: jinja escapes it, `plain` makes its invisible characters visible, the item browser's data cannot end
its block, and the page's policy allows one script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from unlearnbench.io import files
from unlearnbench.records import FATES, GROUPS, Result
from unlearnbench.reports import fate_tables, summary
from unlearnbench.reports.charts import GroupRow, group_dots
from unlearnbench.reports.detectable import smallest_gain
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.items import MAX_DATA, Items, script_json
from unlearnbench.reports.reproduce import command
from unlearnbench.reports.run_files import Run
from unlearnbench.reports.similarity import similarity_section
from unlearnbench.reports.templating import source, templates
from unlearnbench.reports.training import curves_figure, panels, window
from unlearnbench.scoring.comparisons.comparability import read_run
from unlearnbench.scoring.counted import labels_of
from unlearnbench.scoring.fates import QUANTILES
from unlearnbench.splits import Split, load_split

PARTS: Sequence[tuple[str, str]] = (
    ("groups", "Before and after"),
    ("items", "Items"),
    ("training", "Training"),
    ("fates", "Fates"),
    ("pass", "pass@k"),
    ("twins", "Learned or memorised"),
    ("similarity", "Gradient similarity"),
    ("checks", "Checks"),
    ("cost", "Cost"),
    ("reproduce", "Reproduce"),
    ("meaning", "Definitions"),
)
"""Sections of a run's page below its first screen: id and name in the contents."""


@dataclass(frozen=True)
class _Group:
    name: str
    null: float | None


def write_report(folder: Path, split: Split, result: Result) -> Path:
    """Write report.html and items.csv of the run in `folder`; return the page's path.

    The same files give the same bytes. Raises DataError or SplitError if a file is malformed, RunError if they cannot
    be written.
    """
    run = Run(folder, split, result)
    if run.counts is not None:
        files.write_text(run.folder / "items.csv", Items(run).csv())
    page = templates().get_template("report.html").render(sections(run))
    path = run.folder / "report.html"
    files.write_bytes(path, page.encode("utf-8", "replace"))
    return path


def sections(run: Run, most: int = MAX_DATA) -> dict[str, Any]:
    """What verdict.html, run.html and the item browser of a run's page are written from.

    `most` are the bytes that the browser's data may take.
    """
    result, items = run.result, Items(run)
    found = fate_tables.by_group(run)
    script = source("report.js")
    return {
        "run": run,
        "result": result,
        "protocol": run.split.config.protocol,
        "parts": PARTS,
        "about": summary.about(run),
        "links": _links(run),
        "verdict": verdict(result, smallest_gain(run)),
        "figures": summary.figures(result),
        "strip": summary.strip_figure(run),
        "chips": summary.chips(result),
        "group_rows": [_Group(row.name, row.null) for row in _group_rows(run) if row.items],
        "groups_figure": group_dots([row for row in _group_rows(run) if row.items]),
        "causes": items.causes(),
        "depths": items.depths(),
        "browser": script_json(items.browser(most)),
        "script": Markup(script),
        "script_hash": script_hash(script),
        "curves": curves_figure(run),
        "null_curves": run.null_curves is not None,
        "no_null_curves": _no_null_curves(run),
        "panels": panels(run),
        "window": window(run),
        "fate_names": FATES,
        "fates": [(name, of, fate_tables.share_bar(name, of)) for name, of in found.items() if of.pairs],
        "undrawn": any(of.undrawn for of in found.values()),
        "outcomes": fate_tables.by_fate(run),
        "quantiles": QUANTILES,
        "pass_ks": sorted({k for score in result.groups.values() for k in score.pass_at_k}, key=int),
        "twins": [(kind, of) for kind, of in result.twins.items() if of.eligible],
        "similarity": similarity_section(run),
        "checks": summary.checks(result),
        "no_control": "quick run: not scored" if result.quick else "no null control to compare with",
        "steps": summary.steps_sentence(result),
        "command": command(result, run.split, run.folder),
    }


def rebuild(folder: Path, split: str | Path | None = None) -> Path:
    """Write report.html again from the files in `folder`, a run on `split`: a name or a folder.

    By default it is the split whose folder holds the run, else the shipped one of the name in result.json. Raises
    RunError if there is no result there, SplitError if the labels that it was scored on are not found.
    """
    run = read_run(folder)
    found = labels_of([run], None if split is None else load_split(split))
    return write_report(folder, found, run.result)


def script_hash(script: str) -> str:
    """A script as a page's policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# --- parts --------------------------------------------------------------------------------------------------------


def _links(run: Run) -> list[tuple[str, str]]:
    """Files beside the page: name and address, those that are there."""
    found = [("result.json", "result.json"), ("items.csv", "items.csv")]
    if run.seeds and (run.folder / run.seeds[0] / "rollouts").is_dir():
        found.append(("rollouts", f"{run.seeds[0]}/rollouts/"))
    elif run.seeds and (run.folder / run.seeds[0] / "evaluation").is_dir():
        found.append(("rollouts", f"{run.seeds[0]}/evaluation/"))
    return [(name, href) for name, href in found if href == "items.csv" or (run.folder / href).exists()]


def _group_rows(run: Run) -> list[GroupRow]:
    result, null = run.result, run.null_rates
    rows = []
    for name in (name for name in GROUPS if name in result.groups):
        of, places = result.groups[name], run.places.get(name, [])
        known = null is not None and places and not np.isnan(null[places]).any()
        rate = float(null[places].mean()) if known and null is not None else None
        rows.append(GroupRow(name, of.items, of.rate_before, of.rate_after, of.rate_after_interval, rate))
    return rows


def _no_null_curves(run: Run) -> str:
    if run.result.quick:
        return "No null control is shown beside them: a quick run is not scored."
    if run.null is None:
        return "There is no null control to show beside them."
    return f"The null control's curves are not shown: split {run.split.name} was made before they were kept."
