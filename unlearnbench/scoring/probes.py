"""The probe of an item: the held-out problem that must be solved with it for a conversion (PROTOCOL 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from unlearnbench.records import Twin, TwinKind
from unlearnbench.splits import Split


def choose_probes(
    twins: Sequence[Twin],
    counts: pa.Table,
    unlearnable: Iterable[str],
    tau: float,
    kind: TwinKind = "changed_numbers",
) -> dict[str, str]:
    """The probe of each unlearnable item that has one, by item id: twin id.

    It is the item's first twin of this kind, in the order of `twins`, that is eligible: rate at most tau at the base
    and after every labelling run. `counts` has columns `twin_id, phase` (base, after)`, run, n, correct`; a twin that
    was not measured is not eligible.
    """
    wanted = set(unlearnable)
    highest: dict[str, float] = {}
    phases: dict[str, set[str]] = {}
    for row in counts.to_pylist():
        rate = row["correct"] / row["n"] if row["n"] else 1.0
        name = row["twin_id"]
        highest[name] = max(rate, highest.get(name, 0.0))
        phases.setdefault(name, set()).add(row["phase"])
    chosen: dict[str, str] = {}
    for twin in twins:
        measured = {"base", "after"} <= phases.get(twin.twin_id, set())
        if twin.kind == kind and twin.item_id in wanted and measured and highest[twin.twin_id] <= tau:
            chosen.setdefault(twin.item_id, twin.twin_id)
    return chosen


def with_probes(twins: Sequence[Twin], chosen: Mapping[str, str]) -> list[Twin]:
    """The same twins, each marked as a probe or not."""
    probes = set(chosen.values())
    return [twin.model_copy(update={"probe": twin.twin_id in probes}) for twin in twins]


def probes_of(split: Split) -> dict[str, str]:
    """The probe of each unlearnable item of a split: as the split marks them, else chosen from its counts."""
    marked = {twin.item_id: twin.twin_id for twin in split.twins if twin.probe}
    counts = split.twin_counts()
    if marked or counts is None:
        return marked
    return choose_probes(split.twins, counts, split.ids("unlearnable"), split.config.protocol.tau)


def probes_are_similar(split: Split) -> bool:
    """Whether a split's probes are generated similar problems, because it has no twins with changed numbers."""
    return any(twin.probe and twin.kind != "changed_numbers" for twin in split.twins)
