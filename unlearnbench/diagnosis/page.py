"""The figures and the page of a diagnosis: heatmap.png and report.html, from its record and cosines alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord, left_out
from unlearnbench.diagnosis.similarity import Matrix
from unlearnbench.io import files
from unlearnbench.reports.charts import Line, StripRow, lines, strip
from unlearnbench.reports.formatting import cosine as signed
from unlearnbench.reports.formatting import plain, plural
from unlearnbench.reports.similarity import PAIRS, STOPS, heatmap_of, reach_of
from unlearnbench.reports.templating import templates

OPTIMAL = 400
"""Items of a group up to which the leaves of its tree are put in the best order, which takes the cube of them."""
MAX_EXCLUDED = 500  # rows of the page's table
PARTS = (
    ("blocks", "Blocks"),
    ("heatmap", "All pairs"),
    ("auc", "Predicts the label?"),
    ("reliability", "Reliability"),
    ("rollouts", "By rollouts"),
    ("excluded", "Items left out"),
    ("reading", "How to read this"),
    ("settings", "Settings"),
)


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

    The scale diverges about 0, rises in lightness, and ends where all but 2 % of the pairs lie within it; the diagonal
    is left out. Equal input, equal bytes.
    """
    places = clustered(cosine, groups, order)
    shown = cosine[np.ix_(places, places)]
    limit = reach_of(shown) or 1.0
    np.fill_diagonal(shown, np.nan)
    colours = LinearSegmentedColormap.from_list("diverging", [tuple(part / 255 for part in stop) for stop in STOPS])
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9.0, "text.parse_math": False}):
        figure = Figure(figsize=(7.6, 6.6), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
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
        bar.ax.axhline(0, color="black", lw=1.0)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def write_page(folder: Path, record: SimilarityRecord, cosine: Matrix) -> None:
    """Write heatmap.png and report.html. Raises RunError if the disk is full."""
    files.write_bytes(folder / "heatmap.png", heatmap(cosine, record.groups, record.group_order))
    places = clustered(cosine, record.groups, record.group_order)
    shown = cosine[np.ix_(places, places)]
    reach = reach_of(shown)
    page = templates().get_template("similarity.html")
    text = page.render(
        record=record,
        parts=PARTS,
        tone=finding_tone(record),
        label=finding_label(record),
        finding=finding(record),
        strip=_strip(record),
        heatmap=heatmap_of(plain(record.policy), shown, [record.groups[place] for place in places], reach),
        reach=reach,
        pairs=PAIRS,
        sensitivity=_sensitivity(record),
        sensitivity_key=[(f"s{number % 7}", title) for number, title in enumerate(_titles(record))],
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
    names = [_short(record.policy) for record in records]
    strips = [
        (
            f"{plain(a)} with {plain(b)}",
            strip(
                [
                    StripRow(name, block.raw, block.interval)
                    for name, block in zip(names, found, strict=True)
                    if block is not None and block.raw is not None
                ],
                None,
                "raw mean cosine",
                shown=signed,
                least=0.05,
            ),
        )
        for a, b, found in rows
        if any(block is not None and block.raw is not None for block in found)
    ]
    told = [
        {
            "policy": record.policy,
            "revision": record.revision,
            "blocks": [block.model_dump(mode="json") for block in record.blocks],
        }
        for record in records
    ]
    files.write_json(folder / "policies.json", {"schema_version": 1, "policies": told})
    page = templates().get_template("similarities.html")
    gone = [[row for row in left_out(record) if row.left_out] for record in records]
    text = page.render(records=list(zip(records, gone, strict=True)), rows=rows, strips=strips)
    files.write_bytes(folder / "report.html", text.encode("utf-8", "replace"))


# --- what it shows ------------------------------------------------------------------------------------------------


def finding_label(record: SimilarityRecord) -> str:
    """Whether unlearnable items are the outliers that the paper found, in at most six words."""
    whole, matched = _apart(record.blocks), _apart([block for block in record.matched if block.of == "other_skills"])
    if whole is None:
        return "Too few items to say"
    if not whole:
        return "Unlearnable items are not outliers here"
    if matched is None:
        return "Unlearnable items are outliers"
    return "Unlearnable items are outliers" if matched else "Outliers by skill, not by learnability"


def finding_tone(record: SimilarityRecord) -> str:
    return {None: "open", True: "more", False: "same"}[_apart(record.blocks)]


def finding(record: SimilarityRecord) -> str:
    """What the numbers say of the paper's finding that unlearnable items are the outliers, matched by skill and not."""
    own, apart = _pair(record.blocks)
    if apart is None or own is None or apart.raw is None or own.raw is None:
        return f"The paper's finding cannot be tested here: {_why_not(record)}; the blocks below stand for themselves."
    told = f"Learnable items' gradients have a mean cosine of {signed(own.raw)} with one another and of "
    told += f"{signed(apart.raw)} with those of unlearnable items"
    if own.corrected is not None and apart.corrected is not None:
        told += f" ({signed(own.corrected)} and {signed(apart.corrected)} when corrected for noise)"
    if apart.interval is None or own.interval is None:
        return f"{told}; there are too few items to say whether that is chance."
    if own.interval[0] > apart.interval[1]:
        told += ": their 95 % intervals do not overlap, so unlearnable items are outliers here."
    else:
        told += ": their 95 % intervals overlap, which does not show unlearnable items as outliers here."
    return told + _matched(record)


def _matched(record: SimilarityRecord) -> str:
    """The same between items of different skills alone, in a sentence; nothing where skills are not known."""
    others = [block for block in record.matched if block.of == "other_skills"]
    own, apart = _pair(others)
    if own is None or apart is None or own.raw is None or apart.raw is None:
        return ""
    told = f" Between items of different skills these are {signed(own.raw)} and {signed(apart.raw)}"
    survives = _apart(others)
    if survives is None:
        return f"{told}; there are too few to say more."
    return f"{told}: the finding {'survives' if survives else 'does not survive'} the match by skill."


def _pair(blocks: Sequence[BlockRecord]) -> tuple[BlockRecord | None, BlockRecord | None]:
    """The blocks of learnable items with one another, and with unlearnable ones."""
    found = {(block.a, block.b): block for block in blocks}
    return found.get(("learnable", "learnable")), found.get(("learnable", "unlearnable"))


def _apart(blocks: Sequence[BlockRecord]) -> bool | None:
    """Whether learnable items are more alike than they are like unlearnable ones, beyond their intervals."""
    own, apart = _pair(blocks)
    if own is None or apart is None or own.interval is None or apart.interval is None:
        return None
    return own.interval[0] > apart.interval[1]


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


def _strip(record: SimilarityRecord) -> Markup | None:
    """Block means with their intervals: of all pairs, then of pairs of two skills."""
    rows = []
    for blocks, ending in ((record.blocks, ""), (record.matched, ", two skills")):
        rows += [
            StripRow(f"{plain(block.a)} with {plain(block.b)}{ending}", block.raw, block.interval)
            for block in blocks
            if block.raw is not None and block.of != "same_skill"
        ]
    return strip(rows, None, "mean cosine with its 95 % interval", shown=signed, least=0.05) if rows else None


def _titles(record: SimilarityRecord) -> list[str]:
    return [f"{plain(block.a)} with {plain(block.b)}" for block in record.blocks if block.raw is not None]


def _sensitivity(record: SimilarityRecord) -> Markup | None:
    """Raw block means by the number of rollouts of each item; None where there is one part alone."""
    if len(record.by_rollouts) < 2:
        return None
    steps = np.array([step.rollouts for step in record.by_rollouts], float)
    series = []
    for number, block in enumerate(block for block in record.blocks if block.raw is not None):
        means = [
            next(found.raw for found in step.blocks if (found.a, found.b) == (block.a, block.b))
            for step in record.by_rollouts
        ]
        values = np.array([np.nan if mean is None else mean for mean in means])
        series.append(Line(f"{plain(block.a)} with {plain(block.b)}", f"s{number % 7}", steps, values))
    label = "Raw mean cosine of each block by rollouts per item, up to " + plural(record.rollouts_per_item, "rollout")
    return lines(series, share=False, label=label, height=180)


def _short(label: str) -> str:
    text = plain(label)
    return text if len(text) <= 24 else "…" + text[-23:]
