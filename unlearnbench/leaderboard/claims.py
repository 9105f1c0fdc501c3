"""What a bundle says of how its policies were made: track, cost, budget, fates, ledger. Held against one another.

None of this can be shown from rollouts; it can only be shown to contradict itself.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.harness.run_config import most_flops
from unlearnbench.leaderboard.bundle import Bundle
from unlearnbench.records import DRAWN, FATES, READS, TRACKS, MethodRecord, Result, Track
from unlearnbench.training.meter import flops

if TYPE_CHECKING:
    from unlearnbench.splits import Split

SOURCE = re.compile(r"[\w .:+/-]{0,100}")
"""Names of sources of rollouts; a step without any has an empty one."""
MOST_NUMBER = 2**43
"""Rollouts or tokens that a row of the ledger may have: MOST_LEDGER such rows still add up in 64 bits."""
Check = Literal["track", "budget", "fates"]


def method_record(bundle: Bundle, start: str | None) -> MethodRecord:
    """The method as its seeds' files state it, its track the highest that any of them shows (PROTOCOL 3.9)."""
    seeds = list(bundle.seeds.values())
    reads = sorted({read for seed in seeds for read in (*seed.method.reads, *seed.asked)})
    shown: list[Track] = [seed.method.track for seed in seeds]
    shown += [READS[read] for read in reads if read in READS]
    shown += [track for track in (declared_track(bundle.source),) if track is not None]
    if start is not None or any(seed.method.start != "base" for seed in seeds):
        shown.append("base")
    return MethodRecord(
        name=seeds[0].config.method,
        source_hash=seeds[0].config.source_hash,
        track=max(shown, key=TRACKS.index),
        reads=reads,
        settings=bundle.seeds[bundle.result.seeds[0]].method.settings,
    )


def declared_track(source: bytes) -> Track | None:
    """The highest track that a class of this source declares as a literal; the source is parsed and not run."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            targets = (
                line.targets
                if isinstance(line, ast.Assign)
                else [line.target]
                if isinstance(line, ast.AnnAssign)
                else []
            )
            named = any(isinstance(target, ast.Name) and target.id == "track" for target in targets)
            value = getattr(line, "value", None)
            if named and isinstance(value, ast.Constant) and value.value in TRACKS:
                found.append(value.value)
    return max(found, key=TRACKS.index) if found else None


def seed_of(text: str) -> int:
    """A seed that nobody can choose: the first four bytes of sha256(text), big-endian, without the first bit."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def retraining_seeds(source_hash: str, split_hash: str, number: int = 3) -> list[int]:
    """The seeds that an entry is trained again with, which nobody can choose: from sha256 of both hashes.

    The i-th is `seed_of("<source hash>/<split hash>/<i>")`; one that is there already is passed over.
    """
    seeds: list[int] = []
    place = 0
    while len(seeds) < number:
        seed = seed_of(f"{source_hash}/{split_hash}/{place}")
        seeds += [seed] if seed not in seeds else []
        place += 1
    return seeds


def chosen_by_nobody(seeds: Sequence[int], source_hash: str, split_hash: str) -> bool:
    """Whether seeds are 1, 2, 3, ... or those that an entry is trained again with: none could be picked for luck."""
    return list(seeds) in (list(range(1, len(seeds) + 1)), retraining_seeds(source_hash, split_hash, len(seeds)))


def claims(bundle: Bundle, tables: Mapping[str, pa.Table], split: Split, result: Result) -> Iterator[tuple[Check, str]]:
    """What contradicts itself."""
    yield from _track(bundle, result)
    yield from _costs(bundle, split)
    yield from _ledger(bundle, tables["ledger.parquet"])
    yield from _fates(bundle, tables["fates.parquet"], tables["ledger.parquet"], split)


def _track(bundle: Bundle, result: Result) -> Iterator[tuple[Check, str]]:
    stated, shown = bundle.result.method, result.method
    if TRACKS.index(stated.track) < TRACKS.index(shown.track):
        reads = ", ".join(shown.reads) or "nothing through the contract"
        yield (
            "track",
            (
                f"result.json claims track {stated.track}, and what the seeds' files and the source show is "
                f"{shown.track} (reads: {reads})"
            ),
        )
    if result.canaries.converted and TRACKS.index(shown.track) < TRACKS.index("answer"):
        yield (
            "track",
            (
                f"{result.canaries.converted} of {result.canaries.items} canaries are converted: their stored answers "
                f"are wrong on purpose, so the stored answers were read, and the track is not {shown.track}"
            ),
        )


def _costs(bundle: Bundle, split: Split) -> Iterator[tuple[Check, str]]:
    parameters, stated = split.config.base_policy.parameters, bundle.result.budget
    for number, seed in bundle.seeds.items():
        cost = seed.cost
        if parameters is not None:
            told = flops(parameters, cost.generated_tokens + cost.forward_tokens, cost.trained_tokens)
            if cost.flops != told:
                yield "budget", f"seeds/{number}/cost.json: {cost.flops:,} FLOPs, and its tokens cost {told:,}"
    if stated.limit is not None and bundle.result.comparable:
        most = most_flops(split, stated.multiple or 1.0) or stated.limit
        for number, seed in bundle.seeds.items():
            if seed.cost.flops > most:
                yield "budget", f"seed {number} spent {seed.cost.flops:,} FLOPs, above the limit of {stated.limit:,}"


def _ledger(bundle: Bundle, table: pa.Table) -> Iterator[tuple[Check, str]]:
    spoken = [source for source in pc.unique(table["source"]).to_pylist() if not SOURCE.fullmatch(source)]
    if spoken:
        yield "budget", f"ledger.parquet, field 'source': {spoken[0]!r:.60} names no source of rollouts"
    if pc.any(pc.greater(table["correct"], table["rollouts"])).as_py():
        yield "budget", "ledger.parquet, field 'correct': more correct rollouts than rollouts in a row"
    if table.num_rows and (
        pc.max(table["tokens"]).as_py() >= MOST_NUMBER or pc.max(table["rollouts"]).as_py() >= MOST_NUMBER
    ):
        yield "budget", f"ledger.parquet: a step of {MOST_NUMBER:,} rollouts or tokens and more"
        return
    if table.group_by(["seed", "step", "source"]).aggregate([]).num_rows != table.num_rows:
        yield "budget", "ledger.parquet has two rows of one seed, step and source"
    for name in ("step", "rollouts", "correct", "tokens", "flops"):
        if pc.any(pc.less(table[name], 0)).as_py():
            yield "budget", f"ledger.parquet, field {name!r}: a negative number"
            return
    if strange := set(pc.unique(table["seed"]).to_pylist()) - set(bundle.seeds):
        yield "budget", f"ledger.parquet has rows of seed {sorted(strange)[0]}, which is not in the bundle"
    drawn = pc.is_in(table["source"].cast(pa.string()), pa.array(DRAWN))
    for number, seed in bundle.seeds.items():
        own = table.filter(pc.and_(pc.equal(table["seed"], number), drawn))
        tokens = pc.sum(own["tokens"]).as_py() or 0
        if tokens > seed.cost.generated_tokens:
            yield (
                "budget",
                (
                    f"seed {number}: ledger.parquet shows {tokens:,} drawn tokens, and cost.json says that "
                    f"{seed.cost.generated_tokens:,} were generated"
                ),
            )
        spent = table.filter(pc.equal(table["seed"], number))["flops"].drop_null().to_numpy()
        if len(spent) and (np.any(np.diff(spent) < 0) or spent[-1] > seed.cost.flops):
            yield "budget", f"seed {number}: the FLOPs of ledger.parquet fall, or end above those of cost.json"


def _fates(bundle: Bundle, table: pa.Table, ledger: pa.Table, split: Split) -> Iterator[tuple[Check, str]]:
    if strange := set(pc.unique(table["fate"].cast(pa.string())).to_pylist()) - set(FATES):
        yield "fates", f"fates.parquet, field 'fate': {sorted(strange)[0]!r:.40} is none of {', '.join(FATES)}"
    for name in ("first_correct_step", "rewarded", "rewarded_valid_trace"):
        if pc.any(pc.less(table[name], 0)).as_py():
            yield "fates", f"fates.parquet, field {name!r}: a negative number"
    there = list(zip(table["item_id"].cast(pa.string()).to_pylist(), table["seed"].to_pylist(), strict=True))
    wanted = {(item.item_id, seed) for item in split.items for seed in bundle.seeds}
    if len(there) != len(wanted) or set(there) != wanted:
        yield "fates", f"fates.parquet has {len(there)} rows, and not one of each item and seed ({len(wanted)})"
    rewarded = pc.greater(table["rewarded"], 0)
    solved = pc.not_equal(table["fate"].cast(pa.string()), "never")
    first = pc.is_valid(table["first_correct_step"])
    if not (pc.all(pc.equal(rewarded, solved)).as_py() and pc.all(pc.equal(rewarded, first)).as_py()):
        yield "fates", "fates.parquet: fate, rewarded and first_correct_step of a row contradict one another"
    if pc.any(pc.greater(table["rewarded_valid_trace"], table["rewarded"])).as_py():
        yield "fates", "fates.parquet, field 'rewarded_valid_trace': more than were rewarded"
    for seed in bundle.seeds:
        told = table.filter(pc.equal(table["seed"], seed))["rewarded"].to_pylist()
        seen = ledger.filter(pc.equal(ledger["seed"], seed))["correct"].to_pylist()
        if sum(told) > sum(seen):
            yield (
                "fates",
                f"seed {seed}: fates.parquet has {sum(told):,} rewarded rollouts, and ledger.parquet {sum(seen):,}",
            )
