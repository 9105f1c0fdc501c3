"""A split whose texts are not shipped with the package, made from released ids and texts that the user obtains.

    released.json: ids, addresses, hashes
    → the source data, from the Hub or a local copy; the released files, verified by their hashes
    → every id is in the source, and the problems made from an item are like that item and not like others
    → positions that are no indices are resolved by text, where that is certain
    → items, labels as released, generated problems with leaks marked, hashes: a split

Nothing is written before every check has passed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unlearnbench.curation.download import released_file, released_rewards_file, source_file
from unlearnbench.curation.text_overlap import Repeats, Texts, standing
from unlearnbench.errors import DataError, SplitError
from unlearnbench.io import files
from unlearnbench.records import GroupName, Item, RelatedProblem
from unlearnbench.splits import Split, write_split
from unlearnbench.splits.manifest import BUILT, RELEASED, Built, Released, ReleasedFile, Resolved, released_of
from unlearnbench.splits.released_rewards import read_rewards
from unlearnbench.splits.source_dataset import Row, read_rows
from unlearnbench.splits.split import built_folder, shipped_folder

Progress = Callable[[str], None]

LIKER = 0.9
"""An item's own problems should be liker to it than to this share of the pool."""
MATCHED = 0.9
"""Share of the items for which that must hold. Measured: 0.99 and more in the right order, about 0.1 in a wrong one."""
MARGIN, MARGIN_AGREED = 1.5, 1.1
"""How much liker than the next a row must be to the similar problems of a position to be its text: the first alone,
the second where the sub-problems are likest to the same row. Measured: 0.99 of what is resolved so is right."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A released problem. `number` is that of the item it was made from, `place` its own among that item's."""

    number: int
    place: str
    file: ReleasedFile
    question: str
    answer: str
    solution: str


@dataclass(slots=True)
class _Texts:
    """Generated problems of one number, by kind."""

    similar: list[str] = field(default_factory=list)
    sub_problems: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        return self.similar + self.sub_problems


def build(
    name_or_folder: str | Path,
    *,
    source: Path | None = None,
    artifacts: str | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Split, Built]:
    """Make a split that was released as ids; returns it and what its checks found.

    `source` is a local copy of the source data, `artifacts` a folder or address of the released files, `out` the
    folder to write (default: where `load_split` finds it by name). Raises SplitError, DataError or RunError.
    """
    tell = progress or (lambda stage: None)
    folder, released = _released(name_or_folder)
    config = Split(folder).config.model_copy(update={"files": {}})
    out = out or built_folder(config.name)
    _check_place(out, config.name)

    tell("source data")
    data, revision = source_file(released.source, source)
    rows = read_rows(data, released.source)
    tell("released problems")
    generated = _generated(released, out / ".artifacts", artifacts)
    rewards = _rewards(released, out / ".artifacts", artifacts, source)
    tell("overlap of texts")
    pool = Texts([row.question for row in rows.values()])
    joined = _join(released, rows, generated, pool, data)
    tell("leaks")
    related, left_out = _related(generated, joined.item_of, rows)
    items = [
        Item(
            item_id=str(row.number),
            prompt=row.prompt(config.prompt_format),
            answer=row.answer,
            solution=row.solution,
            family=row.family,
            group=joined.groups.get(row.number),
        )
        for row in sorted(rows.values(), key=lambda row: row.number)
    ]
    tell("writing")
    _write_notes(folder, out, released)
    if rewards is not None and rewards.resolve() != (out / rewards.name).resolve():
        files.write_bytes(out / rewards.name, rewards.read_bytes())
    split = write_split(out, config, items, related=related)
    built = Built(
        source="hub" if source is None else "local",
        source_revision=revision,
        source_sha256=files.sha256(data),
        released_sha256=files.sha256(folder / RELEASED),
        items=len(items),
        labelled=_sizes(joined.groups),
        matched=joined.matched,
        doubtful=joined.doubtful,
        resolved=joined.resolved,
        unresolved=joined.unresolved,
        similar=len(related.get("similar", ())),
        similar_leaked=sum(problem.leaked for problem in related.get("similar", ())),
        sub_problems=len(related.get("sub_problems", ())),
        sub_problems_leaked=sum(problem.leaked for problem in related.get("sub_problems", ())),
        left_out=left_out,
        rewards=rewards is not None,
    )
    files.write_json(out / BUILT, built)
    return split, built


# --- what there is to build -----------------------------------------------------------------------------------


def _released(name_or_folder: str | Path) -> tuple[Path, Released]:
    folder = shipped_folder(name_or_folder)
    released = released_of(folder)
    if released is None:
        raise SplitError(f"split {folder.name} comes with all its files; there is nothing to build")
    return folder, released


def _check_place(out: Path, name: str) -> None:
    """Raise SplitError where another split, or anything else, would be written over."""
    if (out / "split.yaml").is_file():
        if Split(out).name != name:
            raise SplitError(f"{out} holds the split {Split(out).name}; name another --out for {name}")
    elif out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise SplitError(f"{out} is not empty and holds no split; name another --out for {name}")
    elif out.exists() and not out.is_dir():
        raise SplitError(f"{out} is a file; name another --out for {name}")


def _generated(released: Released, store: Path, artifacts: str | None) -> list[Generated]:
    """All released problems, in the order of the files."""
    if released.release is None:
        return []
    found = []
    for file in released.release.files:
        path = released_file(file, released.release.addresses, store, artifacts)
        for row, content in enumerate(json.loads(path.read_bytes()), start=1):
            number, _, place = str(content.get("id")).partition("_")
            texts = [str(content.get(name) or "").strip() for name in ("question", "answer", "solution")]
            if not (number.isdecimal() and place and texts[0] and texts[1]):
                raise DataError(f"{path}, row {row}: an id like 8_0, a question and an answer were expected")
            found.append(Generated(int(number), place, file, *texts))
    return found


def _rewards(released: Released, store: Path, artifacts: str | None, source: Path | None) -> Path | None:
    """The released rewards of a training run, every row checked; None where none are released, or none are here."""
    if released.release is None or released.release.rewards is None:
        return None
    path = released_rewards_file(released.release.rewards, released.release.addresses, store, artifacts, source)
    if path is not None:
        read_rewards(path)
    return path


# --- joining --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Joined:
    groups: Mapping[int, GroupName]
    """The group of each labelled row, by its number."""
    item_of: Mapping[tuple[str, int], int]
    """The row that a generated problem belongs to, by what its number means and the number."""
    matched: float | None
    doubtful: Sequence[str]
    resolved: Sequence[Resolved]
    unresolved: Sequence[int]


def _join(
    released: Released, rows: Mapping[int, Row], generated: Sequence[Generated], pool: Texts, data: Path
) -> _Joined:
    groups: dict[int, GroupName] = {number: group for group, of in released.groups.items() for number in of.ids}
    if missing := sorted(groups.keys() - rows.keys()):
        raise DataError(
            f"{data} has no row whose {released.source.numbering} is {missing[0]} (nor {len(missing) - 1} more of the "
            f"{len(groups)} released ids): it is another HF split or setting than {released.source.file}; name that "
            "with --source"
        )
    texts: dict[tuple[str, int], _Texts] = defaultdict(_Texts)
    for problem in generated:
        getattr(texts[problem.file.numbers, problem.number], problem.file.kind).append(problem.question)
    place = {number: row for row, number in enumerate(rows)}
    checked = [number for number in sorted(groups) if ("index", number) in texts]
    matched, doubtful = None, []
    if checked:
        found = standing(pool, [place[number] for number in checked], [texts["index", n].all for n in checked])
        matched = float(np.mean(found >= LIKER))
        doubtful = [str(number) for number, share in zip(checked, found, strict=True) if share < LIKER]
        if matched < MATCHED:
            raise DataError(
                f"{data} is not the data that the released ids number: only {100 * matched:.0f} % of {len(checked)} "
                f"items are liker to the problems made from them than {100 * LIKER:.0f} % of the other rows are (the "
                f"right file gives more than 99 %, a wrong one about 10 %); give {released.source.file} of "
                f"{released.source.repository}, unaltered"
            )
    positions = {number: group for group, of in released.groups.items() for number in of.positions}
    resolved = _resolve(pool, list(rows), {n: texts["position", n] for n in positions}, groups.keys())
    groups |= {of.index: positions[of.position] for of in resolved}
    item_of = {("index", number): number for number in rows}
    item_of |= {("position", of.position): of.index for of in resolved}
    known = {of.position for of in resolved}
    unresolved = [number for number in sorted(positions) if number not in known]
    return _Joined(groups, item_of, matched, doubtful, resolved, unresolved)


def _resolve(
    pool: Texts, numbers: Sequence[int], positions: Mapping[int, _Texts], taken: Collection[int]
) -> list[Resolved]:
    """Rows that stand out as the text behind a position; a row that two positions claim goes to neither."""
    free = np.array([number not in taken for number in numbers])
    claims: dict[int, list[Resolved]] = defaultdict(list)
    for position, texts in sorted(positions.items()):
        if not texts.similar or free.sum() < 2:
            continue
        likeness = np.where(free, pool.likeness(texts.similar), -1)
        second, first = (int(row) for row in np.argsort(likeness, kind="stable")[-2:])
        margin = float(likeness[first]) / max(float(likeness[second]), 1e-6)
        steps = pool.likeness(texts.sub_problems) if texts.sub_problems else None
        agreed = steps is not None and int(np.argmax(np.where(free, steps, -1))) == first
        if margin >= (MARGIN_AGREED if agreed else MARGIN):
            found = Resolved(position=position, index=numbers[first], margin=round(margin, 4))
            claims[found.index].append(found)
    return sorted((of[0] for of in claims.values() if len(of) == 1), key=lambda found: found.position)


def _related(
    generated: Sequence[Generated], item_of: Mapping[tuple[str, int], int], rows: Mapping[int, Row]
) -> tuple[dict[str, list[RelatedProblem]], int]:
    """Generated problems by kind, linked to items, with repeats of any item marked; and how many have no item."""
    items, left_out = Repeats([row.question for row in rows.values()]), 0
    tables_of: dict[str, list[RelatedProblem]] = {file.file.kind: [] for file in generated}
    for problem in generated:
        number = item_of.get((problem.file.numbers, problem.number))
        if number is None:
            left_out += 1
            continue
        tables_of[problem.file.kind].append(
            RelatedProblem(
                problem_id=f"{problem.file.group}-{problem.number}-{problem.place}",
                item_id=str(number),
                prompt=problem.question,
                answer=problem.answer,
                solution=problem.solution,
                leaked=items.holds(problem.question),
            )
        )
    return tables_of, left_out


def _sizes(groups: Mapping[int, GroupName]) -> dict[GroupName, int]:
    sizes: dict[GroupName, int] = defaultdict(int)
    for group in groups.values():
        sizes[group] += 1
    return dict(sizes)


def _write_notes(folder: Path, out: Path, released: Released) -> None:
    """released.json and the notices that the texts' licences ask for."""
    if (out / RELEASED).resolve() != (folder / RELEASED).resolve():
        files.write_bytes(out / RELEASED, (folder / RELEASED).read_bytes())
    notes = [
        f"Problem texts: {released.source.repository} ({released.source.file}). Licence: {released.source.licence}."
    ]
    if released.release is not None:
        notes.append(released.release.notice)
    files.write_text(out / "NOTICE", "\n\n".join(notes) + "\n")
