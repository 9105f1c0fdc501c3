"""The figures and the page of a diagnosis: heatmap.png and report.html, from its record and cosines alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord, left_out
from unlearnbench.diagnosis.similarity import Matrix
from unlearnbench.io import files
from unlearnbench.reports import plots
from unlearnbench.reports.formatting import plain
from unlearnbench.reports.templating import templates

SCALE = "cividis"
"""From dark over grey to light: which side of 0 a cosine is on is plain in black and white, too."""
OPTIMAL = 400
"""Items of a group up to which the leaves of its tree are put in the best order, which takes the cube of them."""
LEVEL = 0.05
"""Permutation p-value below which the page speaks of a difference."""
MAX_EXCLUDED = 500  # rows of the page's table


def clustered(cosine: Matrix, groups: Sequence[str], order: Sequence[str]) -> NDArray[np.int64]:
    """Places of the items by group, and within a group by average linkage on 1 - cosine."""
    names = np.array(groups, dtype=object)
    placed: list[NDArray[np.int64]] = []
    for name in order:
        mine = np.flatnonzero(names == name)
        if len(mine) > 2:
            distance = np.clip(1 - cosine[np.ix_(mine, mine)], 0, 2)
            np.fill_diagonal(distance, 0)
            tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=len(mine) <= OPTIMAL)
            mine = mine[leaves_list(tree)]
        placed.append(mine)
    return np.concatenate(placed)


def heatmap(cosine: Matrix, groups: Sequence[str], order: Sequence[str]) -> bytes:
    """The cosines as a PNG, in the order of `clustered`, with a labelled band beside each group.

    The scale is symmetric about 0 and ends where all but 2 % of the pairs lie within it. Equal input, equal bytes.
    """
    places = clustered(cosine, groups, order)
    shown = cosine[np.ix_(places, places)]
    pairs = np.abs(shown[np.triu_indices(len(shown), 1)])
    limit = float(np.quantile(pairs, 0.98)) or 1.0
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9.0, "text.parse_math": False}):
        figure = Figure(figsize=(7.6, 6.6), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shown, cmap=SCALE, vmin=-limit, vmax=limit, interpolation="nearest")
        edge, ticks, labels = 0, [], []
        for name, run in groupby([groups[place] for place in places]):
            size = len(list(run))
            ticks.append(edge + size / 2 - 0.5)
            labels.append(f"{plain(name)} ({size})")
            edge += size
            if edge < len(shown):
                for draw in (axes.axhline, axes.axvline):
                    draw(edge - 0.5, color="white", lw=2.2)
                    draw(edge - 0.5, color="black", lw=0.8)
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels, rotation=90, va="center")
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.85, extend="both")
        bar.set_label("cosine of two items' gradients")
        bar.ax.axhline(0, color="white", lw=1.0)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def write_page(folder: Path, record: SimilarityRecord, cosine: Matrix) -> None:
    """Write heatmap.png and report.html. Raises RunError if the disk is full."""
    picture = heatmap(cosine, record.groups, record.group_order)
    files.write_bytes(folder / "heatmap.png", picture)
    page = templates().get_template("similarity.html")
    text = page.render(
        record=record,
        heatmap=Markup("data:image/png;base64," + base64.b64encode(picture).decode()),
        sensitivity=Markup(_sensitivity(record)),
        finding=finding(record),
        left_out=left_out(record),
        max_excluded=MAX_EXCLUDED,
    )
    files.write_bytes(folder / "report.html", text.encode("utf-8", "replace"))


def write_comparison(folder: Path, records: Sequence[SimilarityRecord]) -> None:
    """Write report.html and policies.json of several policies: the block means of each side by side."""
    blocks = {(block.a, block.b): None for record in records for block in record.blocks}
    rows = [
        (a, b, [next((block for block in record.blocks if (block.a, block.b) == (a, b)), None) for record in records])
        for a, b in blocks
    ]
    series = {f"{plain(a)} with {plain(b)}": [_ends(block) for block in found] for a, b, found in rows}
    names = [_short(record.policy) for record in records]
    chart = plots.lines_plot("policies", "Mean cosine of each block at each policy", names, series, "policy")
    told = [
        {
            "policy": record.policy,
            "revision": record.revision,
            "blocks": [b.model_dump(mode="json") for b in record.blocks],
        }
        for record in records
    ]
    files.write_json(folder / "policies.json", {"schema_version": 1, "policies": told})
    page = templates().get_template("similarities.html")
    gone = [[row for row in left_out(record) if row.left_out] for record in records]
    text = page.render(records=list(zip(records, gone, strict=True)), rows=rows, chart=Markup(chart))
    files.write_bytes(folder / "report.html", text.encode("utf-8", "replace"))


def finding(record: SimilarityRecord) -> str:
    """What the numbers say of the paper's finding, that unlearnable items are the outliers, in one sentence."""
    found = {(block.a, block.b): block for block in record.blocks}
    apart, own = found.get(("learnable", "unlearnable")), found.get(("learnable", "learnable"))
    if apart is None or own is None or apart.raw is None or own.raw is None:
        return f"The paper's finding cannot be told here: {_why_not(record)}; the blocks below stand for themselves."
    told = f"Learnable items' gradients have a mean cosine of {_signed(own.raw)} with one another and of "
    told += f"{_signed(apart.raw)} with those of unlearnable items"
    if own.corrected is not None and apart.corrected is not None:
        told += f" ({_signed(own.corrected)} and {_signed(apart.corrected)} when corrected for noise)"
    if apart.interval is None or own.interval is None:
        return f"{told}; there are too few items to say whether that is chance."
    if own.interval[0] > apart.interval[1]:
        return f"{told}: their 95 % intervals do not overlap, so unlearnable items are outliers here."
    return f"{told}: their 95 % intervals overlap, which does not show unlearnable items as outliers here."


def _why_not(record: SimilarityRecord) -> str:
    """Which of the groups that the finding is of lacks items, and where they are."""
    asked = {row.group: row for row in left_out(record)}
    for name, needed in (("learnable", 2), ("unlearnable", 1)):
        row, left = asked.get(name), record.groups.count(name)
        if row is None:
            return f"no {name} items were compared"
        if left < needed:
            which = f"all {row.items:,}" if left == 0 else f"{row.left_out:,} of {row.items:,}"
            gone = f"{which} {name} items were left out ({row.why})" if row.left_out else ""
            one = f"one {name} item makes no pair" if left else ""
            return " and ".join(part for part in (gone, one) if part)
    return "not every block of learnable and unlearnable items has a cosine"


def _sensitivity(record: SimilarityRecord) -> str:
    blocks = {
        (block.a, block.b): f"{plain(block.a)} with {plain(block.b)}"
        for block in record.blocks
        if block.raw is not None
    }
    series = {
        title: [
            _point(next(block.raw for block in step.blocks if (block.a, block.b) == pair))
            for step in record.by_rollouts
        ]
        for pair, title in blocks.items()
    }
    steps = [str(step.rollouts) for step in record.by_rollouts]
    return plots.lines_plot(
        "rollouts", "Raw mean cosine of each block by rollouts an item", steps, series, "rollouts of each item"
    )


def _point(value: float | None) -> tuple[float, float, float]:
    number = float("nan") if value is None else value
    return number, number, number


def _ends(block: BlockRecord | None) -> tuple[float, float, float]:
    if block is None or block.raw is None:
        return _point(None)
    return (block.raw, *(block.interval or (block.raw, block.raw)))


def _short(label: str) -> str:
    text = plain(label)
    return text if len(text) <= 24 else "…" + text[-23:]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
