"""Rollouts made anywhere, graded again and scored like a run of ours (PROTOCOL 3).

read in batches → every different completion judged → rows written, (n, correct) counted → is anything missing?
→ counts → score → result.json and report.html

Memory does not grow with the number of rollouts: what is kept is a batch, the rows that wait to be written, and two
integers per item and seed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unlearnbench import __version__
from unlearnbench.errors import RunError, VerifierError
from unlearnbench.harness.rollouts.counts import Problems, Tally
from unlearnbench.harness.rollouts.files import Progress, Reading, RolloutFiles, of_one_step, require_labels
from unlearnbench.io import tables
from unlearnbench.io.files import atomic, write_json
from unlearnbench.io.folder_lock import locked
from unlearnbench.io.rollout_reader import Batch
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget
from unlearnbench.scoring import score
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split, load_split
from unlearnbench.verifier import Verifier
from unlearnbench.workers.measure import ROWS

ROW_GROUP = 32_768
WAITING = 64 << 20
"""Bytes of judged rows, of all files together, that may wait to be written."""

_FILES = (("items.parquet", "item_id"), ("twins.parquet", "twin_id"), ("canaries.parquet", "item_id"))


def score_rollouts(
    files: Sequence[str | Path],
    split: str | Path | Split,
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    reading: Reading | None = None,
    partial: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Judge and score the rollouts in `files` (one set), and write the run's folder `out`.

    Files have rows of ours or of a trainer (`rollout_reader.NAMES`), or are logs of lm-eval-harness, lighteval,
    inspect_ai, prime-rl or verifiers. `seeds` names the training run of each file that names none (default 0).

    Every item must be there with the same number of rollouts in every seed; with `partial`, what is there is
    scored, and the result is not comparable. Raises DataError naming file, row and field, or the first item that is
    missing; SeveralSteps where the files hold several steps and `reading` chooses none; SplitError where the split has
    no labels; RunError where `out` holds another run; VerifierError where the verifier itself fails.
    """
    chosen = split if isinstance(split, Split) else load_split(split)
    require_labels(chosen)
    folder, source = Path(out), RolloutFiles(files, seeds, reading or Reading())
    identity = {"split": chosen.name, "split_hash": chosen.hash, "rollouts": source.fingerprint}
    rule, tally = chosen.config.protocol.verifier_rule, Tally(Problems(chosen))
    with locked(folder), _stage(folder) as stage:
        _refuse_another_run(folder, identity)
        with Verifier(rule, workers=workers or os.cpu_count() or 1) as verifier, _Writer(stage) as writer:
            for batch in of_one_step(source.batches(chosen, progress), source.reading.step):
                place = tally.problems.places(batch)
                judged = judge(batch, place, tally.problems, verifier)
                seed, sample = tally.add(batch, place, judged)
                writer.write(batch, judged, tally.problems.phase[place], seed, sample)
            samples, why = tally.partial() if partial else (tally.complete(), None)
            writer.flush()
        for number in tally.seeds:
            write_json(folder / str(number) / "config.json", {"schema_version": 1, **identity, "seed": number})
        writer.publish(folder)
        counts = tally.counts()
        tables.write_parquet(folder / "counts.parquet", counts)
        facts = score.RunFacts(
            method=MethodRecord(name="rollouts", source_hash=identity["rollouts"], track="undeclared"),
            seeds=tally.seeds,
            samples=samples,
            sampling=chosen.config.protocol.sampling,
            budget=SpentBudget(),
            cost=Cost(verifier_calls=tally.rollouts, ungradable=tally.ungradable),
            kind="score",
            why_not_comparable=why,
            code_version=__version__,
        )
        return _publish(folder, chosen, score.score(chosen, counts, facts, chosen.control("null_control", "1x")))


# --- the parts of it ------------------------------------------------------------------------------------------


def judge(batch: Batch, place: Counts, problems: Problems, verifier: Verifier) -> pa.Table:
    """Columns correct, answer and reason; the same gold with the same completion is judged once.

    Raises VerifierError where the verifier itself failed twice on one.
    """
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
    # equal pairs of gold and answer share one verdict, so there are few
    different = {id(verdict): verdict for verdict in verdicts}
    numbers = {key: number for number, key in enumerate(different)}
    rows = np.array([numbers[id(verdict)] for verdict in verdicts], np.int64)[inverse]
    names = ("correct", "answer", "reason")
    columns = {name: pa.array([getattr(v, name) for v in different.values()], ROWS[name]) for name in names}
    return pa.table(columns).take(pa.array(rows))


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
        files = seed * len(_FILES) + phase
        for number in np.unique(files).tolist():
            key = divmod(number, len(_FILES))
            mask = files == number
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
            file = self._files.enter_context(atomic(self._staged(seed, phase)))
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
                f"{folder} holds another run ({path.relative_to(folder)} is not of these {different[0]}); name "
                "another folder with --out, or remove it"
            )


def _publish(folder: Path, split: Split, result: Result) -> Result:
    from unlearnbench.reports.run_report import write_report

    write_json(folder / "result.json", result)
    write_report(folder, split, result)
    return result
