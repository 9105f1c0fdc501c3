"""Is a bundle true? Every verdict made anew from its rollouts, every number of its result computed again.

open (bundle.py) → the split → configurations → rollouts complete → verdicts → counts → result → track, budget, ledger
→ originality → `Verification`

The code that a bundle holds is read as text and never run. What this can show is that the numbers follow from the
rollouts; not that the policy of an honest run wrote them (docs/guide/leaderboard.md).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError, SplitError
from unlearnbench.harness.run_config import total_cost, why_unfair
from unlearnbench.leaderboard.bundle import Bundle, open_bundle
from unlearnbench.leaderboard.bundle_tables import MOST_ROWS
from unlearnbench.leaderboard.claims import chosen_by_nobody, claims, method_record
from unlearnbench.leaderboard.copy_detection import (
    Cellwise,
    Copy,
    borrowed_texts,
    copied_cells,
    copied_seeds,
    fixed_text,
    same_texts,
)
from unlearnbench.leaderboard.rejudge import Judged, evaluated, judge, problems_of
from unlearnbench.records import Fates, Record, Result, SpentBudget
from unlearnbench.scoring import score
from unlearnbench.scoring.fates import count_fates
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split, load_split, shipped_splits

Check = Literal[
    "archive", "split", "configuration", "source", "rollouts", "verdicts", "counts", "result", "track", "budget",
    "fates", "copies", "fixed_text", "borrowed", "rerun",
]  # fmt: skip
UNSETTLED: tuple[Check, ...] = ("fixed_text", "borrowed")
"""Reasons that training again settles: what looks put in may have been learned by heart."""
MOST_TOLD = 5
"""Reasons of one check that are told one by one; the rest is counted."""
ROUNDING = 1e-9
"""Numbers nearer than this are the same: another machine adds in another order. The board shows the number computed
here, whatever the bundle says."""


class Reason(Record):
    """One thing that is not as it must be."""

    check: Check
    reason: str


class Verification(Record):
    """What `leaderboard verify` found."""

    bundle: str
    verified: bool
    rankable: bool
    """Verified, comparable, and its authors state how many configurations they tried."""
    reasons: Sequence[Reason] = ()
    notes: Sequence[str] = ()
    rollouts: int = 0
    seconds: float = 0.0
    result: Result | None = None
    """As computed here; None where it came to no result."""

    @property
    def words(self) -> str:
        if self.verified:
            head = f"verified: {self.rollouts:,} rollouts judged anew, every number computed again"
            lines = [head if self.rankable else f"{head}; not rankable"]
            lines += ["  so its numbers follow from its rollouts; that a policy wrote those, only training again shows"]
        else:
            lines = [f"refused: {len(self.reasons)} reason" + ("s" if len(self.reasons) > 1 else "")]
            lines += [f"  {reason.check}: {reason.reason}" for reason in self.reasons]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Checked:
    """A bundle with its split, its judged rollouts and the result that they give."""

    bundle: Bundle
    split: Split
    judged: Judged
    result: Result


def verify_bundle(
    path: str | Path, split: str | Path | Split | None = None, *, workers: int | None = None
) -> Verification:
    """Verify a bundle. `split` is where the run's split lies if it is not a shipped one.

    Never raises for what is in the bundle. Raises SplitError where `split` is none, VerifierError where the verifier
    itself fails.
    """
    began = time.monotonic()
    given = None if split is None else split if isinstance(split, Split) else load_split(split)
    found, checked = examine(Path(path), given, workers=workers)
    bundle_notes, rankable = ([], False) if checked is None else standing_of(checked)
    return Verification(
        bundle=str(path),
        verified=not found,
        rankable=rankable and not found,
        reasons=_told(found),
        notes=bundle_notes,
        rollouts=0 if checked is None else checked.judged.rows,
        seconds=round(time.monotonic() - began, 3),
        result=None if checked is None else checked.result,
    )


def examine(path: Path, split: Split | None, *, workers: int | None = None) -> tuple[list[Reason], Checked | None]:
    """The reasons against a bundle, and what it holds where that could be judged and scored."""
    try:
        bundle = open_bundle(path)
    except DataError as error:
        return [Reason(check="archive", reason=str(error))], None
    try:
        chosen = _split(bundle, split)
    except (SplitError, DataError) as error:
        return [Reason(check="split", reason=str(error))], None
    found = [Reason(check=check, reason=reason) for check, reason in _configuration(bundle, chosen)]
    if found:
        return found, None
    cells = sum(map(len, evaluated(bundle, chosen).values())) * len(bundle.seeds)
    most = {"counts.parquet": cells, "fates.parquet": len(chosen.items) * len(bundle.seeds)}
    try:
        read = bundle.tables(cells * bundle.result.samples, most)
        judged = judge(bundle, read["rollouts.parquet"], chosen, workers or os.cpu_count() or 1)
    except DataError as error:
        return [Reason(check="rollouts", reason=str(error))], None
    found += [Reason(check="verdicts", reason=reason) for reason in judged.altered]
    found += [Reason(check="counts", reason=reason) for reason in _counts(read["counts.parquet"], judged.counts)]
    try:
        result = _result(bundle, chosen, judged.counts, _fates(read["fates.parquet"], chosen))
    except DataError as error:
        return [*found, Reason(check="result", reason=str(error))], None
    found += [Reason(check="result", reason=reason) for reason in _altered(bundle.result, result)]
    checked = Checked(bundle, chosen, judged, result)
    found += [Reason(check=check, reason=reason) for check, reason in claims(bundle, read, chosen, result)]
    found += [Reason(check=check, reason=reason) for check, reason in _originality(checked)]
    return found, checked


def _told(found: Sequence[Reason]) -> list[Reason]:
    """At most MOST_TOLD reasons of each check, and how many more there are."""
    told: list[Reason] = []
    for check in dict.fromkeys(reason.check for reason in found):
        of_check = [reason for reason in found if reason.check == check]
        told += of_check[:MOST_TOLD]
        if len(of_check) > MOST_TOLD:
            told.append(Reason(check=check, reason=f"and {len(of_check) - MOST_TOLD} more of this kind"))
    return told


def standing_of(checked: Checked) -> tuple[list[str], bool]:
    """What else is to be said of a bundle, and whether it can be ranked once it is verified."""
    result, notes = checked.result, []
    if not result.comparable:
        notes.append(f"not rankable: {result.why_not_comparable}")
    if checked.bundle.statement.tried is None:
        notes.append("not rankable: how many configurations were tried is not stated; `submit --tried N` states it")
    if not chosen_by_nobody(result.seeds, result.method.source_hash, result.split_hash):
        notes.append(f"not rankable: the seeds {list(result.seeds)} could have been chosen for luck; run seeds 1, 2, 3")
    return notes, not notes


# --- the split and the configuration --------------------------------------------------------------------------


def _split(bundle: Bundle, given: Split | None) -> Split:
    """The split with the labels that the result names. Raises SplitError where it is not known."""
    name, wanted = bundle.result.split, bundle.result.split_hash
    known = [given] if given is not None else [load_split(shipped) for shipped in shipped_splits()]
    for split in known:
        if split.hash == wanted and split.name == name:
            _ = split.items  # of a split whose texts are not here, SplitError says how to get them
            return split
    told = ", ".join(f"{split.name} ({split.hash[:12]})" for split in known) or "none"
    raise SplitError(
        f"split_hash {wanted[:64]} of split {name!r} is not known here; known are {told}; labels of another version "
        "are not compared: run `eval` on this one, or name the split's folder with --split"
    )


def _configuration(bundle: Bundle, split: Split) -> Iterator[tuple[Check, str]]:
    """Whether seeds, configuration and source are those of one run."""
    result, seeds = bundle.result, list(bundle.result.seeds)
    if result.kind != "eval":
        yield "configuration", f"a result of kind {result.kind!r} is never ranked; submit a run of `eval --method`"
        return
    if not seeds:
        yield "configuration", "result.json has no seed, so there is nothing to verify"
        return
    if len(set(seeds)) != len(seeds) or sorted(seeds) != sorted(bundle.seeds):
        yield "configuration", f"result.json has the seeds {seeds}, and the bundle has files of {sorted(bundle.seeds)}"
        return
    source = hashlib.sha256(bundle.source).hexdigest()
    first = bundle.seeds[seeds[0]]
    for number, seed in bundle.seeds.items():
        config, where = seed.config, f"seeds/{number}/config.json"
        wanted: dict[str, Any] = {
            "seed": number,
            "split": split.name,
            "split_hash": split.hash,
            "method": result.method.name,
            "samples": result.samples,
            "purpose": "eval",
            "settings": first.config.settings,
            "budget": first.config.budget,
            "start": first.config.start,
            "quick": first.config.quick,
        }
        for field, value in wanted.items():
            if getattr(config, field) != value:
                yield (
                    "configuration",
                    f"{where}, field {field!r}: {getattr(config, field)!r:.80}, and not {value!r:.80}",
                )
        for place, told in ((where, config.source_hash), (f"seeds/{number}/method.json", seed.method.source_hash)):
            if told != source:
                yield "source", f"{place} names the source {told[:12]!r}, and {bundle.source_name} is {source[:12]!r}"
        named = seed.method.class_name
        if named and not re.search(rf"\b{named}\b".encode(), bundle.source):
            yield "source", f"seeds/{number}/method.json names the class {named!r}, and {bundle.source_name} has none"
        if seed.method.settings != first.method.settings:
            yield "configuration", f"seeds/{number}/method.json has other settings than seeds/{seeds[0]}/method.json"
    rows = sum(len(ids) for ids in problems_of(split).values()) * len(seeds) * result.samples
    if rows > MOST_ROWS:
        yield (
            "configuration",
            f"{len(seeds)} seeds x {result.samples} samples are {rows:,} rollouts, above {MOST_ROWS:,}",
        )


# --- numbers --------------------------------------------------------------------------------------------------


def _counts(table: pa.Table, counts: pa.Table) -> Iterator[str]:
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


def _result(bundle: Bundle, split: Split, counts: pa.Table, fates: Fates) -> Result:
    """The result that these counts give, by the package's own score, with the board's own controls."""
    stated, seeds = bundle.result, list(bundle.result.seeds)
    config = bundle.seeds[seeds[0]].config
    used = [bundle.seeds[seed].cost.flops for seed in seeds]
    limit = None if split.config.budget is None else round(split.config.budget.flops_1x * config.budget)
    null = None if config.quick else split.control("null_control", f"{config.budget:g}x")
    why = why_unfair(split, config.budget, len(seeds), used, quick=config.quick)
    if why is not None:
        why = stated.why_not_comparable or why  # which words say so is no number
    return score.score(
        split,
        counts,
        method=method_record(bundle, config.start),
        seeds=seeds,
        samples=stated.samples,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(multiple=config.budget, limit=limit, used=used),
        cost=total_cost([bundle.seeds[seed].cost for seed in seeds]),
        fates=fates,
        null=null,
        strong_null=split.control("strong_null") if config.budget == 1 and not config.quick else None,
        why_not_comparable=why,
        code_version=stated.code_version,
    )


def _fates(table: pa.Table, split: Split) -> Fates:
    plain = table.set_column(table.column_names.index("item_id"), "item_id", table["item_id"].cast(pa.string()))
    plain = plain.set_column(plain.column_names.index("fate"), "fate", plain["fate"].cast(pa.string()))
    return count_fates(plain, split.ids("unlearnable"))


def _altered(stated: Result, computed: Result) -> Iterator[str]:
    """Fields of result.json that are not what the rollouts give."""
    if stated.scorer_version != computed.scorer_version:
        yield (
            f"result.json was scored by version {stated.scorer_version!r:.20} of the rules, and the board's is "
            f"{computed.scorer_version}; give the same `eval` command again with this version, then `submit`"
        )
    one, other = (dict(_leaves("", result.model_dump(mode="json"))) for result in (stated, computed))
    for field in dict.fromkeys([*one, *other]):
        told, made = one.get(field), other.get(field)
        if field != "scorer_version" and not _same(told, made):
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


# --- originality ----------------------------------------------------------------------------------------------


def _items(judged: Judged, split: Split) -> tuple[list[str], Counts, Counts]:
    """Items; of each problem, the place among them of the one that it belongs to, and the code of that one's reference
    solution (-1 if no rollout is that text)."""
    codes = {text: code for code, text in enumerate(judged.texts)}
    solutions = {item.item_id: item.solution for item in split.items}
    twins = {twin.twin_id: twin.item_id for twin in split.twins}
    own = [twins[name] if phase == "twin" else name for phase, name in zip(judged.phases, judged.names, strict=True)]
    places = {name: place for place, name in enumerate(dict.fromkeys(own))}
    return (
        list(places),
        np.array([places[name] for name in own]),
        np.array([codes.get(solutions.get(name, ""), -1) for name in own]),
    )


def _originality(checked: Checked) -> Iterator[tuple[Check, str]]:
    judged, split = checked.judged, checked.split
    cells = Cellwise(judged.text, judged.problem, judged.seed)

    def named(copy: Copy) -> str:
        return " and ".join(
            f"{judged.names[cells.problem[c]]!r} of seed {cells.seed[c]}" for c in (copy.first, copy.second)
        )

    for copy in copied_cells(cells):
        yield (
            "copies",
            f"the rollouts of {named(copy)} are the same text in {copy.matches} of {cells.text.shape[1]} samples; "
            f"independent draws give that anywhere in a bundle with a chance below {max(copy.chance, 1e-300):.0e}",
        )
    labels = {item.item_id: f"group {item.group}" for item in split.items}
    groups = [
        labels.get(name, phase) if phase == "eval" else phase
        for phase, name in zip(judged.phases, judged.names, strict=True)
    ]
    for one, other, group, apart in copied_seeds(cells, groups):
        yield (
            "copies",
            f"the texts of seeds {one} and {other} ({group}) are {-apart:.0f} standard deviations more alike than two "
            "draws of one policy: one was copied from the other, in another order",
        )
    for copy in same_texts(cells):
        yield (
            "copies",
            f"the rollouts of {named(copy)} are the same {copy.matches} texts, in whatever order; independent draws "
            f"give that anywhere in a bundle with a chance below {max(copy.chance, 1e-300):.0e}",
        )
    unlearnable = set(split.ids("unlearnable"))
    core = np.array(
        [phase == "eval" and name in unlearnable for phase, name in zip(judged.phases, judged.names, strict=True)]
    )
    own, item, reference = _items(judged, split)
    problem = cells.problem
    for borrowed in borrowed_texts(cells, judged.right, item[problem], reference[problem], core[problem]):
        here, there = own[item[problem[borrowed.first]]], own[borrowed.other]
        yield (
            "borrowed",
            f"seed {borrowed.seed} answers {borrowed.borrowed} of the {borrowed.solved} unlearnable items that it "
            f"solves in the words of other problems ({here!r} in those of {there!r}): rollouts were copied between "
            "items, or answers learned by heart; only training again can tell",
        )
    for seed in np.unique(cells.seed).tolist():
        rows = np.flatnonzero(core[cells.problem] & (cells.seed == seed))
        codes = cells.text[rows].reshape(-1)
        pair = judged.pair[rows].reshape(-1)
        fixed = fixed_text(
            [judged.texts[code] for code in codes.tolist()],
            [judged.stated[place] for place in pair.tolist()],
            judged.right[rows].reshape(-1),
            np.repeat(cells.problem[rows], cells.text.shape[1]),
            cells.text.shape[1],
        )
        if fixed is not None:
            yield (
                "fixed_text",
                f"seed {seed} answers {fixed.problems} unlearnable items with one fixed text, {fixed.text!r:.60}, "
                f"around {fixed.answers} different right answers (right in {100 * fixed.precision:.0f} % of its uses): "
                "answers were put in, or learned by heart; only training again can tell",
            )
