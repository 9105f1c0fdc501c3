"""Results, comparisons and splits as a notebook shows them: the sentence that may be quoted, and one small table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from unlearnbench.errors import RunError
from unlearnbench.records import GROUPS, Result
from unlearnbench.reports.comparison_report import named, pair_verdict, sentences, several
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.summary import gains
from unlearnbench.reports.templating import templates
from unlearnbench.scoring.comparisons.comparison import Comparison
from unlearnbench.splits import Split
from unlearnbench.splits.manifest import waits

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MAX_MOVED = 10  # items of a side; the record has all


def _html(name: str, **values: object) -> str:
    """A template's macro, with all foreign text escaped."""
    return str(getattr(templates().get_template("notebook.html").make_module(), name)(**values))


def result_html(result: Result) -> str:
    """The headline of a result with its caveats, and its groups before and after."""
    told = verdict(result)
    groups = [(name, result.groups[name]) for name in GROUPS if name in result.groups]
    return _html("result", told=told, result=result, groups=groups)


def result_sentence(result: Result) -> str:
    """The sentence to quote."""
    return verdict(result).sentence


def result_frame(result: Result, folder: Path | None) -> pandas.DataFrame:
    """items.csv of a run's folder; `correct` and `n` are lists by seed. Raises RunError where there is none."""
    import pandas

    path = None if folder is None else Path(folder) / "items.csv"
    if path is None or not path.is_file():
        raise RunError(
            "this result does not know the items of its run; take it from ub.read_run(DIR).result, and run "
            "`unlearnbench report DIR` if DIR has no items.csv"
        )
    frame = pandas.read_csv(path, keep_default_na=False, na_values=[""], dtype={"fates": str, "cause": str})
    for name in ("correct", "n"):
        frame[name] = [[int(part) for part in str(text).split()] for text in frame[name].fillna("")]
    return frame


def result_figure(result: Result) -> Figure:
    """Gains with their intervals against 0, in percentage points."""
    from matplotlib.figure import Figure

    class Drawn(Figure):
        """Shows itself in a notebook, whatever backend is chosen there."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    rows = gains(result)
    figure = Drawn(figsize=(7, 0.9 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        if row.interval is not None:
            axes.hlines(-place, 100 * row.interval[0], 100 * row.interval[1], color="#0072b2", lw=3, alpha=0.5)
        axes.plot([100 * row.value], [-place], "o", color="#0072b2")
    axes.axvline(0, color="#16191d", lw=1)
    axes.set_yticks([-place for place in range(len(rows))], [row.name for row in rows])
    axes.set(ylim=(0.5 - max(len(rows), 1), 0.5), xlabel="gain (percentage points)")
    axes.set_title(verdict(result).label, loc="left")
    return figure


def comparison_html(told: Comparison) -> str:
    """Each pair's sentences, and the items that only one of the two converted."""
    pairs = [
        {
            "title": f"{named(told, pair.first)} minus {named(told, pair.second)}: {pair_verdict(told, pair).label}",
            "sentences": sentences(told, pair),
            "labels": (pair.first, pair.second),
            "moved": [*pair.only_first[:MAX_MOVED], *pair.only_second[:MAX_MOVED]],
            "all": len(pair.only_first) + len(pair.only_second),
        }
        for pair in told.pairs
    ]
    return _html("comparison", told=told, pairs=pairs, warning=several(told))


def split_html(split: Split) -> str:
    """What a split holds: its groups, and what the labels rest on; its texts may still be missing."""
    config, counts = split.config, {}
    if (split.path / config.pool.items).is_file():
        counts = {name: len(split.ids(name)) for name in GROUPS}
    number = len(split.items) if counts else None
    return _html("split", config=config, hash=split.hash, counts=counts, items=number, waits=waits(split.path))
