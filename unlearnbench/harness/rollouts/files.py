"""Files of rollouts as one set: which files, how they are read, and which of their steps count."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from unlearnbench.adapters.eval_logs import log_reader, read_log
from unlearnbench.adapters.log_samples import Failures
from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.errors import DataError, SplitError
from unlearnbench.io.files import sha256
from unlearnbench.io.rollout_reader import Batch, read_rollouts
from unlearnbench.splits import Split

Progress = Callable[[float], None]


class SeveralSteps(DataError):
    """The files hold rollouts of several steps of a training, so of several policies, and none was chosen."""


@dataclass(frozen=True)
class Reading:
    """How files are read: which column of theirs each of `rollout_reader.NAMES` is, and what is left out."""

    columns: Mapping[str, str] = field(default_factory=dict)
    step: int | None = None
    """The training step whose rollouts are used; None: there is only one."""
    failures: Failures = field(default_factory=Failures)
    """Samples of logs that have no rollout because the evaluation failed."""

    @property
    def choices(self) -> list[str]:
        """What was chosen of a file's columns and steps, in words."""
        chosen = [f"{name}={column}" for name, column in sorted(self.columns.items())]
        return chosen if self.step is None else [*chosen, f"step={self.step}"]

    def fingerprint(self, path: Path) -> str:
        """Names what is read of one file: its sha256, unless something of it is chosen."""
        digest = sha256(path)
        chosen = "".join([digest, *self.choices])
        return hashlib.sha256(chosen.encode()).hexdigest() if self.choices else digest


class RolloutFiles:
    """Files that are one set of rollouts. Raises DataError if two of them are equal or one cannot be read."""

    def __init__(self, files: Sequence[str | Path], seeds: Sequence[int] | None, reading: Reading) -> None:
        self.paths = [Path(file) for file in files]
        self.seeds = list(seeds) if seeds is not None else [0] * len(self.paths)
        """The training run of each file that names none."""
        self.reading = reading
        self.fingerprint = _fingerprint(self.paths, self.seeds, reading)

    def batches(self, split: Split, progress: Progress | None) -> Iterator[Batch]:
        """All rollouts of all files, each with an id; calls `progress` with the share of the bytes that were read."""
        index = ProblemIndex(split)
        sizes = [max(path.stat().st_size, 1) for path in self.paths]
        before = 0
        for path, size, seed in zip(self.paths, sizes, self.seeds, strict=True):
            for batch in self._read(path, seed, index):
                if batch.rows.num_rows:
                    yield index.named(batch)
                if progress:
                    progress((before + batch.done * size) / sum(sizes))
            before += size

    def _read(self, path: Path, seed: int, index: ProblemIndex) -> Iterator[Batch]:
        columns = self.reading.columns
        if not columns and log_reader(path) is not None:
            return read_log(path, index, seed, self.reading.failures)
        return read_rollouts(path, seed, columns=columns)


def of_one_step(batches: Iterable[Batch], step: int | None) -> Iterator[Batch]:
    """The rollouts of a step; of all, where there is only one step and None is given.

    Raises DataError where no rollout is of that step, and SeveralSteps where None is given and there are several.
    """
    seen: set[int] = set()
    used = False
    for batch in batches:
        steps = batch.rows["step"]
        seen.update(pc.unique(steps).drop_null().to_pylist())
        if step is None:
            if len(seen) > 1:
                raise SeveralSteps(
                    f"{batch.source}: its rollouts, and those read before it, are of several steps of a training "
                    f"({_named(seen)}), so of several policies; choose one step with --step N"
                )
            yield batch
            continue
        chosen = np.flatnonzero(pc.fill_null(pc.equal(steps, step), False).to_numpy())
        if len(chosen):
            used = True
            yield batch if len(chosen) == len(steps) else batch.select(chosen)
    if step is not None and not used:
        found = f"there are those of {_named(seen)}" if seen else "the rollouts have no column step"
        raise DataError(f"no rollout is of step {step}; {found}")


def _named(steps: set[int]) -> str:
    ordered = sorted(steps)
    return ", ".join(map(str, ordered)) if len(ordered) <= 8 else f"{ordered[0]} to {ordered[-1]}"


def require_labels(split: Split) -> None:
    """Raise SplitError unless the split's items have groups."""
    if all(item.group is None for item in split.items):
        raise SplitError(
            f"split {split.name} has no labels, so its rollouts cannot be scored; label it with `unlearnbench curate "
            f"--config {split.path / 'split.yaml'} --out DIR`, and score with --split DIR"
        )


def _fingerprint(paths: Sequence[Path], seeds: Sequence[int], reading: Reading) -> str:
    """Names a set of files by what is in them, in whatever order, and how they are read."""
    hashes: dict[str, Path] = {}
    for path in paths:
        digest = sha256(path)
        if digest in hashes:
            raise DataError(f"{path} has the same content as {hashes[digest]}; give each file once")
        hashes[digest] = path
    named = sorted(f"{digest}:{seed}" if seed else digest for digest, seed in zip(hashes, seeds, strict=True))
    return hashlib.sha256("".join([*named, *reading.choices]).encode()).hexdigest()
