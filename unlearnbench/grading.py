"""The audit of a split's verdicts, over its base policy's rollouts (PROTOCOL 4).

rollouts in batches → every different completion judged by the verifier, by the released rule and by a second,
independent grader → where they differ, by group; whose label that would change; what can be guessed; what was
accepted without an answer; whose rollouts are only cut off. Verdicts that were stored with rollouts, of any policy,
are compared with those of today.

Memory does not grow with the number of rollouts: what is kept is a batch, a few integers an item, and how often each
item's answers were stated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unlearnbench import __version__
from unlearnbench.audit import inspect
from unlearnbench.errors import DataError, VerifierError
from unlearnbench.labels import label_items
from unlearnbench.rates import clopper_pearson
from unlearnbench.records import GROUPS, Interval, Reason, Record, Rule, Verdict
from unlearnbench.second_grader import SecondGrader
from unlearnbench.splits import Split, load_split
from unlearnbench.stored import BASE_ROLLOUTS, StoredBatch, StoredFile, distinct, find_rollouts, read_all
from unlearnbench.verifier import Verifier

LISTED = 20
"""Stored verdicts that differ are listed up to this many different ones; all are counted."""
DISAGREEMENTS = 500
"""The same of disagreements between the two graders."""
GUESSABLE = 0.5
"""An item whose most frequent answer is stated more often than this is named."""
TAIL = 120
"""Characters of a completion that are shown, from its end."""

Counts = NDArray[np.int64]


# --- what the audit says --------------------------------------------------------------------------------------


class Share(Record):
    """`count` of `n` rollouts, with the exact 95 % interval of the rate; null where n is 0.

    The interval takes rollouts for independent; those of one item are not, so it is too narrow where few items tell.
    """

    count: int
    n: int
    rate: float | None
    interval: Interval | None


class Guesses(Record):
    """How often an item's most frequent answer was stated, over the items of a group that have rollouts."""

    items: int
    median: float | None
    ninetieth: float | None
    above_half: int
    gold: int
    """Items whose most frequent answer is right."""


class GroupAudit(Record):
    items: int
    rollouts: int
    accepted: int
    false_negatives: Share
    """Of the rollouts that the second grader accepts, those that the verifier refuses."""
    false_positives: Share
    """Of those that the second grader refuses, those that the verifier accepts."""
    unknown: Share
    """Of all, those that the second grader cannot read."""
    answerless: Share
    """Of the rollouts accepted under the rule `paper`, those that state no answer under `strict`."""
    truncated: Share
    """Of the rollouts whose end is known, those that met the length limit."""
    guesses: Guesses


class Disagreement(Record):
    item_id: str
    group: str
    gold: str
    answer: str | None
    reason: Reason
    verifier: bool
    second: bool
    count: int
    completion: str
    """The end of one of these completions."""


class Guessable(Record):
    item_id: str
    group: str
    answer: str
    count: int
    n: int
    rate: float
    gold: bool


class Relabelled(Record):
    """An item whose group would be another if the second grader had counted its base rollouts."""

    item_id: str
    group: str
    group_second: str
    correct: int
    correct_second: int
    n: int


class StoredDifference(Record):
    """A stored verdict that today's verifier does not repeat. `file` and `row` are its first."""

    file: str
    row: int
    problem_id: str
    gold: str
    stored: bool
    correct: bool
    answer: str | None
    reason: Reason
    count: int
    completion: str


class Stored(Record):
    """Stored verdicts against today's, over all files that carry some."""

    files: int
    rows: int
    rollouts: int
    differ: int
    """Rollouts whose stored verdict is not today's."""
    without: int
    """Rollouts whose stored verdict is null: the verifier had failed."""
    differences: Sequence[StoredDifference]


class Golds(Record):
    n: int
    unverified: int


class Audit(Record):
    """What `splits validate --audit` found. Rates are fractions; every rate stands beside its n."""

    schema_version: Literal[1] = 1
    code_version: str
    split: str
    split_hash: str
    rule: Rule
    golds: Golds
    files: Sequence[str]
    rollouts: int
    different: int
    """Different completions of an item, as they came in batches: how many were judged."""
    groups: Mapping[str, GroupAudit]
    disagreements: Sequence[Disagreement]
    different_disagreements: int
    relabelled: Sequence[Relabelled]
    labels_checked: int
    """Items whose label was made again with the second grader's counts."""
    guessable: Sequence[Guessable]
    only_truncated: Sequence[str]
    """Items at or below tau whose every wrong rollout met the length limit (PROTOCOL 4)."""
    stored: Stored | None
    problems: Sequence[str]
    """What is wrong with the split, a sentence each; what only deserves to be known is not among them."""


# --- the audit ------------------------------------------------------------------------------------------------


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
    tally = _Tally(chosen)
    rule = chosen.config.protocol.verifier_rule
    with ExitStack() as stack:
        judges = _Judges(rule, workers, stack)
        for batch in read_all(files, progress):
            tally.add(batch, judges)
    relabelled, checked, counted = tally.labels()
    stored = tally.stored.told(files)
    return Audit(
        code_version=__version__,
        split=chosen.name,
        split_hash=chosen.hash,
        rule=rule,
        golds=Golds(n=inspected.golds, unverified=inspected.unverified),
        files=[str(file.path) for file in files],
        rollouts=int(tally.n.sum()),
        different=tally.different,
        groups=tally.groups(),
        disagreements=list(tally.told_disagreements()),
        different_disagreements=len(tally.disagreements) + tally.unlisted,
        relabelled=relabelled,
        labels_checked=checked,
        guessable=tally.guessable(),
        only_truncated=tally.only_truncated(),
        stored=stored,
        problems=[*inspected.problems, *counted, *_unagreed(chosen, relabelled), *_changed(stored)],
    )


def _unagreed(split: Split, relabelled: Sequence[Relabelled]) -> list[str]:
    return [
        f"{split.path / 'items.parquet'}: item {row.item_id!r} is {row.group} by the verifier's base counts "
        f"({row.correct} of {row.n}) and {row.group_second} by the second grader's ({row.correct_second}); set it aside"
        for row in relabelled
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


class _Judges:
    """The verifier under the split's rule, under `strict` and `paper`, and the second grader."""

    def __init__(self, rule: Rule, workers: int, stack: ExitStack) -> None:
        rules: tuple[Rule, ...] = (rule, "strict", "paper")
        self.rule = rule
        self._verifiers = {name: stack.enter_context(Verifier(name, workers=workers)) for name in dict.fromkeys(rules)}
        self.second = stack.enter_context(SecondGrader())

    def judge(self, pairs: Sequence[tuple[str, str]], rule: Rule | None = None) -> list[Verdict]:
        """Verdicts of today on pairs of gold and completion, under `rule` or the split's. Raises VerifierError."""
        verdicts = self._verifiers[rule or self.rule].verify_many(pairs)
        for (gold, completion), verdict in zip(pairs, verdicts, strict=True):
            if verdict.correct is None:
                raise VerifierError(
                    f"the verifier failed twice on {completion[-TAIL:]!r} against {gold!r}; run the same command again"
                )
        return verdicts


_COUNTED = (
    *("n", "right", "second", "refused", "negative", "positive", "unknown"),
    *("paper", "answerless", "known", "cut", "cut_wrong"),
)
"""What is counted of every item: rollouts; right by the verifier; right and refused by the second grader; its false
negatives and positives; unknown to it; right and answer-less by the rule `paper`; of known end, cut off, and wrong."""


class _Tally:
    """What is known of each item so far; every array has one entry an item."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.items = split.items
        self.index = {item.item_id: place for place, item in enumerate(self.items)}
        self.golds = {item.item_id: item.answer for item in self.items}
        self.golds |= {canary.item_id: canary.answer for canary in split.canaries}
        self.golds |= {twin.twin_id: twin.answer for twin in split.twins}
        self._counts: dict[str, Counts] = {name: np.zeros(len(self.items), np.int64) for name in _COUNTED}
        # Of phase base (and of rollouts without a phase), which labels rest on; then of base_fresh.
        self.labelling = {phase: np.zeros((3, len(self.items)), np.int64) for phase in ("base", "base_fresh")}
        self.answers: list[Counter[str]] = [Counter() for _ in self.items]
        self.gold_answers: list[set[str]] = [set() for _ in self.items]
        self.disagreements: dict[tuple[str, str | None, bool], tuple[Verdict, str]] = {}
        self.disagreed: Counter[tuple[str, str | None, bool]] = Counter()
        self.unlisted = 0
        self.different = 0
        self.stored = _StoredTally(self.golds)

    @property
    def n(self) -> Counts:
        return self._counts["n"]

    def add(self, batch: StoredBatch, judges: _Judges) -> None:
        """Judge the different completions of a batch, and count."""
        first, inverse = distinct(batch.rows)
        ids = batch.rows["problem_id"].take(pa.array(first)).to_pylist()
        texts = batch.rows["completion"].take(pa.array(first)).to_pylist()
        for place, name in enumerate(ids):
            if name not in self.golds:
                raise DataError(
                    f"{batch.where(int(first[place]))}, field {batch.file.key!r}: split {self.split.name} has no "
                    f"{batch.file.key.removesuffix('_id')} {name!r}; name rollouts of this split only"
                )
        pairs = [(self.golds[name], text) for name, text in zip(ids, texts, strict=True)]
        verdicts = judges.judge(pairs)
        if batch.file.judged:
            self.stored.add(batch, first, inverse, ids, pairs, verdicts)
        if batch.file.base:
            self._add_base(batch, inverse, ids, pairs, verdicts, judges)

    def _add_base(
        self,
        batch: StoredBatch,
        inverse: NDArray[Any],
        ids: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        verdicts: Sequence[Verdict],
        judges: _Judges,
    ) -> None:
        self.different += len(pairs)
        place = np.array([self.index.get(name, -1) for name in ids], np.int64)
        right = np.array([verdict.correct is True for verdict in verdicts], bool)
        opinions = [judges.second.grade(*pair) for pair in pairs]
        unknown = np.array([opinion is None for opinion in opinions], bool)
        agreed = np.array([r if o is None else o for r, o in zip(right, opinions, strict=True)], bool)
        strict = verdicts if judges.rule == "strict" else judges.judge(pairs, "strict")
        silent = np.array([verdict.reason == "no_answer" for verdict in strict], bool)
        paper = np.array([verdict.correct is True for verdict in judges.judge(pairs, "paper")], bool)

        weight = batch.rows["count"].to_numpy()
        ended = batch.rows["finish"].to_numpy(zero_copy_only=False)
        known = np.array([finish in ("stop", "length") for finish in ended], bool)
        cut = known & (ended == "length")
        flags = {
            "n": np.ones(len(pairs), bool),
            "right": right,
            "second": agreed & ~unknown,
            "refused": ~agreed & ~unknown,
            "negative": agreed & ~right,
            "positive": ~agreed & right,
            "unknown": unknown,
            "paper": paper,
            "answerless": paper & silent,
        }
        at = place[inverse]
        items = at >= 0  # canaries and twins have no base rollouts that a label rests on
        for name, flag in flags.items():
            self._count(name, at, weight * (flag[inverse] & items))
        for name, flag in (("known", known), ("cut", cut), ("cut_wrong", cut & ~right[inverse])):
            self._count(name, at, weight * (flag & items))
        phases = batch.rows["phase"].to_numpy(zero_copy_only=False)
        for phase, sums in self.labelling.items():
            of_phase = items & ((phases == phase) | ((phases == None) if phase == "base" else False))  # noqa: E711
            for row, flag in enumerate((flags["n"], right, agreed)):
                np.add.at(sums[row], at[of_phase], (weight * flag[inverse])[of_phase])
        total = np.bincount(inverse, weights=weight, minlength=len(pairs)).astype(np.int64)
        for row, (verdict, opinion) in enumerate(zip(verdicts, opinions, strict=True)):
            item = place[row]
            if item < 0:
                continue
            if verdict.answer is not None:
                self.answers[item][verdict.answer] += int(total[row])
                if verdict.correct:
                    self.gold_answers[item].add(verdict.answer)
            if opinion is not None and opinion is not verdict.correct:
                self._disagree(ids[row], verdict, int(total[row]), pairs[row][1])

    def _count(self, name: str, at: NDArray[Any], weight: NDArray[Any]) -> None:
        np.add.at(self._counts[name], np.maximum(at, 0), weight)

    def _disagree(self, item_id: str, verdict: Verdict, count: int, completion: str) -> None:
        key = (item_id, verdict.answer, verdict.correct is True)
        if key not in self.disagreements:
            if len(self.disagreements) >= DISAGREEMENTS:
                self.unlisted += 1
                return
            self.disagreements[key] = (verdict, completion[-TAIL:])
        self.disagreed[key] += count

    # --- what comes of it ---

    def groups(self) -> dict[str, GroupAudit]:
        """Every group that has items, and all items together as `all`."""
        found = {}
        labels = np.array([item.group or "" for item in self.items])
        for name in (*GROUPS, "all"):
            members = np.flatnonzero((labels == name) | (name == "all"))
            if members.size:
                found[name] = self._group(members)
        return found

    def _group(self, members: NDArray[Any]) -> GroupAudit:
        of = {name: int(counts[members].sum()) for name, counts in self._counts.items()}
        tops = [self._most_frequent(int(place)) for place in members if self.n[place]]
        rates = [count / int(n) for _, count, n, _ in tops]
        return GroupAudit(
            items=len(members),
            rollouts=of["n"],
            accepted=of["right"],
            false_negatives=_share(of["negative"], of["second"]),
            false_positives=_share(of["positive"], of["refused"]),
            unknown=_share(of["unknown"], of["n"]),
            answerless=_share(of["answerless"], of["paper"]),
            truncated=_share(of["cut"], of["known"]),
            guesses=Guesses(
                items=len(tops),
                median=float(np.median(rates)) if rates else None,
                ninetieth=float(np.quantile(rates, 0.9)) if rates else None,
                above_half=sum(rate > GUESSABLE for rate in rates),
                gold=sum(gold for *_, gold in tops),
            ),
        )

    def _most_frequent(self, place: int) -> tuple[str, int, int, bool]:
        """An item's most frequent answer, how often of how many rollouts it was stated, and whether it is right."""
        counts = self.answers[place]
        if not counts:
            return "", 0, int(self.n[place]), False
        answer = min(counts, key=lambda stated: (-counts[stated], stated))
        return answer, counts[answer], int(self.n[place]), answer in self.gold_answers[place]

    def guessable(self) -> list[Guessable]:
        """Items whose most frequent answer is stated by more than half of the rollouts, the most frequent first."""
        found = []
        for place, item in enumerate(self.items):
            answer, count, n, gold = self._most_frequent(place)
            if n and count / n > GUESSABLE:
                told = Guessable(
                    item_id=item.item_id, group=item.group or "", answer=answer, count=count, n=n, rate=count / n,
                    gold=gold,
                )  # fmt: skip
                found.append(told)
        return sorted(found, key=lambda told: (-told.rate, told.item_id))

    def told_disagreements(self) -> list[Disagreement]:
        """Disagreements of the two graders, a different answer of an item once, the most frequent first."""
        found = []
        for key, (verdict, completion) in self.disagreements.items():
            item = self.items[self.index[key[0]]]
            found.append(
                Disagreement(
                    item_id=item.item_id,
                    group=item.group or "",
                    gold=item.answer,
                    answer=verdict.answer,
                    reason=verdict.reason,
                    verifier=key[2],
                    second=not key[2],
                    count=self.disagreed[key],
                    completion=completion,
                )
            )
        return sorted(found, key=lambda told: (-told.count, told.item_id, told.answer or ""))

    def only_truncated(self) -> list[str]:
        """Items at or below tau all of whose wrong rollouts met the length limit, where every end is known."""
        n, right = self.n, self._counts["right"]
        wrong = n - right
        low = (n > 0) & (right <= self.split.config.protocol.tau * n)
        only = low & (wrong > 0) & (self._counts["cut_wrong"] == wrong) & (self._counts["known"] == n)
        return [self.items[place].item_id for place in np.flatnonzero(only).tolist()]

    def labels(self) -> tuple[list[Relabelled], int, list[str]]:
        """Items that the second grader's counts would label otherwise; how many were asked; what is wrong with counts.

        The verifier's and the second grader's counts of the same rollouts take the place of the split's base counts;
        all other phases stay as they are.
        """
        if not (self.split.path / "counts.parquet").is_file():
            return [], 0, []
        counts = self.split.counts()
        n, right, second = self.labelling["base"]
        covered: list[int] = np.flatnonzero(n).tolist()
        if not covered:
            return [], 0, []
        ours, theirs = (self._relabelled(counts, n, correct, covered) for correct in (right, second))
        found = [
            Relabelled(
                item_id=self.items[place].item_id,
                group=ours[place],
                group_second=theirs[place],
                correct=int(right[place]),
                correct_second=int(second[place]),
                n=int(n[place]),
            )
            for place in covered
            if ours[place] != theirs[place]
        ]
        return found, len(covered), self._miscounted(counts)

    def _relabelled(self, counts: pa.Table, n: Counts, correct: Counts, covered: Sequence[int]) -> Sequence[str]:
        ids = [item.item_id for item in self.items]
        names = [ids[place] for place in covered]
        replaced = pc.and_(pc.equal(counts["phase"], "base"), pc.is_in(counts["item_id"], pa.array(names)))
        kept = counts.filter(pc.invert(replaced))
        columns = {
            "item_id": pa.array(names, pa.string()),
            "phase": pa.array(["base"] * len(names)),
            "run": pa.array(["0"] * len(names)),
            "n": pa.array(n[covered]),
            "correct": pa.array(correct[covered]),
        }
        if "best" in counts.column_names:
            columns["best"] = pa.nulls(len(names), pa.float64())
        config = self.split.config
        table = pa.concat_tables([kept, pa.table(columns).select(kept.column_names).cast(kept.schema)])
        return label_items(table, config.protocol, rule=config.label_rule, item_ids=ids).group

    def _miscounted(self, counts: pa.Table) -> list[str]:
        """Where the rollouts are those that the labels were counted from: whether today's counts are the split's."""
        problems = []
        for phase, (n, right, _) in self.labelling.items():
            stated = counts.filter(pc.equal(counts["phase"], phase)).to_pylist()
            rows = [(row["item_id"], self.index.get(row["item_id"], -1), row["n"], row["correct"]) for row in stated]
            if not rows or any(place < 0 or n[place] != of for _, place, of, _ in rows):
                continue  # others, or only some of them
            wrong = [(name, correct, int(right[place])) for name, place, _, correct in rows if right[place] != correct]
            if wrong:
                name, correct, found = wrong[0]
                problems.append(
                    f"{self.split.path / 'counts.parquet'}, phase {phase!r}: {len(wrong)} of {len(rows)} items have "
                    f"another number of correct rollouts by today's verifier (first: item {name!r}, {correct} stated, "
                    f"{found} found); make the split again, under a new label version"
                )
        return problems


class _StoredTally:
    """Stored verdicts against today's."""

    def __init__(self, golds: Mapping[str, str]) -> None:
        self._golds = golds
        self._rows = self._rollouts = self._differ = self._without = 0
        self._found: dict[tuple[str, bool, str | None], tuple[str, int, Verdict, str]] = {}
        self._counts: Counter[tuple[str, bool, str | None]] = Counter()

    def add(
        self,
        batch: StoredBatch,
        first: NDArray[Any],
        inverse: NDArray[Any],
        ids: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        verdicts: Sequence[Verdict],
    ) -> None:
        weight = batch.rows["count"].to_numpy()
        column = batch.rows["correct"]
        without = column.is_null().to_numpy(zero_copy_only=False)
        then = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)
        now = np.array([verdict.correct is True for verdict in verdicts], bool)[inverse]
        self._rows += len(weight)
        self._rollouts += int(weight.sum())
        self._without += int(weight[without].sum())
        for row in np.flatnonzero((then != now) & ~without).tolist():
            of = inverse[row]
            self._differ += int(weight[row])
            key = (ids[of], bool(then[row]), verdicts[of].answer)
            if key not in self._found:
                if len(self._found) >= LISTED:
                    continue
                self._found[key] = (str(batch.file.path), batch.numbers[row], verdicts[of], pairs[of][1][-TAIL:])
            self._counts[key] += int(weight[row])

    def told(self, files: Sequence[StoredFile]) -> Stored | None:
        """None where no file carries verdicts."""
        judged = sum(file.judged for file in files)
        if not judged:
            return None
        return Stored(
            files=judged,
            rows=self._rows,
            rollouts=self._rollouts,
            differ=self._differ,
            without=self._without,
            differences=[
                StoredDifference(
                    file=file,
                    row=row,
                    problem_id=key[0],
                    gold=self._golds[key[0]],
                    stored=key[1],
                    correct=not key[1],
                    answer=verdict.answer,
                    reason=verdict.reason,
                    count=self._counts[key],
                    completion=completion,
                )
                for key, (file, row, verdict, completion) in self._found.items()
            ],
        )


def _share(count: int, n: int) -> Share:
    if not n:
        return Share(count=count, n=n, rate=None, interval=None)
    low, high = clopper_pearson(count, n)
    return Share(count=count, n=n, rate=count / n, interval=(float(low), float(high)))
