"""Probes of a split without twins: similar problems that repeat no item, held out from now on (PROTOCOL 3.3).

similar.parquet → up to four candidates an item, in the file's order → measured as twins at the base and after every
labelling run → the first that all of them failed is the item's probe → it, and what repeats it, is marked `leaked`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from unlearnbench.curation.text_overlap import Repeats
from unlearnbench.io import tables
from unlearnbench.records import Item, RelatedProblem, Twin, TwinKind
from unlearnbench.scoring.probes import choose_probes
from unlearnbench.splits.source_dataset import framed, stripped
from unlearnbench.verifier import Verifier, ungradable

CANDIDATES = 4
"""Similar problems of an item that may become its probe."""
KIND: TwinKind = "same_skill"
"""A generated problem may change more than the numbers."""
CHANGED: TwinKind = "changed_numbers"
FILES = ("similar", "sub_problems")

Related = Mapping[str, Sequence[RelatedProblem]]


def read_related(folder: Path) -> dict[str, tuple[RelatedProblem, ...]]:
    """The generated problems in a folder by the name of their file, of those that it has. Raises DataError."""
    paths = {name: folder / f"{name}.parquet" for name in FILES}
    return {name: tables.read_records(path, RelatedProblem) for name, path in paths.items() if path.is_file()}


def candidates(items: Sequence[Item], related: Related, verifier: Verifier) -> list[Twin]:
    """The similar problems that may become probes, in the order of the file, in the template of their items.

    Left out: leaked ones, those of no item here, repeats of an earlier candidate, and those whose gold only its own
    text can match, since no policy would be seen to solve them.
    """
    prompts = {item.item_id: item.prompt for item in items}
    similar = [row for row in related.get("similar", ()) if not row.leaked and row.item_id in prompts]
    unusable = ungradable([row.answer for row in similar], verifier)
    taken: set[str] = {_words(prompt) for prompt in prompts.values()}
    count: dict[str, int] = {}
    found = []
    for row in similar:
        prompt = framed(row.prompt, prompts[row.item_id])
        if row.answer in unusable or count.get(row.item_id, 0) == CANDIDATES or _words(prompt) in taken:
            continue
        taken.add(_words(prompt))
        count[row.item_id] = count.get(row.item_id, 0) + 1
        found.append(_twin(row, prompt))
    return found


def held_out(related: Related, probes: Sequence[Twin]) -> dict[str, list[RelatedProblem]]:
    """The generated problems, those that are a probe or repeat one marked as leaked: no method may train on them."""
    names = {probe.twin_id for probe in probes}
    known = Repeats([stripped(probe.prompt) for probe in probes])
    return {
        kind: [
            row.model_copy(update={"leaked": True})
            if row.problem_id in names or (probes and known.holds(stripped(row.prompt)))
            else row
            for row in rows
        ]
        for kind, rows in related.items()
    }


def wrong_probes(
    twins: Sequence[Twin], similar: Sequence[RelatedProblem], counts: pa.Table, unlearnable: Sequence[str], tau: float
) -> list[str]:
    """A sentence for each item whose marked probe is not the first eligible of its candidates by these counts.

    Candidates are its twins with changed numbers or, of a split without any, its similar problems. Nothing is wrong
    with twins of which none is marked.
    """
    marked = {twin.item_id: twin.twin_id for twin in twins if twin.probe}
    if not marked:
        return []
    order, kind = twins, CHANGED
    if all(twin.kind != CHANGED for twin in twins):
        order, kind = [_twin(row, row.prompt) for row in similar], KIND
    first = choose_probes(order, counts, unlearnable, tau, kind)
    return [
        f"the probe of item {name!r} is {marked.get(name)!r}, and by twin_counts.parquet its first eligible candidate "
        f"is {first.get(name)!r}"
        for name in unlearnable
        if marked.get(name) != first.get(name)
    ]


def _twin(row: RelatedProblem, prompt: str) -> Twin:
    return Twin(twin_id=row.problem_id, item_id=row.item_id, kind=KIND, prompt=prompt, answer=row.answer)


def _words(prompt: str) -> str:
    return " ".join(prompt.split())
