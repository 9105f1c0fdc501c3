"""Gradient similarity of a policy's items, from the policy to the page (PROTOCOL 5).

    policy, and a split or a file of rollouts → as many rollouts of each item → a gradient of each item, in parts
    → inner products → cosines, reliability, blocks → similarity.json and .safetensors, heatmap.png, report.html

Every stage leaves its files in `.work` under the output folder, so that a command that was stopped, however suddenly,
goes on where it was when it is given again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from unlearnbench import __version__, tables
from unlearnbench.errors import DataError, PolicyError, RunError
from unlearnbench.jobs import Event, Job, locked, run_chains, stream_root, weights_hash
from unlearnbench.notation import plural
from unlearnbench.rollout_pool import Pool, read_pool
from unlearnbench.similarity import FLOOR, Matrix, Similarity, gram, similarity
from unlearnbench.similarity_record import (
    ByRollouts,
    BySeed,
    Diagnosis,
    Excluded,
    Memory,
    SimilarityRecord,
    auc_record,
    block_record,
    gib,
    reliability_record,
)
from unlearnbench.splits import Split, load_split, shipped_splits

if TYPE_CHECKING:  # torch is loaded when there is something left to compute
    from unlearnbench.policy import Policy

Progress = Callable[[str, int, int], None]
"""Told the stage, how many items it has done, and of how many."""

GIB = 1 << 30
OVERHEAD = 512 << 20
"""Bytes that a process takes for its libraries alone, torch among them."""
MAX_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Tokens of a pass beyond which it gets no faster: on CPU, what the caches hold."""
BLOCK_ITEMS, BLOCK_TOKENS = 8, 8192
"""Items, and their tokens, at most, after which they are marked as finished: what a kill can cost a process."""
ADAPTER_RANK, ADAPTER_ALPHA, ADAPTER_TARGETS = 16, 32.0, ("q_proj", "v_proj")


@dataclass(frozen=True)
class Options:
    """Everything that decides a diagnosis beside its policy and rollouts. Raises RunError for what cannot be."""

    rollouts_per_item: int = 20
    cap: int = 1024
    reward: Literal["correct", "group"] = "correct"
    entropy_share: float = 1.0
    parameters: str = "lora"
    targets: tuple[str, ...] = ADAPTER_TARGETS
    rank: int = ADAPTER_RANK
    adapter_seeds: int = 1
    parts: int = 4
    groups: tuple[str, ...] | None = None
    items_per_group: int | None = None
    seed: int = 0
    prompt_format: Literal["raw", "chat"] | None = None

    def __post_init__(self) -> None:
        for name in ("targets", "groups"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        least = {"rollouts_per_item": 1, "cap": 1, "rank": 1, "adapter_seeds": 1, "parts": 1, "seed": 0}
        for name, bound in {**least, **({} if self.items_per_group is None else {"items_per_group": 1})}.items():
            if getattr(self, name) < bound:
                raise RunError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        if self.rollouts_per_item % self.parts:
            raise RunError(
                f"{self.rollouts_per_item} rollouts an item make no {self.parts} equal parts; choose a multiple of "
                f"{self.parts}"
            )
        if not 0 < self.entropy_share <= 1:
            raise RunError(f"entropy_share is {self.entropy_share}; it must be above 0 and at most 1")
        if self.reward not in ("correct", "group"):
            raise RunError(f"reward is {self.reward!r}; it must be correct or group")
        if self.reward == "group" and self.rollouts_per_item < 2:
            raise RunError("reward group needs at least 2 rollouts an item, to standardise by")
        own = (self.targets, self.rank, self.adapter_seeds) != (ADAPTER_TARGETS, ADAPTER_RANK, 1)
        if self.parameters != "lora" and own:
            raise RunError(f"targets, rank and adapter seeds are those of parameters lora, not of {self.parameters}")

    def chosen(self) -> dict[str, Any]:
        """What gradients are taken of, in JSON."""
        if self.parameters == "lora":
            return {"kind": "lora", "rank": self.rank, "alpha": ADAPTER_ALPHA, "targets": list(self.targets)}
        names = () if self.parameters == "all" else self.parameters.split(",")
        return {"kind": "weights", "names": [name.strip() for name in names if name.strip()]}


# --- in front ---------------------------------------------------------------------------------------------------------


def diagnose(
    policy: str | Path,
    split: str | Path | Split | None = None,
    *,
    rollouts: str | Path | None = None,
    out: str | Path | None = None,
    revision: str | None = None,
    max_memory: int = 4 * GIB,
    workers: int | None = None,
    progress: Progress | None = None,
    planned: Callable[[Memory], None] | None = None,
    **options: Any,
) -> Diagnosis:
    """Gradient similarity of the items of a split (micro, if no rollouts are given), or of a file of rollouts.

    `policy` is a folder, a Hub id, a shipped split's name (its base policy), a run's checkpoint or a run of one seed;
    `options` are the fields of `Options`. A folder `out` that holds part of the same diagnosis is gone on with; one of
    another is refused with RunError. Raises DataError, SplitError, PolicyError, VerifierError.
    """
    places = resolve(policy)
    if len(places) > 1:
        names = ", ".join(str(place.source) for place in places)
        raise PolicyError(f"{policy} is a run of several seeds ({names}); name one of them, or use diagnose_each.")
    task = Task(Options(**options), _split(split, rollouts), _path(rollouts), max_memory, workers, progress, planned)
    return task.run(places[0], Path(out) if out is not None else task.default_folder(places[0]), revision)


def diagnose_each(
    policies: Sequence[str | Path],
    split: str | Path | Split | None = None,
    *,
    rollouts: str | Path | None = None,
    out: str | Path,
    revision: str | None = None,
    max_memory: int = 4 * GIB,
    workers: int | None = None,
    progress: Progress | None = None,
    planned: Callable[[Memory], None] | None = None,
    **options: Any,
) -> tuple[Diagnosis, ...]:
    """The same at each of several policies; more than one go to a folder each under `out`, with one page over them.

    A policy that cannot be used does not stop the others: its PolicyError is raised after them.
    """
    from unlearnbench.similarity_page import write_comparison

    places = [place for policy in policies for place in resolve(policy)]
    task = Task(Options(**options), _split(split, rollouts), _path(rollouts), max_memory, workers, progress, planned)
    if len(places) == 1:
        return (task.run(places[0], Path(out), revision),)
    found: list[Diagnosis] = []
    failed: list[Exception] = []
    for number, place in enumerate(places, start=1):
        try:
            found.append(task.run(place, Path(out) / f"{number}-{place.label.replace('/', '-')}", revision))
        except (PolicyError, DataError) as problem:
            failed.append(problem)
    if found:
        write_comparison(Path(out), [diagnosis.record for diagnosis in found])
    if failed:
        raise PolicyError(" ".join(str(problem) for problem in failed))
    return tuple(found)


@dataclass(frozen=True)
class Place:
    """Where a policy is: a folder, or a name on the Hub; and what to call it."""

    source: Path | str
    label: str


def resolve(policy: str | Path) -> list[Place]:
    """The policies that a name or folder means: one, or of a run's folder the checkpoint of every seed."""
    folder = Path(policy)
    if not folder.is_dir():
        if isinstance(policy, str) and policy in shipped_splits():
            return [Place(load_split(policy).policy_path, f"{policy}-base")]
        return [Place(str(policy), str(policy))]
    here = folder.resolve()
    if any(folder.glob("*.safetensors")):
        told = here.parent if here.name == "checkpoint" else here
        plain = here.name not in ("checkpoint", "policy", "model")
        return [Place(folder, here.name if plain else f"{told.parent.name}/{told.name}")]
    if (folder / "checkpoint" / "config.json").is_file():
        return [Place(folder / "checkpoint", f"{here.parent.name}/{here.name}")]
    seeds = sorted(path.parent.parent for path in folder.glob("*/checkpoint/config.json"))
    if not seeds:
        raise PolicyError(
            f"{folder} holds neither a policy (config.json and safetensors) nor a run's checkpoints; give one of them."
        )
    return [Place(path / "checkpoint", f"{here.name}/{path.name}") for path in seeds]


def _split(split: str | Path | Split | None, rollouts: str | Path | None) -> Split | None:
    if isinstance(split, Split):
        return split
    return None if split is None and rollouts is not None else load_split(split or "micro")


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


# --- the stages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is asked of every policy, and how it may be computed."""

    options: Options
    split: Split | None
    rollouts: Path | None
    max_memory: int
    workers: int | None
    progress: Progress | None
    planned: Callable[[Memory], None] | None

    def run(self, place: Place, out: Path, revision: str | None) -> Diagnosis:
        """Diagnose one policy into a folder."""
        with locked(out):
            return _Stages(self, place, out, revision).diagnosis()

    def default_folder(self, place: Place) -> Path:
        key = json.dumps([str(place.source), str(self.rollouts), asdict(self.options)], sort_keys=True)
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
        self.revision = weights_hash(place.source) if isinstance(place.source, Path) else revision
        self._policy: Policy | None = None

    def diagnosis(self) -> Diagnosis:
        from unlearnbench.similarity_page import write_page

        self._claim()
        pool = read_pool(
            self.task.split,
            self.task.rollouts,
            self.options.groups,
            self.options.items_per_group,
            self.options.seed,
        )
        facts = self._facts()
        excluded = self._gather(pool, facts)
        used = tables.read_parquet(self.work / "used.parquet").select(["item_id", "group"]).to_pylist()
        if len(used) < 2:
            raise DataError(_too_few(excluded, facts["not_finite"], self.place.label))
        seeds = range(self.options.seed, self.options.seed + self.options.adapter_seeds)
        inners = [self._inner(seed, len(used), facts) for seed in seeds]
        self._policy = None
        kept, lost = _usable(inners, used, self.options)
        if len(kept) < 2:
            raise DataError(_too_few([*excluded, *lost], facts["not_finite"], self.place.label))
        record, found = self._record(inners, [used[i] for i in kept], kept, [*excluded, *lost], facts)
        self._publish_rollouts({used[i]["item_id"] for i in kept})
        self._publish(record, found)
        write_page(self.out, record, found.cosine)
        return Diagnosis(self.out, record, found.cosine, found.reliability)

    def _claim(self) -> None:
        """Bind the folder to this diagnosis. Raises RunError naming what differs where another one is there."""
        split, file = self.task.split, self.task.rollouts
        wanted = json.loads(
            json.dumps(
                {
                    "schema_version": 1,
                    "policy": self.revision or self.job["policy"],
                    "prompt_format": self.job["prompt_format"],
                    "split": None if split is None else split.hash,
                    "rollouts": None if file is None else tables.sha256(file),
                    **asdict(self.options),
                }
            )
        )
        path = self.work / "configuration.json"
        if path.is_file() and any((self.work / "gathered").glob("*.parquet")):
            found = json.loads(path.read_text())
            if different := [key for key in wanted if found.get(key) != wanted[key]]:
                key = different[0]
                raise RunError(
                    f"{self.out} holds a diagnosis with another {key} ({found.get(key)!r} there, {wanted[key]!r} "
                    "here); name another folder with --out, or remove it"
                )
            return
        for left in (self.work / "policy.json", self.work / "used.parquet"):  # of a command that came to nothing
            left.unlink(missing_ok=True)
        tables.write_json(path, wanted)

    def _facts(self) -> dict[str, Any]:
        """What is known of the policy. It is loaded only where that was not found out before."""
        path = self.work / "policy.json"
        if not path.is_file():
            from unlearnbench.item_vectors import described

            tables.write_json(path, described(self._loaded(), self.options.chosen()))
        facts: dict[str, Any] = json.loads(path.read_text())
        if self.revision is None:
            self.revision = facts["revision"]
        if not isinstance(self.place.source, Path):
            self.job["revision"] = self.revision
        return facts

    def _loaded(self) -> Policy:
        from unlearnbench.item_vectors import load

        if self._policy is None:
            self._policy = load(self.job)
        return self._policy

    # --- rollouts ---

    def _gather(self, pool: Pool, facts: Mapping[str, Any]) -> list[Excluded]:
        """Gather every item's rollouts; writes used.parquet, and returns the items that have too few."""
        items = pool.items.to_pylist()
        if not (self.work / "used.parquet").is_file():
            from unlearnbench.item_vectors import CHUNK, gathered_file

            tables.write_parquet(self.work / "items.parquet", pool.items)
            tables.write_parquet(self.work / "given.parquet", pool.given)
            chunks = range(-(-len(items) // CHUNK))
            left = [chunk for chunk in chunks if not gathered_file(self.work, chunk).is_file()]
            split = self.task.split
            protocol = None if split is None else split.config.protocol
            job = {
                **self.job,
                "file": str(pool.file),
                "rule": "strict" if protocol is None else protocol.verifier_rule,
                "root": "" if split is None else stream_root(split, "diagnose", self.options.seed),
                "max_tokens": 0 if protocol is None else protocol.sampling.max_tokens,
                "wanted": self.options.rollouts_per_item,
                "reward": self.options.reward,
                "cap": self.options.cap,
            }
            held = OVERHEAD + facts["weights"]
            workers = self._workers(facts, len(left), held)
            job["memory"] = (self.task.max_memory - _beside(workers)) // workers - held
            jobs = [{**job, "chunks": left[number::workers]} for number in range(workers)]
            self._work("gather", jobs, len(items) - len(left) * CHUNK, len(items))
            gathered = [row for c in chunks for row in tables.read_parquet(gathered_file(self.work, c)).to_pylist()]
            used, excluded = _used(items, gathered, self.options)
            tables.write_records(self.work / "excluded.json", excluded, Excluded)
            tables.write_parquet(self.work / "used.parquet", used)
        return list(tables.read_records(self.work / "excluded.json", Excluded))

    def _publish_rollouts(self, ids: set[str]) -> None:
        rows = tables.read_parquet(self.work / "used.parquet").to_pylist()
        table = [
            {
                "item_id": row["item_id"],
                "group": row["group"],
                "prompt": row["prompt"],
                **rollout,
                "weight": weight,
            }
            for row in rows
            if row["item_id"] in ids
            for rollout, weight in zip(row["rollouts"], row["weights"], strict=True)
        ]
        tables.write_parquet(self.out / "rollouts.parquet", pa.Table.from_pylist(table, schema=_published()))

    # --- gradients ---

    def _inner(self, seed: int, items: int, facts: Mapping[str, Any]) -> Matrix:
        """Inner products of all items' parts with one adapter, computed once and kept."""
        from safetensors.numpy import load, save

        path = self.work / f"inner-{seed}.safetensors"
        if not path.is_file():
            vectors, marks = self.work / f"vectors-{seed}.f32", self.work / f"done-{seed}.u8"
            memory = self._memory(items, facts)
            if self.task.planned:
                self.task.planned(memory)
            self._fill(seed, items, facts, memory, vectors, marks)
            shape = (items, self.options.parts, facts["dimension"])
            stored = np.memmap(vectors, np.float32, "r", shape=shape)
            tile = int(max(1, min(512, self.task.max_memory // (16 * facts["dimension"]))))
            with np.errstate(invalid="ignore", over="ignore"):  # items that are not finite are left out later
                inner = gram(stored, tile)
            tables.write_bytes(path, save({"inner": inner}))
            del stored
            vectors.unlink()
            marks.unlink()
        return np.asarray(load(path.read_bytes())["inner"])

    def _fill(
        self, seed: int, items: int, facts: Mapping[str, Any], memory: Memory, vectors: Path, marks: Path
    ) -> None:
        from unlearnbench.item_vectors import read_items

        if not (marks.is_file() and vectors.is_file() and vectors.stat().st_size == memory.vectors):
            _make(vectors, memory.vectors)
            _make(marks, items)
        done = np.fromfile(marks, np.uint8) > 0
        lengths = [
            len(item.prompt) * self.options.parts + sum(map(len, item.responses)) for item in read_items(self.work)
        ]
        blocks = _blocks(lengths)
        left = [block for block in blocks if not done[slice(*block)].all()]
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
        jobs = [{**job, "blocks": left[number::workers]} for number in range(workers)]
        self._work("gradients", jobs, items - sum(stop - start for start, stop in left), items)

    def _memory(self, items: int, facts: Mapping[str, Any]) -> Memory:
        """What the pass and the stored vectors will take. Raises RunError where it is more than there may be."""
        from unlearnbench.item_vectors import read_items

        longest = max(
            len(item.prompt) + sum(map(len, item.responses[part :: self.options.parts]))
            for item in read_items(self.work)
            for part in range(self.options.parts)
        )
        vectors = items * self.options.parts * facts["dimension"] * 4
        held = OVERHEAD + facts["weights"] * (2 if self.options.parameters != "lora" else 1)
        least = held + int(longest * facts["token"])
        workers = self._workers(facts, items, least)
        free = shutil.disk_usage(self.work).free
        have = sum(path.stat().st_blocks * 512 for path in self.work.glob("vectors-*.f32"))
        if vectors > free + have:
            raise RunError(
                f"the vectors of {items} items take {gib(vectors)} in {self.work}, where {gib(free)} are free; "
                "choose fewer items, or parameters lora"
            )
        affordable = int(((self.task.max_memory - _beside(workers)) / workers - held) / facts["token"])
        tokens = max(longest, min(MAX_TOKENS.get(facts["device"], MAX_TOKENS["cuda"]), affordable))
        per_pass = int(tokens * facts["token"])
        # Inner products with one adapter each, their sum, and two arrays of that size while they are worked on.
        compared = 8 * (items * self.options.parts) ** 2 * (self.options.adapter_seeds + 3)
        if OVERHEAD + compared > self.task.max_memory:
            raise RunError(
                f"comparing {items} items in {self.options.parts} parts takes {gib(OVERHEAD + compared)}, more than "
                "--max-memory; raise it, or choose fewer --items-per-group or --parts"
            )
        return Memory(
            total=max(_beside(workers) + workers * (held + per_pass), OVERHEAD + compared),
            weights=facts["weights"],
            per_pass=per_pass,
            vectors=vectors,
            tokens_per_pass=tokens,
            workers=workers,
        )

    def _workers(self, facts: Mapping[str, Any], pieces: int, each: int) -> int:
        """Processes of so many bytes each, beside this one: as many as asked for, else one a core, if they fit.

        One where the policy is on an accelerator. Raises RunError where not even these may be started.
        """
        wanted = self.task.workers or (1 if facts["device"] != "cpu" else os.cpu_count() or 1)
        if self.task.workers is None:
            wanted = min(wanted, (self.task.max_memory - OVERHEAD) // each)
        workers = int(max(1, min(wanted, pieces)))
        needed = _beside(workers) + workers * each
        if needed > self.task.max_memory:
            raise RunError(
                f"{plural(workers, 'process', 'processes')} would need {gib(needed)} or more, beyond the "
                f"{gib(self.task.max_memory)} of --max-memory; raise it, or choose fewer --workers or more --parts"
            )
        return workers

    def _work(self, kind: str, jobs: Sequence[Mapping[str, Any]], done: int, total: int) -> None:
        """Do jobs in processes of their own, or a single one in this one."""
        finished = max(0, done)

        def tell(items: int) -> None:
            nonlocal finished
            finished += items
            if self.task.progress:
                self.task.progress(kind, finished, total)

        tell(0)
        if len(jobs) > 1:
            self._policy = None
            chains = [[Job(kind, f"process {n} of {kind}", self.work / "log.txt", job)] for n, job in enumerate(jobs)]
            run_chains(chains, len(jobs), lambda event: tell(_items(event)))
            return
        import torch

        from unlearnbench import item_vectors

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums, and with them cosines, depend on their number
        try:
            for job in jobs:
                if job.get("chunks") or job.get("blocks"):
                    act = item_vectors.gather if kind == "gather" else item_vectors.fill
                    act(self._loaded(), job, tell)
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
        options, split = self.options, self.task.split
        parts = options.parts
        whole = len(kept) * parts == len(inners[0])  # copies of inner products are what takes most memory here
        rows = (np.array(kept)[:, None] * parts + np.arange(parts)).ravel()
        groups = [row["group"] for row in used]
        cut = inners if whole else [inner[np.ix_(rows, rows)] for inner in inners]
        found = similarity(cut[0] if len(cut) == 1 else sum(cut[1:], cut[0]), groups, parts, seed=options.seed)
        # With one adapter its own blocks say nothing new; intervals are of the whole.
        each = [similarity(inner, groups, parts, draws=1, seed=options.seed) for inner in cut] if len(cut) > 1 else []
        spread = None
        if each:
            over = np.std([one.cosine for one in each], axis=0, ddof=1)
            spread = float(np.nanmean(over[np.triu_indices(len(over), 1)]))
        seeds = tuple(range(options.seed, options.seed + len(cut))) if options.parameters == "lora" else ()
        order = tuple(block.a for block in found.blocks if block.a == block.b)
        record = SimilarityRecord(
            code_version=__version__,
            policy=self.place.label,
            revision=self.revision,
            split=None if split is None else split.name,
            split_hash=None if split is None else split.hash,
            rollouts_file=None if self.task.rollouts is None else tables.sha256(self.task.rollouts),
            item_ids=tuple(row["item_id"] for row in used),
            groups=tuple(groups),
            group_order=order,
            rollouts_per_item=options.rollouts_per_item,
            parts=parts,
            excluded=tuple(excluded),
            blocks=tuple(block_record(block) for block in found.blocks),
            auc=auc_record(found.auc),
            reliability=tuple(reliability_record(name, found.reliability[np.array(groups) == name]) for name in order),
            reliability_floor=FLOOR,
            by_rollouts=tuple(
                ByRollouts(
                    rollouts=n * options.rollouts_per_item // parts,
                    blocks=tuple(block_record(block) for block in blocks),
                )
                for n, blocks in found.by_rollouts
            ),
            parameters=options.parameters,
            dimension=facts["dimension"],
            adapter_seeds=seeds,
            by_adapter_seed=tuple(
                BySeed(
                    seed=seed,
                    blocks=tuple(
                        block_record(block).model_copy(update={"interval": None, "corrected_interval": None, "p": None})
                        for block in one.blocks
                    ),
                )
                for seed, one in zip(seeds, each, strict=False)
            ),
            pair_spread=spread,
            seed=options.seed,
            options=json.loads(json.dumps({**asdict(options), "prompt_format": self.job["prompt_format"]})),
        )
        return record, found

    def _publish(self, record: SimilarityRecord, found: Similarity) -> None:
        from safetensors.numpy import save

        size = len(record.group_order)
        place = {name: number for number, name in enumerate(record.group_order)}
        raw, corrected = np.full((size, size), np.nan), np.full((size, size), np.nan)
        for block in record.blocks:
            for a, b in ((block.a, block.b), (block.b, block.a)):
                raw[place[a], place[b]] = np.nan if block.raw is None else block.raw
                corrected[place[a], place[b]] = np.nan if block.corrected is None else block.corrected
        arrays = {
            "cosine": found.cosine.astype(np.float32),
            "reliability": found.reliability.astype(np.float32),
            "block_raw": raw,
            "block_corrected": corrected,
        }
        tables.write_bytes(self.out / "similarity.safetensors", save(arrays))
        tables.write_json(self.out / "similarity.json", record)


# --- parts of the stages ------------------------------------------------------------------------------------------


def _published() -> pa.Schema:
    from unlearnbench.item_vectors import ROLLOUT

    head = [(name, pa.string()) for name in ("item_id", "group", "prompt")]
    return pa.schema([*(pa.field(*pair) for pair in head), *ROLLOUT, pa.field("weight", pa.float64())])


def _used(
    items: Sequence[Mapping[str, Any]], gathered: Sequence[Mapping[str, Any]], options: Options
) -> tuple[pa.Table, list[Excluded]]:
    """Items that have all the rollouts that are wanted, with each one's weight; and the others."""
    from unlearnbench.item_vectors import ROLLOUT

    used: list[dict[str, Any]] = []
    excluded: list[Excluded] = []
    for item, row in zip(items, gathered, strict=True):
        reason = ""
        weights = [1.0] * len(row["rollouts"])
        if row["found"] < options.rollouts_per_item:
            what = "correct rollouts" if options.reward == "correct" else "rollouts"
            reason = f"{row['found']} of {options.rollouts_per_item} {what}"
        elif options.reward == "group":
            rewards = np.array([float(rollout["correct"]) for rollout in row["rollouts"]])
            weights = ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)).tolist()  # as GRPO standardises
            reason = "" if rewards.std() > 0 else "all rollouts have the same reward"
        if reason:
            excluded.append(
                Excluded(
                    item_id=item["item_id"],
                    group=item["group"],
                    found=row["found"],
                    sampled=row["sampled"],
                    reason=reason,
                )
            )
        else:
            responses = [rollout["token_ids"] for rollout in row["rollouts"]]
            used.append({**item, **row, "responses": responses, "weights": weights})
    schema = pa.schema(
        [
            ("item_id", pa.string()),
            ("group", pa.string()),
            ("prompt", pa.string()),
            ("prompt_ids", pa.list_(pa.int32())),
            ("found", pa.int32()),
            ("sampled", pa.int32()),
            ("responses", pa.list_(pa.list_(pa.int32()))),
            ("weights", pa.list_(pa.float64())),
            ("rollouts", pa.list_(ROLLOUT)),
        ]
    )
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in used], schema=schema), excluded


def _usable(
    inners: Sequence[Matrix], used: Sequence[Mapping[str, Any]], options: Options
) -> tuple[list[int], list[Excluded]]:
    """Places of the items whose gradient is finite and not 0 with every adapter; and the others."""
    kept: list[int] = []
    lost: list[Excluded] = []
    own = [np.einsum("ipiq->ipq", inner.reshape(2 * (len(used), options.parts))) for inner in inners]
    for place, row in enumerate(used):
        squares = [float(part[place].sum()) for part in own]
        if all(np.isfinite(squares)) and min(squares) > 0:
            kept.append(place)
            continue
        lost.append(
            Excluded(
                item_id=row["item_id"],
                group=row["group"],
                found=options.rollouts_per_item,
                sampled=0,
                reason="its gradient is 0" if all(np.isfinite(squares)) else "its gradient is not finite",
            )
        )
    return kept, lost


def _too_few(excluded: Sequence[Excluded], not_finite: str | None, label: str) -> str:
    if not_finite is not None:
        return f"the policy {label} has weights that are no numbers (in {not_finite}); give a policy that is sound"
    reasons = sorted(
        {row.reason for row in excluded}, key=lambda reason: [row.reason for row in excluded].count(reason)
    )
    told = f" (most often: {reasons[-1]})" if reasons else ""
    return (
        f"fewer than 2 items are left of {label}: {len(excluded)} were excluded{told}; ask for fewer "
        "--rollouts-per-item, raise --cap, or give more items"
    )


def _blocks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of items that are computed together, whatever the memory and the number of processes."""
    blocks: list[tuple[int, int]] = []
    start, held = 0, 0
    for place, length in enumerate(lengths):
        if place - start == BLOCK_ITEMS or (place > start and held + length > BLOCK_TOKENS):
            blocks.append((start, place))
            start, held = place, 0
        held += length
    if lengths:
        blocks.append((start, len(lengths)))
    return blocks


def _beside(workers: int) -> int:
    """Bytes of this process where others do the work."""
    return OVERHEAD if workers > 1 else 0


def _make(path: Path, size: int) -> None:
    """A file of zeros; where the file system can, it takes room as it is filled."""
    with path.open("wb") as file:
        file.truncate(size)


def _items(event: Event) -> int:
    return int(event.get("items", 0))
