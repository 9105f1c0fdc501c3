"""The labelling protocol on one page (PROTOCOL 2): what a policy can and cannot learn of a pool, measured.

    base policy: n samples of every item, and fresh ones for `rate_before`
    → S reference GRPO runs, each measured on every item
    → counts → candidates → certified afresh on every run → groups
    → the twins of unlearnable items, at the base and after every run → a split

Every phase leaves files, so an interrupted curation resumes; what is drawn leaves one file per shard
(`workers/measure_shards.py`), and processes share the shards out. All rollouts are kept in the work folder (each
different completion once, with its count), so that verdicts can be made again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.curation import similar_probes
from unlearnbench.curation.workspace import workspace
from unlearnbench.errors import RunError
from unlearnbench.harness.training_jobs import Run, training_job
from unlearnbench.io import files, tables
from unlearnbench.io.folder_lock import locked
from unlearnbench.io.rollout_store import write_base_rollouts
from unlearnbench.methods import locate
from unlearnbench.policies.weights import parameters_of
from unlearnbench.records import BudgetRef, PolicyRef, Protocol, SplitConfig, Twin
from unlearnbench.scoring.labels import Labels, candidates, label_items, labels_table, summary
from unlearnbench.scoring.probes import choose_probes, with_probes
from unlearnbench.splits import Split, seal, write_split
from unlearnbench.training.ledger import read_ledger
from unlearnbench.training.run_spec import Limits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.executor import executor_of, run_chains
from unlearnbench.workers.jobs import (
    Compute,
    Job,
    MeasureTask,
    Problem,
    Watch,
    measure_job,
    stream_root,
    weights_hash,
)
from unlearnbench.workers.measure import counts_of

Problems = Sequence[Problem]
Key = Literal["item_id", "twin_id"]
CuratedRule = Literal["protocol", "paper"]
HALVES = 2  # files of a base phase: fixed, so that neither counts nor rounding depend on the number of workers
COUNTS_WITH_BEST = pa.schema([*tables.COUNTS, ("best", pa.float64())])


def curate(
    config: str | Path,
    out: str | Path,
    *,
    rule: CuratedRule = "protocol",
    work: str | Path | None = None,
    compute: Compute | None = None,
    progress: Watch | None = None,
) -> Split:
    """Label the pool that split.yaml names and write a finished split to `out`; resumes what it finds in `work`.

    `compute` says how this machine works on it. Raises SplitError or DataError for a malformed pool, RunError where
    `work` belongs to another configuration or the engine is not installed.
    """
    compute = compute or Compute(patience=None)
    compute.engine.require()
    place = Path(work) if work else Path(out) / ".curation"
    executor = executor_of(compute)
    executor.require(place, compute.processes)
    at_once = executor.at_once(sys.maxsize, compute)
    with locked(place):
        curation = Curation(Path(config), place, replace(compute, workers=at_once), progress)
        with curation.verifier:
            return _curate(curation, Path(out), rule)


def _curate(curation: Curation, out: Path, rule: CuratedRule) -> Split:
    counts = curation.counts()
    names = [item.item_id for item in curation.split.items]
    labels = label_items(counts, curation.protocol, item_ids=names, rule=rule)
    unlearnable = {name for name, group in zip(labels.item_ids, labels.group, strict=True) if group == "unlearnable"}
    twin_counts = curation.twin_counts(unlearnable)
    twins = curation.twins(unlearnable, twin_counts)
    return curation.publish(out, labels, counts, twins, twin_counts)


def curate_counts(file: str | Path, out: str | Path, *, rule: CuratedRule = "protocol") -> dict[str, Any]:
    """Labels from counts alone: writes labels.parquet and labels.json to `out`, returns what labels.json says."""
    counts = tables.read_counts(Path(file), phases=("base", "train", "after", "certify"), best=rule == "paper")
    labels = label_items(counts, Protocol(), rule=rule, source=str(file))
    tables.write_parquet(Path(out) / "labels.parquet", labels_table(labels))
    told = summary(labels)
    files.write_json(Path(out) / "labels.json", told)
    return told


class Curation:
    """One run of the protocol: the pool, where its files are, and its phases."""

    def __init__(self, config: Path, work: Path, compute: Compute, progress: Watch | None) -> None:
        self.work, self.compute, self.progress = work, compute, progress
        self.split, self.identity = workspace(config, work, compute.engine)
        source = Split(config.parent)
        self.related = similar_probes.read_related(source.path)
        self.from_similar = not source.twins
        """Whether probes are taken from the similar problems, since the pool has no twins."""
        self.verifier = Verifier(rule=self.split.config.protocol.verifier_rule, workers=compute.workers or 1)
        self.protocol = self.split.config.protocol
        self.runs = list(range(1, self.protocol.runs + 1))
        self.items: Problems = self.split.problems("eval")

    # --- phases -----------------------------------------------------------------------------------------------

    def counts(self) -> pa.Table:
        """All counts behind the labels, certification included."""
        n = self.protocol.samples
        base = [("base", n.base), ("base_fresh", n.base_fresh)]
        self._run([*self._base_chains("item_id", self.items, base), *self._reference_chains()])
        parts = [
            self._counted(self.work / "base", "base", "0"),
            self._counted(self.work / "base", "base_fresh", "0"),
        ]
        for run in self.runs:
            parts += [_training_counts(self._place(run), run), self._counted(self._place(run), "after", str(run))]
        counts = _table(parts)
        known = pa.array([item.item_id for item in self.split.items])
        counts = counts.filter(pc.is_in(counts["item_id"], known))  # canaries are trained on but are not items
        if not n.certify:
            return counts
        wanted = set(candidates(counts, self.protocol))
        problems = [problem for problem in self.items if problem[0] in wanted]
        self._run([[self._job(run, "certify", problems, "item_id", n.certify)] for run in self.runs if problems])
        certified = [self._counted(self._place(run), "certify", str(run)) for run in self.runs if problems]
        return _table([counts, *certified])

    def twin_counts(self, unlearnable: set[str]) -> pa.Table | None:
        """Counts of the twins of these items at the base and after every run."""
        twins = [(twin.twin_id, twin.prompt, twin.answer) for twin in self.split.twins if twin.item_id in unlearnable]
        if not twins:
            return None
        n = self.protocol.samples.twins
        jobs = [[self._job(run, "twins", twins, "twin_id", n)] for run in self.runs]
        self._run([*self._base_chains("twin_id", twins, [("twins", n)]), *jobs])
        base = self._counted(self.work / "base", "twins", "0", phase="base", key="twin_id")
        after = [self._counted(self._place(run), "twins", str(run), phase="after", key="twin_id") for run in self.runs]
        return pa.concat_tables([base, *after]).cast(tables.TWIN_COUNTS)

    def twins(self, unlearnable: set[str], counts: pa.Table | None) -> list[Twin]:
        """The twins, one of each unlearnable item marked as its probe where one is eligible.

        Of candidates from the similar problems, the probes alone are held out: no other becomes a twin.
        """
        kind = similar_probes.KIND if self.from_similar else "changed_numbers"
        chosen = {} if counts is None else choose_probes(self.split.twins, counts, unlearnable, self.protocol.tau, kind)
        if self.from_similar:
            return [twin for twin in with_probes(self.split.twins, chosen) if twin.probe]
        return list(self.split.twins) if counts is None else with_probes(self.split.twins, chosen)

    def publish(
        self, out: Path, labels: Labels, counts: pa.Table, twins: list[Twin], twin_counts: pa.Table | None
    ) -> Split:
        """Write the finished split: items with their groups, counts, budget, policy and hashes."""
        table = labels_table(labels)
        rows = {row["item_id"]: row for row in table.to_pylist()}
        items = [
            item.model_copy(update={key: rows[item.item_id][key] for key in ("group", "certified", "thin")})
            for item in self.split.items
        ]
        policy = self.split.policy_path
        if isinstance(policy, Path) and policy.resolve() != (out / "policy").resolve():
            shutil.copytree(policy, out / "policy", dirs_exist_ok=True)
        costs = [json.loads((self._place(run) / "cost.json").read_text())["flops"] for run in self.runs]
        budget = BudgetRef(flops_1x=round(float(np.mean(costs))))
        config = self.split.config.model_copy(update={"budget": budget, "label_rule": labels.rule})
        if isinstance(policy, Path):
            config = config.model_copy(update={"base_policy": _policy_record(config, out / "policy")})
        tables.write_parquet(out / "labels.parquet", table)
        files.write_json(out / "labels.json", summary(labels))
        base = self.work / "base"
        write_base_rollouts(
            out, [file for name in ("base", "base_fresh") for file in sorted(base.glob(f"{name}.*.parquet"))]
        )
        return write_split(
            out,
            config,
            items,
            twins=twins or None,
            canaries=list(self.split.canaries) or None,
            counts=counts,
            twin_counts=twin_counts,
            related=similar_probes.held_out(self.related, [twin for twin in twins if twin.probe]),
        )

    # --- their jobs -------------------------------------------------------------------------------------------

    def _base_chains(self, key: Key, problems: Problems, phases: Sequence[tuple[str, int]]) -> list[list[Job]]:
        """The base policy on all problems, in two files per phase."""
        root = stream_root(self.split, "label", 0)
        halves = [problems[k::HALVES] for k in range(HALVES)]
        chains = []
        for number, half in enumerate(halves):
            tasks = [
                _task(self.work / "base" / f"{name}.{number}.parquet", f"{root}/{name}", half, key, n)
                for name, n in phases
                if half
            ]
            log = self.work / "base" / "log.txt"
            chains.append([self._measured(self.split.policy_path, tasks, log, 0, "base")])
        return chains

    def _reference_chains(self) -> list[list[Job]]:
        """S runs of the reference GRPO, each followed by its measuring."""
        reference = Run(
            split=self.split,
            sealed=seal(self.split, self.work / "sealed"),
            method=locate("grpo"),
            purpose="label",
            fingerprint=self.identity,
            limits=Limits(None, self.split.config.recipe.steps),
            compute=self.compute,
        )
        chains = []
        for run in self.runs:
            train = training_job(reference, run, self._place(run), self.verifier)
            after = self._job(run, "after", self.items, "item_id", self.protocol.samples.after)
            chains.append([train, after])
        return chains

    def _job(self, run: int, name: str, problems: Problems, key: Key, n: int) -> Job:
        place = self._place(run)
        root = stream_root(self.split, "label", run) + f"/{name}"
        task = _task(place / f"{name}.0.parquet", root, problems, key, n)
        return self._measured(place / "checkpoint", [task], place / "log.txt", run, name)

    def _measured(self, policy: Path | str, tasks: Sequence[MeasureTask], log: Path, run: int, stage: str) -> Job:
        return measure_job(self.split, policy, tasks, log, self.compute, seed=run, stage=stage)

    def _run(self, chains: Sequence[Sequence[Job]]) -> None:
        run_chains(chains, self.compute.workers or 1, self.progress, executor_of(self.compute))

    def _place(self, run: int) -> Path:
        return self.work / "runs" / str(run)

    def _counted(self, place: Path, name: str, run: str, *, phase: str | None = None, key: str = "item_id") -> pa.Table:
        columns = {key: pa.string(), "count": pa.int32(), "correct": pa.bool_()}
        files = sorted(place.glob(f"{name}.*.parquet"))
        rows = pa.concat_tables([tables.read_parquet(path, columns).select(list(columns)) for path in files])
        counts = counts_of(rows, phase or name, run, key)
        wanted = getattr(self.protocol.samples, name)
        if pc.any(pc.not_equal(counts["n"], wanted)).as_py():
            raise RunError(
                f"{place} holds {name} samples of another cut or number than {wanted} per item; remove {place} and run "
                "the same command again"
            )
        return counts


def _task(out: Path, root: str, problems: Problems, key: Key, n: int) -> MeasureTask:
    return MeasureTask(out=str(out.resolve()), root=root, problems=problems, key=key, n=n, distinct=True)


def _policy_record(config: SplitConfig, folder: Path) -> PolicyRef:
    told = {"path": "policy", "revision": weights_hash(folder), "parameters": parameters_of(folder)}
    return config.base_policy.model_copy(update=told)


def _training_counts(place: Path, run: int) -> pa.Table:
    """Training rollouts of a reference run by item, with `best`: the largest mean reward of one step.

    Phase `trace` says how many of the rewarded ones (n) have a trace that is valid step by step (correct).
    """
    rows = read_ledger(place, ("step", "item_id", "correct", "valid_trace"))
    steps = rows["step"].to_numpy()
    correct = rows["correct"].to_numpy(zero_copy_only=False).astype(bool)
    names, inverse = np.unique(rows["item_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    visit = inverse.astype(np.int64) * (int(steps.max(initial=0)) + 1) + steps
    visits, of = np.unique(visit, return_inverse=True)
    rates = np.bincount(of, weights=correct) / np.bincount(of)
    best = np.zeros(len(names))
    np.maximum.at(best, visits // (int(steps.max(initial=0)) + 1), rates)
    hits = np.bincount(inverse, weights=correct).astype(np.int64)
    train = {
        "item_id": pa.array(names, pa.string()),
        "phase": ["train"] * len(names),
        "run": [str(run)] * len(names),
        "n": np.bincount(inverse),
        "correct": hits,
        "best": best,
    }
    valid = rows["valid_trace"].to_numpy(zero_copy_only=False) == True  # noqa: E712 - null where it is unknown
    sound = np.bincount(inverse, weights=correct & valid).astype(np.int64)
    traces = {**train, "phase": ["trace"] * len(names), "n": hits, "correct": sound, "best": [None] * len(names)}
    return pa.concat_tables([pa.table(part).cast(COUNTS_WITH_BEST) for part in (train, traces)])


def _table(parts: Sequence[pa.Table]) -> pa.Table:
    """Counts joined under one schema; `best` is null where a phase has none."""
    widened = []
    for part in parts:
        if "best" not in part.column_names:
            part = part.append_column("best", pa.nulls(part.num_rows, pa.float64()))
        widened.append(part.select(COUNTS_WITH_BEST.names).cast(COUNTS_WITH_BEST))
    return pa.concat_tables(widened)
