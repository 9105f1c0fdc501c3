"""Is a bundle true? The story on one page, cheapest checks first; none of the bundle's code is run.

open (bundles/opening.py) → the split → one configuration and source (claims.py) → rollouts complete, and such as the
split's policy can write (rollouts.py) → ledger, visits and costs agree (training_record.py) → counts and result follow
→ the weights are measured again (remeasure.py) → verdicts (rejudge.py) and counts (count_tests.py) are those claimed
→ `Verification`, whose result is the one measured here

What this shows is that the policies of these weights give this result; not how they were trained. Training on a public
split's answers and submitting the weights passes: the re-trained tier is for that (docs, leaderboard).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError, SplitError
from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.bundles.opening import open_bundle
from unlearnbench.leaderboard.bundles.tables import read_tables
from unlearnbench.leaderboard.verification import remeasure
from unlearnbench.leaderboard.verification.agreement import other_counts, other_random_numbers
from unlearnbench.leaderboard.verification.claims import (
    chosen_by_nobody,
    lower_track,
    misconfigured,
    miscounted,
    other_numbers,
)
from unlearnbench.leaderboard.verification.rejudge import altered
from unlearnbench.leaderboard.verification.rollouts import Asked, Drawn, claimed, decoder_of
from unlearnbench.leaderboard.verification.scores import facts_of_bundle, scored
from unlearnbench.leaderboard.verification.training_record import contradictions
from unlearnbench.records import Record, Result
from unlearnbench.scoring.fates import count_fates, fates_of
from unlearnbench.scoring.score import RunFacts
from unlearnbench.splits import Split, load_split, shipped_splits

Check = Literal[
    "archive", "split", "configuration", "source", "rollouts", "training", "counts", "result", "track", "weights",
    "verdicts", "measured", "seeds", "bundle", "rerun",
]  # fmt: skip
Agreement = Literal["identical", "within sampling error"]
MOST_SHOWN = 5
"""Reasons of one check that are listed one by one; the rest is counted."""


class Reason(Record):
    """One thing that is not as it must be."""

    check: Check
    reason: str


class Verification(Record):
    """What `leaderboard verify` found."""

    bundle: str
    verified: bool
    measured: bool = False
    """Whether its weights were measured here."""
    rankable: bool
    """Verified, measured, comparable, and its authors state how many configurations they tried."""
    reasons: Sequence[Reason] = ()
    notes: Sequence[str] = ()
    rollouts: int = 0
    agreement: Agreement | None = None
    """Of the counts claimed with those measured."""
    seconds: float = 0.0
    result: Result | None = None
    """The result as measured here (as claimed, if nothing was measured); None if there is none."""

    @property
    def words(self) -> str:
        if self.verified and self.measured:
            head = f"verified: {self.rollouts:,} rollouts drawn again from its weights; the counts claimed are "
            head += "identical" if self.agreement == "identical" else "within sampling error of those measured"
            lines = [head if self.rankable else f"{head}; not rankable"]
            lines += ["  so its policies give this result; how they were trained, only training again shows"]
        elif self.verified:
            lines = [f"consistent: {self.rollouts:,} rollouts judged again; its weights were not measured"]
        elif self.reasons:
            lines = [f"refused: {len(self.reasons)} reason" + ("s" if len(self.reasons) > 1 else "")]
            lines += [f"  {reason.check}: {reason.reason}" for reason in self.reasons]
        else:
            lines = ["not verified"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Checked:
    """A bundle with its split, its rollouts, and the result that they give."""

    bundle: Bundle
    split: Split
    drawn: Drawn
    """Measured here; as claimed, where nothing was measured."""
    measured: bool
    identical: bool
    tables: Mapping[str, pa.Table]
    result: Result

    @property
    def visits(self) -> pa.Table:
        """Columns as in `scoring.fates.VISITS`."""
        return _plain(self.tables["visits.parquet"])

    @property
    def fates(self) -> pa.Table:
        """Columns as in fates.parquet."""
        return fates_of(self.visits, [item.item_id for item in self.split.items], list(self.result.seeds))


def verify_bundle(
    path: str | Path, split: str | Path | Split | None = None, *, workers: int | None = None, measure: bool = True
) -> Verification:
    """Verify a bundle. `split` is where the run's split lies if it is not a shipped one.

    Without `measure` its weights are not measured, and it is not rankable. Never raises for what is in the bundle.
    Raises SplitError where `split` is none, PolicyError or RunError where this machine cannot measure it, VerifierError
    where the verifier itself fails.
    """
    given = split if split is None or isinstance(split, Split) else load_split(split)
    began = time.monotonic()
    found, checked = examine(Path(path), given, workers=workers, measure=measure)
    return summed_up(str(path), found, checked, time.monotonic() - began)


def summed_up(bundle: str, found: Sequence[Reason], checked: Checked | None, seconds: float) -> Verification:
    """What `examine` found, in one record."""
    if checked is None:
        return Verification(
            bundle=bundle, verified=not found, rankable=False, reasons=listed(found), seconds=round(seconds, 3)
        )
    notes, rankable = standing_of(checked)
    alike: Agreement = "identical" if checked.identical else "within sampling error"
    return Verification(
        bundle=bundle,
        verified=not found,
        measured=checked.measured,
        rankable=rankable and not found,
        reasons=listed(found),
        notes=notes,
        rollouts=int(checked.drawn.text.size),
        agreement=alike if checked.measured and not found else None,
        seconds=round(seconds, 3),
        result=checked.result,
    )


def examine(
    path: Path, split: Split | None = None, *, workers: int | None = None, measure: bool = True
) -> tuple[list[Reason], Checked | None]:
    """The reasons against a bundle, and what it holds where that could be judged and scored.

    A bundle that contradicts itself is refused before its weights are measured.
    """
    try:
        bundle = open_bundle(path)
    except DataError as error:
        return [Reason(check="archive", reason=str(error))], None
    try:
        chosen = _split(bundle, split)
    except (SplitError, DataError) as error:
        return [Reason(check="split", reason=str(error))], None
    if found := [Reason(check=check, reason=reason) for check, reason in misconfigured(bundle, chosen)]:
        return found, None
    asked, decoder = Asked.of(bundle, chosen), decoder_of(chosen)
    max_tokens, rule = chosen.config.protocol.sampling.max_tokens, chosen.config.protocol.verifier_rule
    try:
        read = read_tables(path, bundle.archive.members, asked.sizes(max_tokens, decoder.longest))
        said = claimed(bundle, read["rollouts.parquet"], asked, decoder, max_tokens)
    except DataError as error:
        return [Reason(check="rollouts", reason=str(error))], None
    try:
        facts, stated = _claimed_result(bundle, chosen, said, read["visits.parquet"])
    except DataError as error:
        return [Reason(check="result", reason=str(error))], None
    found += [Reason(check="training", reason=reason) for reason in contradictions(bundle, read, chosen)]
    found += [Reason(check="counts", reason=reason) for reason in miscounted(read["counts.parquet"], said.counts)]
    found += [Reason(check="result", reason=reason) for reason in other_numbers(bundle.result, stated)]
    found += [Reason(check="track", reason=reason) for reason in lower_track(bundle.result, stated)]
    if found:
        return found, None
    if not measure:
        told = altered(said, None, rule, workers or os.cpu_count() or 1)
        found += [Reason(check="verdicts", reason=reason) for reason in told]
        return found, Checked(bundle, chosen, said, False, False, read, stated)
    try:
        remeasure.require_weights_of(bundle, chosen)
        with tempfile.TemporaryDirectory(prefix="unlearnbench-") as scratch:
            drawn = remeasure.measure(bundle, chosen, asked, Path(scratch), workers)
    except DataError as error:
        return [Reason(check="weights", reason=str(error))], None
    try:
        told = altered(said, drawn, rule, workers or os.cpu_count() or 1)
    except DataError as error:
        return [Reason(check="verdicts", reason=str(error))], None
    found += [Reason(check="verdicts", reason=reason) for reason in told]
    identical = np.array_equal(said.correct, drawn.correct)
    result = stated if identical else scored(drawn.counts, chosen, facts)
    if not identical:
        found += [Reason(check="measured", reason=reason) for reason in other_counts(said, drawn, chosen)]
        found += [Reason(check="track", reason=reason) for reason in lower_track(bundle.result, result)]
    found += [Reason(check="seeds", reason=reason) for reason in other_random_numbers(bundle, said, drawn)]
    return found, Checked(bundle, chosen, drawn, True, identical, read, result)


def listed(found: Sequence[Reason]) -> list[Reason]:
    """At most MOST_SHOWN reasons of each check, and how many more there are."""
    shown: list[Reason] = []
    for check in dict.fromkeys(reason.check for reason in found):
        of_check = [reason for reason in found if reason.check == check]
        shown += of_check[:MOST_SHOWN]
        if len(of_check) > MOST_SHOWN:
            shown.append(Reason(check=check, reason=f"and {len(of_check) - MOST_SHOWN} more of this kind"))
    return shown


def standing_of(checked: Checked) -> tuple[list[str], bool]:
    """What else is to be said of a bundle, and whether it can be ranked once it is verified."""
    result, notes = checked.result, []
    if not checked.measured:
        notes.append("not rankable among re-measured entries: its weights were not measured")
    if not result.comparable:
        notes.append(f"not rankable: {result.why_not_comparable}")
    if checked.bundle.statement.tried is None:
        notes.append("not rankable: how many configurations were tried is not stated; `submit --tried N` states it")
    if not chosen_by_nobody(result.seeds, result.method.source_hash, result.split_hash):
        notes.append(f"not rankable: the seeds {list(result.seeds)} could have been chosen for luck; run seeds 1, 2, 3")
    rankable = not notes
    if checked.measured and not checked.identical and checked.bundle.first.config.engine.name != "transformers":
        notes.append("drawn by another sampler: that its rollouts come from its seeds' random numbers was not checked")
    return notes, rankable


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
        f"split_hash {wanted[:64]} of split {name!r} is not known here; known are {told}; results of different labels "
        "are not compared: run `eval` on a known split, or name the split's folder with --split"
    )


# --- what is claimed ------------------------------------------------------------------------------------------


def _claimed_result(bundle: Bundle, split: Split, said: Drawn, visits: pa.Table) -> tuple[RunFacts, Result]:
    items, seeds = [item.item_id for item in split.items], list(bundle.result.seeds)
    fates = count_fates(fates_of(_plain(visits), items, seeds), split.ids("unlearnable"))
    facts = facts_of_bundle(bundle, split, fates)
    return facts, scored(said.counts, split, facts)


def _plain(table: pa.Table) -> pa.Table:
    """A table whose names are texts and no dictionary."""
    place = table.column_names.index("item_id")
    return table.set_column(place, "item_id", table["item_id"].cast(pa.string()))
