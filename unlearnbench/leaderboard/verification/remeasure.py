"""A bundle measured again: its weights in the split's base policy, every problem drawn again with the same keys.

Weights alone are taken from the bundle, checked before anything is loaded (policies/weights.py); configuration,
tokenizer and generation settings are the split's. The measuring is the harness's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from unlearnbench.errors import DataError, PolicyError, RunError
from unlearnbench.harness.evaluation_jobs import FILES, measure_policy, measure_start
from unlearnbench.harness.policy_ref import base_folder
from unlearnbench.io import tables
from unlearnbench.leaderboard.bundles.bundle import WEIGHTS, Bundle, Seed
from unlearnbench.leaderboard.verification.rollouts import Asked, Drawn
from unlearnbench.policies.weights import take_over, tensors_of
from unlearnbench.splits import Split
from unlearnbench.workers.executor import run_chains
from unlearnbench.workers.jobs import Compute, Job

BYTES_PER_WEIGHT = 4
HEADER = 8 << 20
"""Bytes of a file of weights beside its weights, at most."""
PATIENCE = 1800.0
"""Seconds without a sign of a measuring process after which it is ended."""


def measure(bundle: Bundle, split: Split, asked: Asked, scratch: Path, workers: int | None = None) -> Drawn:
    """Draw everything that was asked again, from the bundle's weights, in `scratch`.

    Raises DataError naming the seed and the reason for weights that are not of the base's kind, RunError where this
    machine cannot measure them (the sampler that drew is not installed).
    """
    policies = {seed: _policy(bundle, seed, split, scratch) for seed in asked.seeds}
    engine = bundle.first.config.engine
    engine.require()
    compute = Compute(engine=engine, patience=PATIENCE)
    chains: list[list[Job]] = []
    for seed, policy in policies.items():
        chains.append([measure_policy(split, scratch, seed, policy, asked.samples, "eval", compute)])
        if (start := _start(bundle.seeds[seed], split)) is not None:
            chains.append([measure_start(split, scratch, seed, start, asked.samples, "eval", compute)])
    run_chains(chains, workers or min(len(chains), os.cpu_count() or 1))
    parts = [_rows(scratch / str(seed) / "evaluation", asked) for seed in asked.seeds]
    rows = pa.concat_tables(parts).combine_chunks()
    column = pc.dictionary_encode(rows["completion"].chunk(0))
    shape = (len(asked.cells), asked.samples)
    return Drawn(
        asked,
        column.dictionary.to_pylist(),
        column.indices.to_numpy().astype(np.int64).reshape(shape),
        rows["correct"].to_numpy(zero_copy_only=False).astype(bool).reshape(shape),
    )


def require_weights_of(bundle: Bundle, split: Split) -> None:
    """Raise DataError where a seed has no weights, those of another kind than it trained, or more bytes than the base.

    Looks at names and sizes alone.
    """
    base = base_folder(split)
    weights = sum(int(np.prod(tensor.shape)) for tensor in tensors_of(base).values())
    most = BYTES_PER_WEIGHT * weights + HEADER
    for number, seed in bundle.seeds.items():
        where = f"{bundle.archive.path}, seed {number}"
        if not seed.weights:
            raise DataError(
                f"{where} has no weights, so nothing of it can be measured again; create the bundle with `unlearnbench "
                "submit`, or enter it as self-reported"
            )
        kind = "model" if _lora_of(where, seed) is None else "adapter_model"
        if odd := [name for name in seed.weights if not name.rpartition("/")[2].startswith(kind)]:
            raise DataError(f"{where}: {odd[0]} is not what its settings say was trained (files {kind}*.safetensors)")
        size = sum(bundle.archive.large[name] for name in seed.weights)
        if size > most:
            raise DataError(f"{where}: {size:,} bytes of weights; the split's policy has at most {most:,}")


def _lora_of(where: str, seed: Seed) -> object:
    try:
        return seed.method.lora
    except ValidationError as error:
        raise DataError(f"{where}, method.json, field 'settings.lora': {error.errors()[0]['msg']}") from error


def _policy(bundle: Bundle, seed: int, split: Split, scratch: Path) -> Path:
    """The policy folder of a seed: its weights, checked, and everything else of the split's base."""
    place, one = scratch / str(seed), bundle.seeds[seed]
    for name in one.weights:
        found = WEIGHTS.fullmatch(name)
        assert found is not None
        digest = bundle.archive.copy(name, place / "weights" / found[1])
        if digest != bundle.manifest.members[name].sha256:
            raise DataError(f"{bundle.archive.path}, member {name!r} is not what manifest.json says (its hash differs)")
    if len(one.weights) > 1:
        (place / "weights" / "model.safetensors.index.json").write_text(
            "{}"
        )  # marks sharded weights; `take_over` writes its own
    state = {"schema_version": 1, "finished": True}
    try:
        take_over(place / "weights", base_folder(split), place / "checkpoint", one.method.lora, state)
    except PolicyError as error:
        told = str(error).replace(str(place / "checkpoint.new"), f"seed {seed}").rstrip(".")
        raise DataError(f"{bundle.archive.path}, seed {seed}: {told}") from error
    return place / "checkpoint"


def _start(seed: Seed, split: Split) -> Path | None:
    """The policy that a seed's training began from, where that is not the base. Raises RunError if it is missing."""
    if seed.method.start == "base":
        return None
    path = split.path / "positive_control" / "policy"
    if not path.is_dir():
        raise RunError(f"split {split.name} has no positive_control/policy here, which the runs started from")
    return path


def _rows(folder: Path, asked: Asked) -> pa.Table:
    """Completions and verdicts of one seed, in the order of the cells."""
    phases: Sequence[str] = list(dict.fromkeys(phase for phase, _ in asked.problems))
    stems = {phase: stem for stem, phase in FILES.items()}
    parts = []
    for phase in phases:
        path = folder / f"{stems[phase]}.parquet"
        parts.append(tables.read_parquet(path, {"completion": pa.string(), "correct": pa.bool_()}))
    return pa.concat_tables(parts)
