"""The result of a diagnosis: the record in similarity.json, and the object that `diagnose` returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.diagnosis.similarity import FLOOR, Auc, Block, Matrix, Of, Similarity, group_order
from unlearnbench.records import Record


class Excluded(Record):
    """An item that takes no part, with the rollouts found of it and why."""

    item_id: str
    group: str
    found: int
    sampled: int
    reason: str


class BlockRecord(Record):
    """A `similarity.Block`; undefined values are null."""

    a: str
    b: str
    pairs: int
    raw: float | None
    corrected: float | None
    interval: tuple[float, float] | None
    corrected_interval: tuple[float, float] | None
    p: float | None
    reliable_items: int
    of: Of = "all"


class AucRecord(Record):
    """A `similarity.Auc`; n: learnable and unlearnable items."""

    value: float
    interval: tuple[float, float] | None
    n: tuple[int, int]


class GroupReliability(Record):
    """Reliability of a group's items: quartiles, and how many reach the floor of corrected means."""

    group: str
    items: int
    low: float | None
    median: float | None
    high: float | None
    above_floor: int


class ByRollouts(Record):
    """Raw block means from fewer rollouts of each item."""

    rollouts: int
    blocks: tuple[BlockRecord, ...]


class BySeed(Record):
    """Block means with one adapter alone."""

    seed: int
    blocks: tuple[BlockRecord, ...]


class Memory(Record):
    """Bytes as planned: of all processes together, of the policy's weights in one, of a pass, of stored vectors.

    `longest`: tokens of the longest rollout with its prompt; `divided`: parts of items that take several passes.
    """

    total: int
    weights: int
    per_pass: int
    vectors: int
    tokens_per_pass: int
    longest: int
    divided: int
    workers: int


class SimilarityRecord(Record):
    """similarity.json. Blocks of several adapters are those of their inner products summed.

    `source` is what the policy's folder holds (`policy_place.fingerprint`), or its name on the Hub and the revision
    asked for.
    """

    schema_version: Literal[1] = 1
    code_version: str
    policy: str
    source: str
    revision: str | None
    split: str | None
    split_hash: str | None
    rollouts_file: str | None
    item_ids: tuple[str, ...]
    groups: tuple[str, ...]
    group_order: tuple[str, ...]
    rollouts_per_item: int
    parts: int
    excluded: tuple[Excluded, ...]
    blocks: tuple[BlockRecord, ...]
    auc: AucRecord | None
    matched: tuple[BlockRecord, ...] = ()
    """Blocks of pairs of one skill, and of two; empty where the items have no families."""
    auc_other_skills: AucRecord | None = None
    reliability: tuple[GroupReliability, ...]
    reliability_floor: float
    by_rollouts: tuple[ByRollouts, ...]
    parameters: str
    dimension: int
    adapter_seeds: tuple[int, ...]
    by_adapter_seed: tuple[BySeed, ...]
    pair_spread: float | None
    seed: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Diagnosis:
    """What was found at one policy: arrays over `item_ids`, and the record that similarity.json holds."""

    folder: Path
    record: SimilarityRecord
    cosine: Matrix  # (items, items)
    reliability: NDArray[np.float64]  # (items,)

    @property
    def item_ids(self) -> tuple[str, ...]:
        return self.record.item_ids

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each item."""
        return self.record.groups

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        return self.record.blocks

    @property
    def auc(self) -> AucRecord | None:
        return self.record.auc

    @property
    def excluded(self) -> tuple[Excluded, ...]:
        return self.record.excluded

    def block(self, a: str, b: str) -> BlockRecord:
        """The block of two groups, in either order. Raises KeyError if there is none."""
        for block in self.record.blocks:
            if {block.a, block.b} == {a, b}:
                return block
        raise KeyError((a, b))


@dataclass(frozen=True)
class LeftOut:
    """Of a group: how many items there were to compare, how many of them were left out, and why, the most first."""

    group: str
    items: int
    left_out: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def why(self) -> str:
        """The reasons, counted where there are several."""
        if len(self.reasons) == 1:
            return self.reasons[0][0]
        return "; ".join(f"{count} {reason}" for reason, count in self.reasons)


def left_out(record: SimilarityRecord) -> tuple[LeftOut, ...]:
    """Every group that was to be compared, in the order of groups, with those of its items that take no part."""
    few = "too few " + ("rollouts" if record.options["reward"] == "group" else "correct rollouts")
    found = []
    for group in group_order([*record.groups, *(row.group for row in record.excluded)]):
        gone = [row for row in record.excluded if row.group == group]
        reasons = Counter(few if row.found < record.rollouts_per_item else row.reason for row in gone)
        found.append(LeftOut(group, record.groups.count(group) + len(gone), len(gone), tuple(reasons.most_common())))
    return tuple(found)


def block_record(block: Block) -> BlockRecord:
    return BlockRecord(**{**asdict(block), "raw": block.raw if np.isfinite(block.raw) else None})


def auc_record(auc: Auc | None) -> AucRecord | None:
    return AucRecord(**asdict(auc)) if auc is not None and np.isfinite(auc.value) else None


def reliability_record(name: str, values: NDArray[np.float64]) -> GroupReliability:
    finite = values[np.isfinite(values)]
    low, median, high = np.quantile(finite, [0.25, 0.5, 0.75]).tolist() if len(finite) else (None, None, None)
    return GroupReliability(
        group=name, items=len(values), low=low, median=median, high=high, above_floor=int((finite >= FLOOR).sum())
    )


def findings(found: Similarity, groups: Sequence[str], rollouts_per_item: int, parts: int) -> dict[str, Any]:
    """The fields of a record that follow from the inner products alone."""
    order = tuple(block.a for block in found.blocks if block.a == block.b)
    return {
        "groups": tuple(groups),
        "group_order": order,
        "rollouts_per_item": rollouts_per_item,
        "parts": parts,
        "blocks": tuple(block_record(block) for block in found.blocks),
        "auc": auc_record(found.auc),
        "matched": tuple(block_record(block) for block in found.matched),
        "auc_other_skills": auc_record(found.auc_other_skills),
        "reliability": tuple(reliability_record(name, found.reliability[np.array(groups) == name]) for name in order),
        "reliability_floor": FLOOR,
        "by_rollouts": tuple(
            ByRollouts(rollouts=n * rollouts_per_item // parts, blocks=tuple(block_record(block) for block in blocks))
            for n, blocks in found.by_rollouts
        ),
    }


def by_seed(seeds: Sequence[int], each: Sequence[Similarity]) -> tuple[tuple[BySeed, ...], float | None]:
    """Block means with each adapter alone, and the spread of a pair's cosine over them; of one adapter, nothing."""
    if len(each) < 2:
        return (), None
    own = {"interval": None, "corrected_interval": None, "p": None}  # intervals are of the whole
    records = tuple(
        BySeed(seed=seed, blocks=tuple(block_record(block).model_copy(update=own) for block in one.blocks))
        for seed, one in zip(seeds, each, strict=True)
    )
    over = np.std([one.cosine for one in each], axis=0, ddof=1)
    return records, float(np.nanmean(over[np.triu_indices(len(over), 1)]))


def block_means(record: SimilarityRecord) -> tuple[Matrix, Matrix]:
    """Raw and corrected block means, (groups, groups) in `group_order`; undefined ones are NaN."""
    place = {name: number for number, name in enumerate(record.group_order)}
    raw, corrected = (np.full((len(place), len(place)), np.nan) for _ in range(2))
    for block in record.blocks:
        for a, b in ((block.a, block.b), (block.b, block.a)):
            raw[place[a], place[b]] = np.nan if block.raw is None else block.raw
            corrected[place[a], place[b]] = np.nan if block.corrected is None else block.corrected
    return raw, corrected


def gib(size: int) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
