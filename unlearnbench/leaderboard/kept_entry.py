"""What an entry shows without its bundle: its answers give its counts, and these its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from unlearnbench.io import files, tables
from unlearnbench.leaderboard.answer_archive import counts_of_answers
from unlearnbench.leaderboard.entries import BoardEntry
from unlearnbench.leaderboard.verification import Reason, Verification, listed
from unlearnbench.leaderboard.verification.claims import miscounted, other_numbers
from unlearnbench.leaderboard.verification.scores import facts_of_result, scored
from unlearnbench.records import Result
from unlearnbench.scoring.fates import SCHEMA, count_fates
from unlearnbench.splits import Split


def shown_without_bundle(
    one: BoardEntry, why: str, find: Callable[[Result], Split], workers: int | None = None
) -> Verification:
    """Check an entry's own files against one another; `why` says why its bundle is not there.

    The entry is never `verified` so: nothing shows that policies gave its answers. Raises SplitError where its split is
    not here, DataError where a file is malformed.
    """
    found = [Reason(check="bundle", reason=reason) for reason in _contradictions(one, find(one.result), workers)]
    rollouts = sum(tables.read_counts(one.folder / "counts.parquet")["n"].to_pylist())
    notes = [f"nothing was measured again: {why}"]
    if not found:
        notes.append(
            f"what it still shows: its {rollouts:,} answers, judged again, give its counts, and these its result; its "
            "source is the one that the result names. It does not show that any policy gave these answers"
        )
    return Verification(
        bundle=str(one.folder),
        verified=False,
        rankable=False,
        reasons=listed(found),
        notes=notes,
        rollouts=rollouts,
        result=one.result,
    )


def _contradictions(one: BoardEntry, split: Split, workers: int | None) -> Iterator[str]:
    if files.sha256(one.source) != one.result.method.source_hash:
        yield f"{one.source} is not the source that result.json names (its hash differs)"
    if one.answers.is_file():
        yield from miscounted(one.counts, counts_of_answers(one.answers, split, workers or os.cpu_count() or 1))
    elif one.entry.tier != "self-reported":
        yield f"{one.answers} is missing, so its counts cannot be judged again"
    yield from other_numbers(one.result, scored(one.counts, split, facts_of_result(one.result)))
    fates = one.folder / "fates.parquet"
    if (
        fates.is_file()
        and count_fates(tables.read_parquet(fates, SCHEMA), split.ids("unlearnable")) != one.result.fates
    ):
        yield f"{fates} does not give the fates in result.json"
