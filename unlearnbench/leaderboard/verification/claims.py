"""What a bundle claims of its runs: configuration, source, seeds, track, and numbers that follow from its files."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.bundles.tables import MOST_ROWS
from unlearnbench.leaderboard.verification.rollouts import problems_of
from unlearnbench.records import READS, TRACKS, MethodRecord, Result, Track
from unlearnbench.scoring.canaries import golds_were_read
from unlearnbench.splits import Split

Check = Literal["configuration", "source"]
ROUNDING = 1e-9
"""Numbers nearer than this are equal: another machine adds in another order."""


def method_record(bundle: Bundle) -> MethodRecord:
    """The method as its seeds' files state it, its track the highest that any of them shows (PROTOCOL 3.9)."""
    seeds = list(bundle.seeds.values())
    reads = sorted({read for seed in seeds for read in (*seed.method.reads, *seed.asked)})
    shown: list[Track] = [seed.method.track for seed in seeds]
    shown += [READS[read] for read in reads if read in READS]
    shown += [track for track in (declared_track(bundle.source),) if track is not None]
    if any(seed.method.start != "base" for seed in seeds):
        shown.append("base")
    return MethodRecord(
        name=seeds[0].config.method,
        source_hash=seeds[0].config.source_hash,
        track=max(shown, key=TRACKS.index),
        reads=reads,
        settings=bundle.first.method.settings,
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
            targets: list[ast.expr] = []
            if isinstance(line, ast.Assign):
                targets = line.targets
            elif isinstance(line, ast.AnnAssign):
                targets = [line.target]
            named = any(isinstance(target, ast.Name) and target.id == "track" for target in targets)
            value = getattr(line, "value", None)
            if named and isinstance(value, ast.Constant) and value.value in TRACKS:
                found.append(value.value)
    return max(found, key=TRACKS.index) if found else None


# --- seeds ----------------------------------------------------------------------------------------------------


def seed_of(text: str) -> int:
    """A seed that nobody can choose: the first four bytes of sha256(text), big-endian, without the first bit."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def retraining_seeds(source_hash: str, split_hash: str, number: int = 3) -> list[int]:
    """The seeds that an entry is trained again with, which nobody can choose: from sha256 of both hashes.

    The i-th is `seed_of("<source hash>/<split hash>/<i>")`; a repeated one is skipped.
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


# --- checks ---------------------------------------------------------------------------------------------------


def misconfigured(bundle: Bundle, split: Split) -> Iterator[tuple[Check, str]]:
    """What does not belong to one run of one source."""
    result, seeds = bundle.result, list(bundle.result.seeds)
    if result.kind != "eval":
        yield "configuration", f"a result of kind {result.kind!r} is never ranked; submit a run of `eval --method`"
        return
    if len(set(seeds)) != len(seeds) or sorted(seeds) != sorted(bundle.seeds):
        yield "configuration", f"result.json has the seeds {seeds}, and the bundle has files of {sorted(bundle.seeds)}"
        return
    yield from _seeds(bundle, split)
    rows = sum(map(len, problems_of(split).values())) * len(seeds) * result.samples
    if rows > MOST_ROWS:
        yield (
            "configuration",
            f"{len(seeds)} seeds x {result.samples} samples are {rows:,} rollouts, above {MOST_ROWS:,}",
        )


def _seeds(bundle: Bundle, split: Split) -> Iterator[tuple[Check, str]]:
    """Files of the seeds against one another, the split and the source."""
    result, source, first = bundle.result, hashlib.sha256(bundle.source).hexdigest(), bundle.first
    for number, seed in bundle.seeds.items():
        root = f"seeds/{number}"
        wanted: dict[str, Any] = {
            "seed": number,
            "split": split.name,
            "split_hash": split.hash,
            "method": result.method.name,
            "samples": result.samples,
            "purpose": "eval",
            "settings": first.config.settings,
            "budget": first.config.budget,
            "start": None,
            "quick": first.config.quick,
            "sampler": first.config.sampler,
        }
        for field, value in wanted.items():
            if (told := getattr(seed.config, field)) != value:
                yield "configuration", f"{root}/config.json, field {field!r}: {told!r:.80} where {value!r:.80} belongs"
        for place, named in (("config", seed.config.source_hash), ("method", seed.method.source_hash)):
            if named != source:
                yield (
                    "source",
                    f"{root}/{place}.json names the source {named[:12]!r}, and {bundle.source_name} is {source[:12]!r}",
                )
        name = seed.method.class_name
        if name and not re.search(rf"\b{name}\b".encode(), bundle.source):
            yield "source", f"{root}/method.json names the class {name!r}, which {bundle.source_name} does not have"
        for field in ("settings", "hooks", "start", "class_name"):
            if getattr(seed.method, field) != getattr(first.method, field):
                yield (
                    "configuration",
                    f"{root}/method.json and seeds/{result.seeds[0]}/method.json differ in {field!r}",
                )


def lower_track(stated: Result, shown: Result) -> Iterator[str]:
    """Whether a lower track is claimed than the files show, or than converted canaries allow."""
    if TRACKS.index(stated.method.track) < TRACKS.index(shown.method.track):
        reads = ", ".join(shown.method.reads) or "nothing through the contract"
        yield (
            f"result.json claims track {stated.method.track}, and what the seeds' files and the source show is "
            f"{shown.method.track} (reads: {reads})"
        )
    if golds_were_read(shown.canaries) and TRACKS.index(shown.method.track) < TRACKS.index("answer"):
        yield (
            f"{shown.canaries.converted} of {shown.canaries.items} canaries are converted: their stored answers are "
            f"wrong on purpose, so the stored answers were read, and the track is not {shown.method.track}"
        )


# --- numbers --------------------------------------------------------------------------------------------------


def miscounted(table: pa.Table, counts: pa.Table) -> Iterator[str]:
    """Differences between counts.parquet and the counts of the rollouts."""
    stated: dict[tuple[str, str, str], tuple[int, int]] = {}
    for row in table.to_pylist():
        key = (row["phase"], row["item_id"], row["run"])
        cell = f"counts.parquet: item {key[1]!r:.60}, phase {key[0]!r:.20}, run {key[2]!r:.20}"
        if row["n"] < 0 or row["correct"] < 0:
            yield f"{cell}: a negative count"
        if key in stated:
            yield f"{cell}: a second row"
        stated[key] = (row["n"], row["correct"])
    for row in counts.to_pylist():
        key = (row["phase"], row["item_id"], row["run"])
        told, made = stated.pop(key, None), (row["n"], row["correct"])
        cell = f"counts.parquet: item {key[1]!r}, phase {key[0]}, seed {key[2]}"
        if told is None:
            yield f"{cell}: the row is missing"
        elif told != made:
            yield f"{cell}: {told[1]} of {told[0]} correct stated, {made[1]} of {made[0]} by the rollouts"
    for phase, item, run in stated:
        yield f"counts.parquet: item {item!r:.60}, phase {phase!r:.20}, run {run!r:.20}: no such rollouts"


def other_numbers(stated: Result, computed: Result) -> Iterator[str]:
    """Fields of result.json that do not follow from the files."""
    if stated.scorer_version != computed.scorer_version:
        yield (
            f"result.json was scored by version {stated.scorer_version!r:.20} of the rules, and the board's is "
            f"{computed.scorer_version}; run the same `eval` command again with this version, then `submit`"
        )
    one, other = (dict(_leaves("", result.model_dump(mode="json"))) for result in (stated, computed))
    for field in dict.fromkeys([*one, *other]):
        told, made = one.get(field), other.get(field)
        words = field == "why_not_comparable" and told and made  # that there is a reason counts, not how it is put
        if field != "scorer_version" and not words and not _same(told, made):
            yield f"result.json, field {field!r:.80}: {told!r:.60} is stated, and {made!r:.60} follows from the files"


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _leaves(f"{name}[{place}]", inner)
    else:
        yield name, value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= ROUNDING * max(1.0, abs(one), abs(other))
    return bool(one == other) and (one is None) == (other is None)
