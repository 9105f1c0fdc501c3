"""Rollouts made anywhere, judged anew and scored like a run of ours (PROTOCOL 3).

read in batches → every different completion judged → rows written, (n, correct) counted → is anything missing?
→ counts → score → result.json and report.html

Memory does not grow with the number of rollouts: what is kept is a batch, the rows that wait to be written, and two
integers an item and seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench import __version__, conversion, tables
from unlearnbench.errors import DataError, RunError, VerifierError
from unlearnbench.jobs import locked
from unlearnbench.measure import ROWS
from unlearnbench.rates import Counts, Flags
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget
from unlearnbench.rollouts import Batch, read_rollouts
from unlearnbench.splits import Split, load_split
from unlearnbench.verifier import UNGRADABLE, Verifier

MOST_SEEDS = 100
"""More are refused: a column `seed` with so many values numbers samples, not training runs."""
ROW_GROUP = 32_768
WAITING = 64 << 20
"""Bytes of judged rows, of all files together, that may wait to be written."""

Progress = Callable[[float], None]
Phase = Literal["eval", "twin", "canary"]
PHASES: tuple[Phase, ...] = ("eval", "twin", "canary")
_NOUNS = ("item", "twin", "canary")
_FILES = (("items.parquet", "item_id"), ("twins.parquet", "twin_id"), ("canaries.parquet", "item_id"))


def score_rollouts(
    files: Sequence[str | Path],
    split: str | Path | Split,
    out: str | Path,
    *,
    partial: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Judge and score the rollouts in `files` (one set), and write the run's folder `out`.

    Every item must be there with the same number of rollouts in every seed; with `partial`, what is there is
    scored, and the result is not comparable. Raises DataError naming file, row and field, or the first item that is
    missing; RunError where `out` holds another run; VerifierError where the verifier itself fails.
    """
    chosen = split if isinstance(split, Split) else load_split(split)
    folder, sources = Path(out), [Path(file) for file in files]
    identity = {"split": chosen.name, "split_hash": chosen.hash, "rollouts": _fingerprint(sources)}
    rule, tally = chosen.config.protocol.verifier_rule, Tally(Problems(chosen))
    with locked(folder), _stage(folder) as stage:
        _refuse_another_run(folder, identity)
        with Verifier(rule, workers=workers or os.cpu_count() or 1) as verifier, _Writer(stage) as writer:
            for batch in _batches(sources, progress):
                place = tally.problems.places(batch)
                judged = _judged(batch, place, tally.problems, verifier)
                seed, sample = tally.add(batch, place, judged)
                writer.write(batch, judged, tally.problems.phase[place], seed, sample)
            samples, why = tally.partial() if partial else (tally.complete(), None)
            writer.flush()
        for number in tally.seeds:
            tables.write_json(folder / str(number) / "config.json", {"schema_version": 1, **identity, "seed": number})
        writer.publish(folder)
        counts = tally.counts()
        tables.write_parquet(folder / "counts.parquet", counts)
        result = conversion.score(
            chosen,
            counts,
            method=MethodRecord(name="rollouts", source_hash=identity["rollouts"], track="undeclared"),
            seeds=tally.seeds,
            samples=samples,
            sampling=chosen.config.protocol.sampling,
            budget=SpentBudget(),
            cost=Cost(verifier_calls=tally.rollouts, ungradable=tally.ungradable),
            kind="score",
            null=chosen.control("null_control", "1x"),
            strong_null=chosen.control("strong_null"),
            why_not_comparable=why,
            code_version=__version__,
        )
        return _publish(folder, chosen, result)


class Problems:
    """What rollouts may be of: a split's items, twins and canaries, in this order; a place is an index into them.

    `needed` says which a complete set has: every item; of twins those of unlearnable items, and canaries, each only
    if any of their kind is there.
    """

    def __init__(self, split: Split) -> None:
        unlearnable = set(split.ids("unlearnable"))
        rows = [(item.item_id, item.answer, 0, True) for item in split.items]
        rows += [(twin.twin_id, twin.answer, 1, twin.item_id in unlearnable) for twin in split.twins]
        rows += [(canary.item_id, canary.answer, 2, True) for canary in split.canaries]
        self.split = split.name
        self.ids = pa.array([row[0] for row in rows], pa.string())
        self.golds = list(dict.fromkeys(row[1] for row in rows))
        number = {gold: index for index, gold in enumerate(self.golds)}
        self.gold: Counts = np.array([number[row[1]] for row in rows], np.int64)
        self.phase: Counts = np.array([row[2] for row in rows], np.int64)
        self.needed: Flags = np.array([row[3] for row in rows], bool)

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, batch: Batch) -> Counts:
        """The place of each row's problem. Raises DataError naming file, row and field where there is none."""
        names = batch.rows["item_id"].combine_chunks()
        found = pc.index_in(names, value_set=self.ids)
        if found.null_count:
            row = pc.index(pc.is_null(found), True).as_py()
            raise DataError(
                f"{batch.where(row)}, field 'item_id': split {self.split} has no item, twin or canary "
                f"{names[row].as_py()[:80]!r}; remove the row, or name the split that it is of"
            )
        place: Counts = found.to_numpy().astype(np.int64)
        return place


class Tally:
    """(n, correct) of every problem in every seed met so far."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.rollouts = 0
        self.ungradable = 0
        self._n: dict[int, Counts] = {}
        self._correct: dict[int, Counts] = {}

    @property
    def seeds(self) -> list[int]:
        return sorted(self._n)

    def add(self, batch: Batch, place: Counts, judged: pa.Table) -> tuple[Counts, Counts]:
        """Count a batch; returns each row's seed and its sample number (0, 1, ... within its problem and seed)."""
        seeds: Counts = batch.rows["seed"].to_numpy()
        correct: Flags = judged["correct"].to_numpy()
        self.rollouts += len(place)
        self.ungradable += pc.sum(pc.is_in(judged["reason"], pa.array(sorted(UNGRADABLE)))).as_py()
        sample = np.empty(len(place), np.int64)
        for seed in np.unique(seeds).tolist():
            rows = np.flatnonzero(seeds == seed)
            if seed not in self._n:
                self._new_seed(batch, seed, int(rows[0]))
            here = place[rows]
            order = np.argsort(here, kind="stable")
            starts = np.flatnonzero(np.diff(here[order], prepend=-1))
            lengths = np.diff(starts, append=len(order))
            within = np.arange(len(order)) - np.repeat(starts, lengths)
            sample[rows[order]] = self._n[seed][here[order]] + within
            self._n[seed] += np.bincount(here, minlength=len(self.problems))
            self._correct[seed] += np.bincount(here[correct[rows]], minlength=len(self.problems))
        return seeds, sample

    def complete(self) -> int:
        """The number of rollouts that every needed problem has in every seed.

        Raises DataError naming the first problem and seed that has another number, and how many have.
        """
        n = self._table()
        phases = [phase for phase in range(len(PHASES)) if phase == 0 or n[:, self.problems.phase == phase].any()]
        needed = self.problems.needed & np.isin(self.problems.phase, phases)
        samples = _most_common(n[:, needed])
        wrong = np.argwhere((n != samples).T & needed[:, None])
        if not len(wrong):
            return samples
        place, seed = wrong[0].tolist()
        noun, name = _NOUNS[self.problems.phase[place]], self.problems.ids[place].as_py()
        lacking = int(np.maximum(samples - n[:, needed], 0).sum())
        raise DataError(
            f"{noun} {name!r} has {n[seed, place]} rollouts in seed {self.seeds[seed]} where {samples} are needed, the "
            f"first of {len(wrong):,} such places of {needed.sum() * len(n):,}, which lack {lacking:,} rollouts; add "
            "what is missing, or give --partial, which scores what is there and is not comparable"
        )

    def partial(self) -> tuple[int, str]:
        """The fewest rollouts of an item that is there in every seed, and why the result is not comparable.

        Raises DataError if no item is.
        """
        n = self._table()[:, self.problems.phase == 0]
        there = n.min(axis=0) > 0
        if not there.any():
            raise DataError("no item has a rollout in every seed, so there is nothing to score; add rollouts")
        return int(n[:, there].min()), (
            f"--partial: {there.sum()} of {len(there)} items are there in every seed, with {n[:, there].min()} to "
            f"{n[:, there].max()} rollouts each; score all of them with the same number without --partial"
        )

    def counts(self) -> pa.Table:
        """Counts as a run's counts.parquet has them (columns of `tables.COUNTS`): run = seed."""
        parts = []
        for seed in self.seeds:
            places = np.flatnonzero(self._n[seed])
            columns = {
                "item_id": self.problems.ids.take(pa.array(places)),
                "phase": pa.array(np.array(PHASES, object)[self.problems.phase[places]], pa.string()),
                "run": pa.array([str(seed)] * len(places), pa.string()),
                "n": pa.array(self._n[seed][places]),
                "correct": pa.array(self._correct[seed][places]),
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts).cast(tables.COUNTS)

    def _table(self) -> Counts:
        """n of shape (seeds, problems)."""
        if not self._n:
            raise DataError("there is no rollout in these files; give files that hold some")
        return np.stack([self._n[seed] for seed in self.seeds])

    def _new_seed(self, batch: Batch, seed: int, row: int) -> None:
        if len(self._n) == MOST_SEEDS:
            raise DataError(
                f"{batch.where(row)}, field 'seed': {seed} is one more than {MOST_SEEDS} different seeds; a seed is "
                "a training run's, not a sample's: leave it out where there is one run"
            )
        self._n[seed] = np.zeros(len(self.problems), np.int64)
        self._correct[seed] = np.zeros(len(self.problems), np.int64)


# --- the parts of it ------------------------------------------------------------------------------------------


def _batches(sources: Sequence[Path], progress: Progress | None) -> Iterator[Batch]:
    """All rows of all files; tells `progress` the share of the files' bytes that were read."""
    sizes = [max(source.stat().st_size, 1) for source in sources]
    before = 0
    for source, size in zip(sources, sizes, strict=True):
        for batch in read_rollouts(source):
            if batch.rows.num_rows:
                yield batch
            if progress:
                progress((before + batch.done * size) / sum(sizes))
        before += size


def _judged(batch: Batch, place: Counts, problems: Problems, verifier: Verifier) -> pa.Table:
    """Columns correct, answer and reason; the same gold with the same completion is judged once."""
    texts = batch.rows["completion"].combine_chunks().dictionary_encode()
    width = len(texts.dictionary)
    pairs, inverse = np.unique(problems.gold[place] * width + texts.indices.to_numpy(), return_inverse=True)
    completions = texts.dictionary.take(pa.array(pairs % width)).to_pylist()
    golds = [problems.golds[index] for index in (pairs // width).tolist()]
    verdicts = verifier.verify_many(list(zip(golds, completions, strict=True)))
    failed = [index for index, verdict in enumerate(verdicts) if verdict.correct is None]
    if failed:
        row = int(np.flatnonzero(np.isin(inverse, failed))[0])
        raise VerifierError(
            f"{batch.where(row)}: the verifier failed twice on this completion; run the same command again"
        )
    names = ("correct", "answer", "reason")
    columns = {name: pa.array([getattr(v, name) for v in verdicts], ROWS[name]) for name in names}
    return pa.table(columns).take(pa.array(inverse))


class _Output:
    """One evaluation file in the making: its writer, and rows that wait until they fill a row group."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.writer = writer
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def write(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.concat_tables(self.waiting), row_group_size=ROW_GROUP)
        self.waiting, self.rows = [], 0


class _Writer:
    """Evaluation rows of every seed, streamed into files that take their places only at the end."""

    def __init__(self, stage: Path) -> None:
        self._stage = stage
        self._files = ExitStack()
        self._outputs: dict[tuple[int, int], _Output] = {}
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def write(self, batch: Batch, judged: pa.Table, phase: Counts, seed: Counts, sample: Counts) -> None:
        """Rows with their verdicts, each into the file of its seed and phase."""
        rows = batch.rows.num_rows
        columns = {
            "item_id": batch.rows["item_id"],
            "sample": pa.array(sample, pa.int32()),
            "completion": batch.rows["completion"],
            "token_ids": pa.nulls(rows, ROWS["token_ids"]),
            "finish": batch.rows["finish"],
            **{name: judged[name] for name in judged.column_names},
        }
        table = pa.table(columns)
        keys = np.stack([seed, phase], axis=1)
        for key in np.unique(keys, axis=0).tolist():
            mask = (keys == key).all(axis=1)
            part = table if mask.all() else table.filter(pa.array(mask))
            output = self._output(*key)
            output.waiting.append(part.rename_columns([_FILES[key[1]][1], *part.column_names[1:]]))
            output.rows += part.num_rows
            self._bytes += part.nbytes
            if output.rows >= ROW_GROUP:
                self._bytes -= sum(waiting.nbytes for waiting in output.waiting)
                output.write()
        if self._bytes > WAITING:
            self.flush()

    def flush(self) -> None:
        """Write all rows that wait."""
        for output in self._outputs.values():
            output.write()
        self._bytes = 0

    def publish(self, folder: Path) -> None:
        """Move the finished files to their places in the run's folder."""
        for seed, phase in self._outputs:
            place = folder / str(seed) / "evaluation" / _FILES[phase][0]
            place.parent.mkdir(parents=True, exist_ok=True)
            self._staged(seed, phase).replace(place)

    def _output(self, seed: int, phase: int) -> _Output:
        if (seed, phase) not in self._outputs:
            file = self._files.enter_context(tables.atomic(self._staged(seed, phase)))
            head = [(_FILES[phase][1], pa.string()), ("sample", pa.int32())]
            writer = pq.ParquetWriter(file, pa.schema([*head, *ROWS.items()]), compression="zstd")
            self._outputs[seed, phase] = _Output(self._files.enter_context(writer))
        return self._outputs[seed, phase]

    def _staged(self, seed: int, phase: int) -> Path:
        return self._stage / f"{seed}.{_FILES[phase][0]}"


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A folder for files that are not finished, empty at first, gone at the end; a killed command leaves it."""
    stage = folder / ".scoring"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fingerprint(sources: Sequence[Path]) -> str:
    """Names a set of files by what is in them, in whatever order. Raises DataError if one is there twice."""
    hashes: dict[str, Path] = {}
    for source in sources:
        digest = tables.sha256(source)
        if digest in hashes:
            raise DataError(f"{source} holds the same rollouts as {hashes[digest]}; give each file once")
        hashes[digest] = source
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def _refuse_another_run(folder: Path, identity: Mapping[str, str]) -> None:
    """Raise RunError if the folder holds, or has begun to hold, anything but the score of these rollouts."""
    for path in [*sorted(folder.glob("*/config.json")), folder / "result.json"]:
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_bytes())
            if path.name == "result.json":
                found["rollouts"] = found["method"]["source_hash"] if found["kind"] == "score" else None
        except (ValueError, TypeError, KeyError, OSError):
            found = {}
        if different := [key for key in identity if found.get(key) != identity[key]]:
            raise RunError(
                f"{folder} holds another run ({path.relative_to(folder)} was made with another {different[0]}); name "
                "another folder with --out, or remove it"
            )


def _most_common(n: Counts) -> int:
    """The number of rollouts that most problems have that have any; the larger of two that are as common."""
    values, times = np.unique(n[n > 0], return_counts=True)
    return int(values[times == times.max()].max()) if len(values) else 0


def _publish(folder: Path, split: Split, result: Result) -> Result:
    from unlearnbench.report import write_report

    tables.write_json(folder / "result.json", result)
    write_report(folder, split, result)
    return result
