"""The audit of a split's verdicts, over its base policy's rollouts (PROTOCOL 4).

rollouts in batches → every different completion judged by the verifier, by the released rule and by a second,
independent grader → where they differ, by group; whose label that would change; what can be guessed; what was
accepted without an answer; whose rollouts are only cut off. Verdicts that were stored with rollouts, of any policy,
are compared with those of today.

Memory does not grow with the number of rollouts: what is kept is a batch, a few integers per item, and how often each
item's answers were stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from unlearnbench import __version__
from unlearnbench.curation.audit.per_item import ItemVerdicts
from unlearnbench.curation.audit.record import Audit, Golds, Relabelled, Stored
from unlearnbench.curation.audit.rejudge import Judges, StoredVerdicts
from unlearnbench.curation.audit.relabel import relabelled
from unlearnbench.curation.validate import inspect
from unlearnbench.errors import DataError
from unlearnbench.io.rollout_store import BASE_ROLLOUTS, find_rollouts, read_all
from unlearnbench.splits import Split, load_split


def audit(
    split: str | Path,
    *,
    rollouts: Sequence[str | Path] = (),
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Audit:
    """Audit the verdicts of a split; `rollouts` are files and folders, by default the split's own base rollouts.

    Where none of them are the base policy's, the split's own are read too. Raises SplitError or DataError naming
    file, row and field; VerifierError where the verifier itself fails.
    """
    chosen = load_split(split)
    inspected = inspect(chosen.path)
    own = chosen.path / BASE_ROLLOUTS
    files = find_rollouts(Path(path) for path in rollouts)
    if own.is_file() and not any(file.base for file in files):
        files += find_rollouts([own])
    if not files:
        raise DataError(
            f"{own} is missing, so there are no base rollouts to audit; name them with --rollouts (curate keeps them "
            "in its output folder: .curation/base)"
        )
    tally = ItemVerdicts(chosen)
    with ExitStack() as stack:
        judges = Judges(chosen, workers, stack)
        stored = StoredVerdicts(judges.golds)
        for batch in read_all(files, progress):
            judged = judges.batch(batch)
            if batch.file.judged:
                stored.add(judged)
            if batch.file.base:
                tally.add(judged, judges)
    others, checked, miscounted = relabelled(chosen, tally.labelling)
    differences = stored.told(files)
    return Audit(
        code_version=__version__,
        split=chosen.name,
        split_hash=chosen.hash,
        rule=judges.rule,
        golds=Golds(n=inspected.golds, unverified=inspected.unverified, ungradable=list(inspected.ungradable)),
        files=[str(file.path) for file in files],
        rollouts=int(tally.n.sum()),
        different=tally.different,
        groups=tally.groups(),
        disagreements=list(tally.told_disagreements()),
        different_disagreements=len(tally.disagreements) + tally.unlisted,
        relabelled=others,
        labels_checked=checked,
        guessable=tally.guessable(),
        only_truncated=tally.only_truncated(),
        stored=differences,
        problems=[*inspected.problems, *miscounted, *_unagreed(chosen, others), *_changed(differences)],
    )


def _unagreed(split: Split, others: Sequence[Relabelled]) -> list[str]:
    return [
        f"{split.path / 'items.parquet'}: item {row.item_id!r} is {row.group} by the verifier's base counts "
        f"({row.correct} of {row.n}) and {row.group_second} by the second grader's ({row.correct_second}); set it aside"
        for row in others
        if "unlearnable" in (row.group, row.group_second)
    ]


def _changed(stored: Stored | None) -> list[str]:
    if stored is None or not stored.differ:
        return []
    return [
        f"{stored.differ:,} of {stored.rollouts:,} stored verdicts are not today's (first: "
        f"{stored.differences[0].file}, row {stored.differences[0].row}); labels and controls that were counted from "
        "them must be made again, under a new label version"
    ]
