"""One policy's diagnosis, stage by stage: rollouts, gradients, inner products, results.

Every stage leaves its files in `.work` under the output folder, so that rerunning a command resumes it, however
suddenly it was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from unlearnbench import __version__
from unlearnbench.diagnosis.inputs import Pool, published, read_pool, skill_of, too_few, with_gradients, with_rollouts
from unlearnbench.diagnosis.memory import Lengths, Planner, beside, lengths
from unlearnbench.diagnosis.options import Options
from unlearnbench.diagnosis.record import Diagnosis, Excluded, Memory, SimilarityRecord, block_means, by_seed, findings
from unlearnbench.diagnosis.run_folder import claim
from unlearnbench.diagnosis.similarity import Matrix, Similarity, gram, similarity
from unlearnbench.errors import DataError, PolicyError
from unlearnbench.harness.policy_ref import Place, fingerprint
from unlearnbench.harness.rollouts.files import Reading
from unlearnbench.io import files, tables
from unlearnbench.io.folder_lock import locked
from unlearnbench.splits import Split
from unlearnbench.workers.executor import executor_of, run_chains
from unlearnbench.workers.jobs import Compute, Job, stream_root, weights_hash
from unlearnbench.workers.messages import Items

if TYPE_CHECKING:  # torch is loaded when there is something left to compute
    from unlearnbench.diagnosis.jobs import DiagnosisJob
    from unlearnbench.policies.policy import Policy

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many items it has done, and of how many."""


@dataclass(frozen=True)
class Task:
    """What is asked of every policy, and how it may be computed."""

    options: Options
    split: Split | None
    rollouts: Path | None
    reading: Reading
    """How the file of rollouts is read."""
    max_memory: int
    workers: int | None
    ray: str | None
    progress: Progress | None
    planned: Callable[[Memory], None] | None

    def run(self, place: Place, out: Path, revision: str | None) -> Diagnosis:
        """Diagnose one policy into a folder."""
        with locked(out):
            return _Stages(self, place, out, revision).diagnosis()

    def default_folder(self, place: Place) -> Path:
        what = [str(place.source), str(self.rollouts), *self.reading.choices, self.options.as_json()]
        key = json.dumps(what, sort_keys=True)
        name = self.split.name if self.split is not None else "rollouts"
        return Path("runs") / name / f"diagnosis-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


class _Stages:
    """One policy's diagnosis, stage by stage."""

    def __init__(self, task: Task, place: Place, out: Path, revision: str | None) -> None:
        self.task, self.options, self.place, self.out = task, task.options, place, out
        self.work = out / ".work"
        split = task.split
        local = isinstance(place.source, Path)
        if revision is None and split is not None and place.source == split.policy_path and not local:
            revision = split.config.base_policy.revision
        self.job: dict[str, Any] = {
            "policy": str(place.source.resolve() if isinstance(place.source, Path) else place.source),
            "revision": None if local else revision,
            "prompt_format": self.options.prompt_format or ("raw" if split is None else split.config.prompt_format),
            "work": str(self.work.resolve()),
        }
        if isinstance(place.source, Path):
            self.source = fingerprint(place.source)
            self.revision: str | None = weights_hash(place.source)
        else:
            self.source = place.source if revision is None else f"{place.source}@{revision}"
            self.revision = revision
        self._policy: Policy | None = None

    def diagnosis(self) -> Diagnosis:
        from unlearnbench.diagnosis.page import write_page

        claim(self.out, self.work, self._bound())
        pool = read_pool(self.task.split, self.task.rollouts, self.options, self.task.reading)
        facts = self._facts()
        planner = Planner(self.task.max_memory, self.task.workers, self.options, facts)
        excluded = self._gather(pool, planner)
        used = tables.read_parquet(self.work / "used.parquet")
        items = used.select(["item_id", "group", "found", "sampled"]).to_pylist()
        if len(items) < 2:
            raise DataError(too_few(excluded, self.place.label))
        seeds = range(self.options.seed, self.options.seed + self.options.adapter_seeds)
        inners = [self._inner(seed, planner) for seed in seeds]
        self._policy = None
        kept, lost = with_gradients(inners, items, self.options.parts)
        excluded = [*excluded, *lost]
        if len(kept) < 2:
            raise DataError(too_few(excluded, self.place.label))
        record, found = self._record(inners, [items[i] for i in kept], kept, excluded, facts)
        tables.write_parquet(self.out / "rollouts.parquet", published(used, set(record.item_ids)))
        self._publish(record, found)
        write_page(self.out, record, found.cosine)
        return Diagnosis(self.out, record, found.cosine, found.reliability)

    def _bound(self) -> dict[str, Any]:
        """What the folder is bound to."""
        split, file = self.task.split, self.task.rollouts
        return {
            "source": self.source,
            "split": None if split is None else split.hash,
            "rollouts": None if file is None else self.task.reading.fingerprint(file),
            **self._options(),
        }

    def _options(self) -> dict[str, Any]:
        return {**self.options.as_json(), "prompt_format": self.job["prompt_format"]}

    def _facts(self) -> dict[str, Any]:
        """What is known of the policy. It is loaded only where that was not found out before.

        Raises PolicyError for weights that leave no item a gradient.
        """
        path = self.work / "policy.json"
        if not path.is_file():
            from unlearnbench.diagnosis.jobs import described

            files.write_json(path, described(self._loaded(), self.options.chosen()))
        facts: dict[str, Any] = json.loads(path.read_text())
        if facts["not_finite"] is not None:
            raise PolicyError(
                f"The policy {self.place.label} has weights that are not finite numbers (in {facts['not_finite']}); "
                "give a policy that is sound."
            )
        if self.revision is None:
            self.revision = facts["revision"]
        if not isinstance(self.place.source, Path):
            self.job["revision"] = self.revision
        return facts

    def _loaded(self) -> Policy:
        from unlearnbench.diagnosis.jobs import DiagnosisJob, load

        if self._policy is None:
            self._policy = load(DiagnosisJob(**self.job))
        return self._policy

    # --- rollouts ---

    def _gather(self, pool: Pool, planner: Planner) -> list[Excluded]:
        """Gather every item's rollouts; writes used.parquet, and returns the items that have too few."""
        if not (self.work / "used.parquet").is_file():
            from unlearnbench.diagnosis.jobs import CHUNK, GatherJob, gathered_file

            tables.write_parquet(self.work / "items.parquet", pool.items)
            tables.write_parquet(self.work / "given.parquet", pool.given)
            items = len(pool.items)
            chunks = range(-(-items // CHUNK))
            left = [chunk for chunk in chunks if not gathered_file(self.work, chunk).is_file()]
            workers = planner.processes(len(left), planner.held, "the policy")
            job = {
                **self._sampling(pool),
                "memory": (self.task.max_memory - beside(workers)) // workers - planner.held,
            }
            jobs = [GatherJob(**job, chunks=left[number::workers]) for number in range(workers)]
            self._work("gather", jobs, items - len(left) * CHUNK, items)
            used: list[pa.Table] = []
            excluded: list[Excluded] = []
            for chunk in chunks:
                own = pool.items.slice(chunk * CHUNK, CHUNK).to_pylist()
                gathered = tables.read_parquet(gathered_file(self.work, chunk)).to_pylist()
                some, others = with_rollouts(own, gathered, self.options)
                used.append(some)
                excluded += others
            tables.write_records(self.work / "excluded.json", excluded, Excluded)
            tables.write_parquet(self.work / "used.parquet", pa.concat_tables(used))
        return list(tables.read_records(self.work / "excluded.json", Excluded))

    def _sampling(self, pool: Pool) -> dict[str, Any]:
        split = self.task.split
        protocol = None if split is None else split.config.protocol
        return {
            **self.job,
            "file": str(pool.file),
            "rule": "strict" if protocol is None else protocol.verifier_rule,
            "root": "" if split is None else stream_root(split, "diagnose", self.options.seed),
            "max_tokens": 0 if protocol is None else protocol.sampling.max_tokens,
            "wanted": self.options.rollouts_per_item,
            "reward": self.options.reward,
            "cap": self.options.cap,
        }

    # --- gradients ---

    def _inner(self, seed: int, planner: Planner) -> Matrix:
        """Inner products of all items' parts with one adapter, computed once and kept."""
        from safetensors.numpy import load, save

        path = self.work / f"inner-{seed}.safetensors"
        if not path.is_file():
            vectors, marks = self.work / f"vectors-{seed}.f32", self.work / f"done-{seed}.u8"
            found = lengths(self.work / "used.parquet")
            memory = planner.gradients(found, self.work)
            if self.task.planned:
                self.task.planned(memory)
            self._fill(seed, found, planner.facts, memory, vectors, marks)
            dimension = planner.facts["dimension"]
            stored = np.memmap(vectors, np.float32, "r", shape=(len(found.prompts), self.options.parts, dimension))
            tile = int(max(1, min(512, self.task.max_memory // (16 * dimension))))
            with np.errstate(invalid="ignore", over="ignore"):  # items that are not finite are left out later
                inner = gram(stored, tile)
            files.write_bytes(path, save({"inner": inner}))
            del stored
            vectors.unlink()
            marks.unlink()
        return np.asarray(load(path.read_bytes())["inner"])

    def _fill(
        self, seed: int, found: Lengths, facts: Mapping[str, Any], memory: Memory, vectors: Path, marks: Path
    ) -> None:
        from unlearnbench.diagnosis.jobs import GradientJob

        items = len(found.prompts)
        if not (marks.is_file() and vectors.is_file() and vectors.stat().st_size == memory.vectors):
            _make(vectors, memory.vectors)
            _make(marks, items)
        done = np.fromfile(marks, np.uint8) > 0
        left = [block for block in found.blocks(self.options.parts) if not done[slice(*block)].all()]
        job = {
            **self.job,
            "vectors": str(vectors.resolve()),
            "marks": str(marks.resolve()),
            "parts": self.options.parts,
            "dimension": facts["dimension"],
            "parameters": self.options.chosen(),
            "adapter_seed": seed,
            "max_tokens": memory.tokens_per_pass,
            "entropy_share": self.options.entropy_share,
        }
        workers = max(1, min(memory.workers, len(left)))
        jobs = [GradientJob(**job, blocks=left[number::workers]) for number in range(workers)]
        self._work("gradients", jobs, items - sum(stop - start for start, stop in left), items)

    def _work(self, kind: Literal["gather", "gradients"], jobs: Sequence[DiagnosisJob], done: int, total: int) -> None:
        """Do jobs in processes of their own, or a single one in this one."""
        finished = max(0, done)

        def tell(items: int) -> None:
            nonlocal finished
            finished += items
            if self.task.progress:
                self.task.progress(kind, finished, total)

        tell(0)
        if len(jobs) > 1 or self.task.ray is not None:
            self._policy = None
            function, log = f"unlearnbench.diagnosis.jobs:run_{kind}", self.work / "log.txt"
            chains = [[Job(function, job, f"process {n} of {kind}", log)] for n, job in enumerate(jobs)]
            executor = executor_of(Compute(ray=self.task.ray))
            executor.require(self.work, 1)
            run_chains(chains, len(jobs), lambda event: tell(event.items if isinstance(event, Items) else 0), executor)
            return
        import torch

        from unlearnbench.diagnosis.jobs import GatherJob, GradientJob, fill, gather

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums, and with them cosines, depend on their number
        try:
            for job in jobs:
                if isinstance(job, GatherJob) and job.chunks:
                    gather(self._loaded(), job, tell)
                elif isinstance(job, GradientJob) and job.blocks:
                    fill(self._loaded(), job, tell)
        finally:
            torch.set_num_threads(threads)

    # --- results ---

    def _record(
        self,
        inners: Sequence[Matrix],
        used: Sequence[Mapping[str, Any]],
        kept: Sequence[int],
        excluded: Sequence[Excluded],
        facts: Mapping[str, Any],
    ) -> tuple[SimilarityRecord, Similarity]:
        options, parts = self.options, self.options.parts
        bound = self._bound()
        whole = len(kept) * parts == len(inners[0])  # copies of inner products are what takes most memory here
        rows = (np.array(kept)[:, None] * parts + np.arange(parts)).ravel()
        groups = [row["group"] for row in used]
        cut = inners if whole else [inner[np.ix_(rows, rows)] for inner in inners]
        skills = self._skills([row["item_id"] for row in used])
        inner = cut[0] if len(cut) == 1 else sum(cut[1:], cut[0])
        found = similarity(inner, groups, parts, skills=skills, seed=options.seed)
        # With one adapter its own blocks say nothing new; intervals are of the whole.
        each = [similarity(inner, groups, parts, draws=1, seed=options.seed) for inner in cut] if len(cut) > 1 else []
        seeds = tuple(range(options.seed, options.seed + len(cut))) if options.parameters == "lora" else ()
        by_adapter_seed, pair_spread = by_seed(seeds, each)
        record = SimilarityRecord(
            code_version=__version__,
            policy=self.place.label,
            source=self.source,
            revision=self.revision,
            split=None if self.task.split is None else self.task.split.name,
            split_hash=bound["split"],
            rollouts_file=bound["rollouts"],
            item_ids=tuple(row["item_id"] for row in used),
            excluded=tuple(excluded),
            **findings(found, groups, options.rollouts_per_item, parts),
            parameters=options.parameters,
            dimension=facts["dimension"],
            adapter_seeds=seeds,
            by_adapter_seed=by_adapter_seed,
            pair_spread=pair_spread,
            seed=options.seed,
            options=self._options(),
        )
        return record, found

    def _skills(self, ids: Sequence[str]) -> list[str] | None:
        """The skill of each item, by the split; None where it does not know all of them."""
        known = {} if self.task.split is None else self.task.split.families()
        return [skill_of(known[name]) for name in ids] if all(name in known for name in ids) else None

    def _publish(self, record: SimilarityRecord, found: Similarity) -> None:
        from safetensors.numpy import save

        raw, corrected = block_means(record)
        arrays = {
            "cosine": found.cosine.astype(np.float32),
            "reliability": found.reliability.astype(np.float32),
            "block_raw": raw,
            "block_corrected": corrected,
        }
        files.write_bytes(self.out / "similarity.safetensors", save(arrays))
        files.write_json(self.out / "similarity.json", record)


def _make(path: Path, size: int) -> None:
    """A file of zeros; where the file system can, it takes room as it is filled."""
    with path.open("wb") as file:
        file.truncate(size)
