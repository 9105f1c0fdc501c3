"""Whether the folder of a split or a pool is consistent: each check of `unlearnbench splits validate` in a function.

Files are read directly and not through `Split`, so that one altered file does not hide what else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa

from unlearnbench.curation.control_checks import control_problems, fresh_problems, unknown_ids
from unlearnbench.curation.similar_probes import wrong_probes
from unlearnbench.curation.ungradable import ungradable_items
from unlearnbench.errors import DataError
from unlearnbench.io import files, tables
from unlearnbench.records import Canary, Item, RelatedProblem, SplitConfig, Twin
from unlearnbench.splits.manifest import POLICY, RELEASED, waits, waits_for_policy
from unlearnbench.splits.split import ITEM_COLUMNS, PARTS, item_schema, unbuilt
from unlearnbench.splits.write import label_files
from unlearnbench.verifier.task_scorer import stated_gold

T = TypeVar("T")
RELATED = ("similar.parquet", "sub_problems.parquet")


@dataclass(frozen=True, slots=True)
class _Contents:
    folder: Path
    config: SplitConfig
    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    canaries: tuple[Canary, ...]
    counts: pa.Table | None
    twin_counts: pa.Table | None
    related: Mapping[str, tuple[RelatedProblem, ...]]
    """Rows of similar.parquet and sub_problems.parquet, by file name."""

    @property
    def names(self) -> tuple[str, str, str]:
        """The files of items, twins and canaries, relative to the folder."""
        return _names(self.config)

    @property
    def is_pool(self) -> bool:
        """Whether it is still to be labelled."""
        grouped = any(item.group is not None for item in self.items)
        return not (self.config.files or grouped or self.counts is not None)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is wrong with a split, one sentence each, and how many gold answers were checked and failed their check.

    `ungradable` holds one sentence for each gold that only its own text can match. That is not wrong by itself.
    """

    problems: list[str]
    golds: int = 0
    unverified: int = 0
    ungradable: Sequence[str] = ()


def validate(path: str | Path) -> list[str]:
    """What is wrong with the split, or the pool of one, in that folder: a sentence each, naming file, row and field."""
    return inspect(path).problems


def inspect(path: str | Path) -> Inspection:
    """Every check of this module on the split in that folder; of a pool without labels, those of its problems."""
    folder = Path(path)
    problems: list[str] = []
    contents = _read(folder, problems)
    if contents is None:
        return Inspection(problems)
    if not contents.is_pool:
        problems += _hashes(contents)
    if problems and not contents.items:
        return Inspection(problems)  # whatever refers to items would only repeat that they cannot be read
    for check in _POOL_CHECKS if contents.is_pool else _SPLIT_CHECKS:
        problems += check(contents)
    unverified = list(_answers(asked := _asked(contents)))
    doubtful = ungradable_items(contents.items, folder / contents.names[0])
    return Inspection(problems + unverified, len(asked), len(unverified), doubtful)


def pool_problems(config_file: Path) -> list[str]:
    """What is wrong with the problems that a curation is to label, a sentence each: all that can be known before
    anything is drawn. Reference solutions are not judged, as no label rests on them."""
    problems: list[str] = []
    contents = _read(config_file.parent, problems)
    if contents is None or problems:
        return problems
    for check in _POOL_CHECKS:
        problems += check(contents)
    return problems + list(_answers([question for question in _asked(contents) if not question.of_solution]))


def _read(folder: Path, problems: list[str]) -> _Contents | None:
    """The files of a split; adds to `problems` what cannot be read. None where there is nothing to check."""

    def read(reader: Callable[[], T]) -> T | None:
        try:
            return reader()
        except DataError as error:
            problems.append(str(error))
            return None

    def optional(name: str, reader: Callable[[Path], T]) -> T | None:
        return read(lambda: reader(folder / name)) if (folder / name).is_file() else None

    config = read(lambda: tables.read_yaml_record(folder / "split.yaml", SplitConfig))
    if config is None:
        return None
    if waits(folder):
        problems.append(unbuilt(config.name))
        return None
    items, twins, canaries = _names(config)
    for name in (config.pool.twins, config.pool.canaries):
        if name is not None and not (folder / name).is_file():
            problems.append(f"{folder / 'split.yaml'}, field 'pool': there is no file {folder / name}")
    return _Contents(
        folder=folder,
        config=config,
        items=read(lambda: tables.read_records(folder / items, Item, ITEM_COLUMNS)) or (),
        twins=optional(twins, lambda file: tables.read_records(file, Twin)) or (),
        canaries=optional(canaries, lambda file: tables.read_records(file, Canary)) or (),
        counts=optional("counts.parquet", tables.read_counts),
        twin_counts=optional("twin_counts.parquet", lambda file: tables.read_counts(file, key="twin_id")),
        related={
            name: optional(name, lambda file: tables.read_records(file, RelatedProblem)) or () for name in RELATED
        },
    )


def _names(config: SplitConfig) -> tuple[str, str, str]:
    return config.pool.items, config.pool.twins or "twins.parquet", config.pool.canaries or "canaries.json"


def _hashes(split: _Contents) -> Iterator[str]:
    """Every file that the labels rest on is listed in split.yaml and has the hash stated there."""
    apart = f"{POLICY}/" if waits_for_policy(split.folder) else None
    for name, expected in split.config.files.items():
        file = split.folder / name
        if apart and name.startswith(apart):
            continue  # `splits build` makes the policy elsewhere and checks it there
        if not file.is_file():
            yield f"{file}: split.yaml lists this file, and it is missing"
        elif files.sha256(file) != expected:
            yield f"{file}: its hash is not the one in split.yaml; restore the file, or curate the split again"
    for name in label_files(split.folder, split.config):
        if name not in split.config.files:
            yield f"{split.folder / 'split.yaml'}, field 'files': the hash of {name} is missing"


def _ids(split: _Contents) -> Iterator[str]:
    """Items, twins and canaries each have an id of their own: control counts keep all three in one column."""
    owner: dict[str, str] = {}
    items, twins, canaries = split.names
    for name, field, ids in (
        (items, "item_id", [item.item_id for item in split.items]),
        (twins, "twin_id", [twin.twin_id for twin in split.twins]),
        (canaries, "item_id", [canary.item_id for canary in split.canaries]),
    ):
        for row, identity in enumerate(ids, start=1):
            place = f"{split.folder / name}, row {row}"
            if identity in owner:
                yield f"{place}, field {field!r}: {identity!r} is already the id of {owner[identity]}"
            else:
                owner[identity] = f"{name}, row {row}"


def _not_empty(split: _Contents) -> Iterator[str]:
    """There are items."""
    if not split.items:
        yield f"{split.folder / split.names[0]}: it has no items; add the problems of the pool"


def _labels(split: _Contents) -> Iterator[str]:
    """Every item has a group, unless the split's labels are those that were released."""
    if (split.folder / RELEASED).is_file():
        return  # what was released is a part of the pool: the rest has no label, and split and documents say so
    for row, item in enumerate(split.items, start=1):
        if item.group is None:
            yield f"{split.folder / 'items.parquet'}, row {row}, field 'group': item {item.item_id!r} has no label"


def _groups(split: _Contents) -> Iterator[str]:
    """Groups, certification and `thin` are what the rule makes of the counts."""
    from unlearnbench.scoring.labels import label_items

    if split.counts is None or not split.items:
        return
    ids = [item.item_id for item in split.items]
    source = str(split.folder / "counts.parquet")
    try:
        labels = label_items(
            split.counts, split.config.protocol, rule=split.config.label_rule, item_ids=ids, source=source
        )
    except DataError as error:
        yield str(error)
        return
    found = zip(split.items, labels.group, labels.certified, labels.thin, strict=True)
    for row, (item, group, certified, thin) in enumerate(found, start=1):
        if (item.group, item.certified, item.thin) != (group, certified, bool(thin)):
            yield (
                f"{split.folder / 'items.parquet'}, row {row}, field 'group': item {item.item_id!r} is labelled "
                f"{item.group} (certified {item.certified}, thin {item.thin}) and its counts say {group} "
                f"(certified {certified}, thin {bool(thin)})"
            )


def _parts(split: _Contents) -> Iterator[str]:
    """Each data/*.parquet holds exactly the rows of items.parquet that belong to it, in the columns of an item."""
    group_of: dict[str, str] = {}
    for part in PARTS:
        file = split.folder / "data" / f"{part}.parquet"
        try:
            rows = tables.read_records(file, Item)
            if not tables.read_parquet(file).schema.equals(schema := item_schema(split.items)):
                yield f"{file}: its columns are not {', '.join(schema.names)}"
        except DataError as error:
            yield str(error)
            continue
        expected = {item.item_id: item for item in split.items if part in ("train", item.group)}
        for number, row in enumerate(rows, start=1):
            place, known = f"{file}, row {number}", expected.pop(row.item_id, None)
            if part != "train" and group_of.setdefault(row.item_id, part) != part:
                yield f"{place}, field 'item_id': {row.item_id!r} is also in data/{group_of[row.item_id]}.parquet"
            elif known is None:
                yield f"{place}, field 'item_id': items.parquet has no (other) item {row.item_id!r} for this file"
            elif row != known:
                field = next(name for name in Item.model_fields if getattr(row, name) != getattr(known, name))
                yield f"{place}, field {field!r}: not what items.parquet says of item {row.item_id!r}"
        for item_id in expected:
            yield f"{file}: item {item_id!r} of items.parquet is missing"


def _owners(split: _Contents) -> Iterator[str]:
    """Twins belong to items of the split."""
    items = {item.item_id for item in split.items}
    for row, twin in enumerate(split.twins, start=1):
        if twin.item_id not in items:
            yield f"{split.folder / split.names[1]}, row {row}, field 'item_id': there is no item {twin.item_id!r}"


def _references(split: _Contents) -> Iterator[str]:
    """Counts are of the split's items and twins."""
    items = {item.item_id for item in split.items}
    measured = {twin.twin_id for twin in split.twins}
    measured |= {row.problem_id for row in split.related["similar.parquet"]}  # candidates that became no probe
    for name, key, counts, known in (
        ("counts.parquet", "item_id", split.counts, items),
        ("twin_counts.parquet", "twin_id", split.twin_counts, measured),
    ):
        if counts is not None:
            yield from unknown_ids(split.folder / name, key, counts, known)


def _fresh(split: _Contents) -> Iterator[str]:
    """Every item has fresh base rollouts, where some have."""
    if split.counts is not None:
        yield from fresh_problems(split.folder / "counts.parquet", split.items, split.counts)


def _golds(split: _Contents) -> Iterator[str]:
    """A gold answer is not a worked solution, and items of one prompt have one: else a rollout is right and wrong."""
    first: dict[str, tuple[int, Item]] = {}
    for row, item in enumerate(split.items, start=1):
        if "\n" in item.answer.strip():
            yield (
                f"{split.folder / split.names[0]}, row {row}, field 'answer': it has several lines, as a worked "
                "solution has; give the final answer alone"
            )
        earlier, other = first.setdefault(_words(item.prompt), (row, item))
        if other.answer != item.answer:
            yield (
                f"{split.folder / split.names[0]}, row {row}, field 'answer': the prompt is that of item "
                f"{other.item_id!r} (row {earlier}), whose answer is {other.answer!r:.40} and not {item.answer!r:.40}"
            )


def _prompts(split: _Contents) -> Iterator[str]:
    """A twin is held out: its prompt is not an item's, canary's or other twin's. Nor is a canary's any item's."""
    owner = {_words(item.prompt): f"item {item.item_id!r}" for item in split.items}
    _, twins, canaries = split.names
    for name, prompts in (
        (canaries, [(canary.item_id, canary.prompt) for canary in split.canaries]),
        (twins, [(twin.twin_id, twin.prompt) for twin in split.twins]),
    ):
        for row, (identity, prompt) in enumerate(prompts, start=1):
            if other := owner.get(_words(prompt)):
                yield f"{split.folder / name}, row {row}, field 'prompt': {identity!r} has the prompt of {other}"
            else:
                owner[_words(prompt)] = f"{identity!r} ({name}, row {row})"


def _probes(split: _Contents) -> Iterator[str]:
    """An item's probe is the first of its candidates that the base and every labelling run failed."""
    if split.twin_counts is not None:
        unlearnable = [item.item_id for item in split.items if item.group == "unlearnable"]
        similar, tau = split.related["similar.parquet"], split.config.protocol.tau
        for problem in wrong_probes(split.twins, similar, split.twin_counts, unlearnable, tau):
            yield f"{split.folder / split.names[1]}, field 'probe': {problem}"


def _related(split: _Contents) -> Iterator[str]:
    """Similar and sub-problems belong to an item each, have an id of their own, and repeat no item or twin unmarked."""
    items = {item.item_id for item in split.items}
    held_out = {_words(one.prompt): "an item" for one in split.items}
    held_out |= {_words(one.prompt): "a canary" for one in split.canaries}
    held_out |= {_words(one.prompt): "a twin" for one in split.twins}
    probes = {twin.twin_id for twin in split.twins}
    for name, problems in split.related.items():
        seen: set[str] = set()
        for row, problem in enumerate(problems, start=1):
            place = f"{split.folder / name}, row {row}"
            if problem.item_id not in items:
                yield f"{place}, field 'item_id': there is no item {problem.item_id!r}"
            if problem.problem_id in seen or problem.problem_id in items:
                yield f"{place}, field 'problem_id': {problem.problem_id!r} occurs twice"
            seen.add(problem.problem_id)
            if problem.problem_id in probes and not problem.leaked:
                yield f"{place}, field 'leaked': {problem.problem_id!r} is a twin, so this must be true"
            elif not problem.leaked and (whose := held_out.get(_words(problem.prompt))):
                yield f"{place}, field 'leaked': the prompt is that of {whose}, so this must be true"


def _controls(split: _Contents) -> Iterator[str]:
    """Controls are whole, of this version of the split, and their counts are of its items, twins and canaries."""
    yield from control_problems(split.folder, split.items, split.twins, split.canaries)


class _Asked(NamedTuple):
    place: str
    gold: str
    completion: str
    correct: bool = True
    """What the verdict must be."""
    of_solution: bool = False
    """Whether the completion is a reference solution."""


def _asked(split: _Contents) -> list[_Asked]:
    """Gold answers, and those that reference solutions state, against the gold; canaries' true answers too."""

    def place(name: str, row: int, field: str) -> str:
        return f"{split.folder / name}, row {row}, field {field!r}"

    asked = []
    items, twins, canaries = split.names
    for row, item in enumerate(split.items, start=1):
        asked.append(_Asked(place(items, row, "answer"), item.answer, _box(item.answer)))
        # Published solutions may state nothing that can be checked; those of a generated split must.
        if item.solution and (item.cause is not None or "\\boxed" in item.solution):
            asked.append(_Asked(place(items, row, "solution"), item.answer, item.solution, of_solution=True))
    for row, twin in enumerate(split.twins, start=1):
        asked.append(_Asked(place(twins, row, "answer"), twin.answer, _box(twin.answer)))
    for name, problems in split.related.items():
        for row, problem in enumerate(problems, start=1):
            asked.append(_Asked(place(name, row, "answer"), problem.answer, _box(problem.answer)))
    for row, canary in enumerate(split.canaries, start=1):
        true, answer = _box(canary.true_answer), place(canaries, row, "answer")
        asked.append(_Asked(answer, canary.answer, _box(canary.answer)))
        asked.append(_Asked(place(canaries, row, "true_answer"), canary.true_answer, true))
        asked.append(_Asked(answer, canary.answer, true, correct=False))
    return asked


def _box(gold: str) -> str:
    return f"\\boxed{{{stated_gold(gold)}}}"


def _answers(asked: list[_Asked]) -> Iterator[str]:
    """Gold answers, and those that reference solutions state, verify; a canary's true answer does not."""
    from unlearnbench.verifier import Verifier

    verdicts = Verifier().verify_many([(question.gold, question.completion) for question in asked])
    for (place, gold, completion, correct, _), verdict in zip(asked, verdicts, strict=True):
        if correct and not verdict.correct:
            stated = "no answer" if verdict.answer is None else repr(verdict.answer)
            yield f"{place}: it states {stated}, which does not verify against {gold!r} ({verdict.reason})"
        elif not correct and verdict.correct is not False:
            yield f"{place}: a canary's gold must be wrong, and {completion} verifies against {gold!r}"


def _words(prompt: str) -> str:
    return " ".join(prompt.split())  # a space more does not make another problem


_POOL_CHECKS = (_not_empty, _ids, _golds, _owners, _prompts)
_SPLIT_CHECKS = (*_POOL_CHECKS, _labels, _groups, _parts, _references, _fresh, _probes, _related, _controls)
