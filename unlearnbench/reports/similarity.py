"""Gradient similarity in a run's page: block means at start and end, and heatmaps where the folder keeps the cosines.

The means are those of result.json; the cosines are read from `similarity/<name>/` in the run's folder, which `eval`
leaves there. Groups stand in bands; colours diverge about 0 and rise in lightness, so that the sign shows in grey too.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import DataError
from unlearnbench.records import BlockMean, SimilarityScore
from unlearnbench.reports.formatting import cosine, plural
from unlearnbench.reports.run_files import Run

FOLDER = "similarity"
"""In a run's folder: one diagnosis each in `start` and `end-<seed>`."""
PAIRS = {"all": "all", "same_skill": "same skill", "other_skills": "two skills"}
STOPS = ((8, 48, 107), (69, 117, 180), (169, 169, 169), (240, 176, 116), (255, 233, 201))
"""From -1 to 1 of a heatmap's scale: dark blue, grey, light orange; lighter all the way."""
CELL = 4


@dataclass(frozen=True)
class Heatmap:
    """The cosines of all pairs of items at one policy, as an image."""

    title: str
    caption: str
    items: int
    bands: Sequence[tuple[str, float]]
    """Groups in order, with their share of the items."""
    src: str


@dataclass(frozen=True)
class Section:
    """What similarity_section.html shows; `why_not` alone where there is nothing."""

    why_not: str | None = None
    sentence: str = ""
    titles: Sequence[str] = ()
    rows: Sequence[tuple[str, str, Sequence[BlockMean | None]]] = ()
    heatmaps: Sequence[Heatmap] = ()
    reach: float = 0.0
    """Cosine at the ends of the colour scale."""


def similarity_section(run: Run) -> Section:
    """The section of a run, from its result and what its folder keeps."""
    found = run.result.similarity
    if found is None or not (found.start or found.end):
        return Section(why_not=_why_not(found))
    maps = _matrices(run.folder / FOLDER, run.split.families())
    reach = max((reach_of(matrix) for _, matrix, _ in maps), default=0.0)
    return Section(
        sentence=sentence(found),
        titles=[title for title, blocks in (("start", found.start), ("end", found.end)) if blocks],
        rows=rows(found),
        heatmaps=[heatmap_of(title, matrix, groups, reach) for title, matrix, groups in maps],
        reach=reach,
    )


def rows(found: SimilarityScore) -> list[tuple[str, str, list[BlockMean | None]]]:
    """One row per pair of groups and kind of pairs, with its mean at start and end."""
    sides = [blocks for blocks in (found.start, found.end) if blocks]
    keys = list(dict.fromkeys((of.a, of.b, of.of) for blocks in sides for of in blocks))
    told = []
    for a, b, of in keys:
        name = f"{a} with {b}" if a != b else f"{a} with one another"
        told.append((name, PAIRS[of], [_find(blocks, (a, b, of)) for blocks in sides]))
    return told


def sentence(found: SimilarityScore) -> str:
    """Whether unlearnable items' gradients are apart from learnable ones', before and after, by skill and not."""
    told = []
    for title, blocks in (("start", found.start), ("end", found.end)):
        own = _find(blocks, ("learnable", "learnable", "all"))
        apart = _find(blocks, ("learnable", "unlearnable", "all"))
        if own is None or apart is None or own.mean is None or apart.mean is None:
            continue
        part = f"at the {title}, learnable items' gradients have a mean cosine of {cosine(own.mean)} with one another "
        part += f"and {cosine(apart.mean)} with unlearnable items'"
        other = [_find(blocks, ("learnable", name, "other_skills")) for name in ("learnable", "unlearnable")]
        if all(of is not None and of.mean is not None for of in other):
            part += " (between different skills: " + " and ".join(cosine(of.mean or 0.0) for of in other if of) + ")"
        told.append(part)
    if not told:
        return "There are too few learnable or unlearnable items with enough correct rollouts to compare."
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _why_not(found: SimilarityScore | None) -> str:
    if found is not None and found.why_not:
        return f"Not measured: {found.why_not}."
    return "Not measured: this run was made without a diagnosis (--no-diagnose, --quick, or an earlier version)."


def _find(blocks: Sequence[BlockMean], key: tuple[str, str, str]) -> BlockMean | None:
    return next((of for of in blocks if (of.a, of.b, of.of) == key), None)


# --- heatmaps -----------------------------------------------------------------------------------------------------

Matrix = NDArray[np.float64]


def _matrices(folder: Path, families: Mapping[str, str]) -> list[tuple[str, Matrix, list[str]]]:
    """Cosines at the start and at the first seed's end, by group and family, with the group of each item."""
    places = [("start", folder / "start")]
    ends = sorted(folder.glob("end-*"), key=lambda path: (len(path.name), path.name))
    places += [(f"end, seed {ends[0].name.removeprefix('end-')}", ends[0])] if ends else []
    return [(title, *read_cosines(place, families)) for title, place in places if (place / "similarity.json").is_file()]


def read_cosines(folder: Path, families: Mapping[str, str]) -> tuple[Matrix, list[str]]:
    """The cosines that a diagnosis left in a folder, by group and then by what `families` says of an item.

    Raises DataError naming the file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stated = json.loads((folder / "similarity.json").read_bytes())
        groups, order = list(map(str, stated["groups"])), list(map(str, stated["group_order"]))
        names = [families.get(str(name), "").rsplit("/", 1)[-1] for name in stated["item_ids"]]
        matrix: Matrix = np.asarray(load_file(folder / "similarity.safetensors")["cosine"], dtype=np.float64)
        if matrix.shape != (len(groups), len(groups)):
            raise ValueError("the arrays do not have one row per item")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
        raise DataError(f"{folder} holds no readable diagnosis: {str(problem).splitlines()[0]}") from problem
    places = sorted(range(len(groups)), key=lambda place: (order.index(groups[place]), names[place], place))
    return matrix[np.ix_(places, places)], [groups[place] for place in places]


def reach_of(matrix: Matrix) -> float:
    """The cosine at the ends of the scale: the 98th percentile of the absolute values off the diagonal."""
    off = np.abs(matrix[np.triu_indices(len(matrix), 1)])
    off = off[np.isfinite(off)]
    return float(np.quantile(off, 0.98)) if len(off) else 0.0


def heatmap_of(title: str, matrix: Matrix, groups: Sequence[str], reach: float) -> Heatmap:
    names = list(dict.fromkeys(groups))
    return Heatmap(
        title=title,
        caption=", ".join(plural(groups.count(name), f"{name} item") for name in names),
        items=len(groups),
        bands=[(name, groups.count(name) / len(groups)) for name in names],
        src=heatmap_url(matrix, groups, reach),
    )


def heatmap_url(matrix: Matrix, groups: Sequence[str], reach: float) -> str:
    """A PNG as a data: URL: one cell per pair, a gap between groups, the diagonal and undefined cells transparent."""
    scaled = np.clip(np.nan_to_num(matrix) / (reach or 1.0), -1, 1)
    at = (scaled + 1) / 2 * (len(STOPS) - 1)
    stops = np.array(STOPS, float)
    below = np.clip(at.astype(int), 0, len(STOPS) - 2)
    colours = stops[below] + (at - below)[..., None] * (stops[below + 1] - stops[below])
    shown = np.isfinite(matrix) & ~np.eye(len(matrix), dtype=bool)
    pixels = np.concatenate([colours.round(), np.where(shown, 255, 0)[..., None]], axis=-1).astype(np.uint8)
    pixels = pixels.repeat(CELL, axis=0).repeat(CELL, axis=1)
    for edge in (CELL * place for place in range(1, len(groups)) if groups[place] != groups[place - 1]):
        pixels[edge - 1 : edge + 1, :, 3] = 0
        pixels[:, edge - 1 : edge + 1, 3] = 0
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """8-bit RGBA (PNG specification, 3rd edition): the same pixels give the same bytes."""
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
