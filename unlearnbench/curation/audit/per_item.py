"""What the base policy's rollouts, judged again, say of each item: grades, answers that are stated, ends cut off.

Memory does not grow with the number of rollouts: what is kept is a few integers per item, and how often each item's
answers were stated.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.curation.audit.record import Disagreement, GroupAudit, Guessable, Guesses, Share
from unlearnbench.curation.audit.rejudge import TAIL, JudgedBatch, Judges
from unlearnbench.records import GROUPS, Verdict
from unlearnbench.scoring.rates import clopper_pearson
from unlearnbench.splits import Split

DISAGREEMENTS = 500
"""Disagreements between the two graders are listed up to this many different ones; all are counted."""
GUESSABLE = 0.5
"""An item whose most frequent answer is stated more often than this is named."""

Counts = NDArray[np.int64]

_COUNTED = (
    *("n", "right", "second", "refused", "negative", "positive", "unknown"),
    *("paper", "answerless", "known", "cut", "cut_wrong"),
)
"""What is counted of every item: rollouts; right by the verifier; right and refused by the second grader; its false
negatives and positives; unknown to it; right and answer-less by the rule `paper`; of known end, cut off, and wrong."""


class ItemVerdicts:
    """What is known of each item so far; every array has one entry an item."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.items = split.items
        self.index = {item.item_id: place for place, item in enumerate(self.items)}
        self._counts: dict[str, Counts] = {name: np.zeros(len(self.items), np.int64) for name in _COUNTED}
        # Of phase base (and of rollouts without a phase), which labels rest on; then of base_fresh.
        self.labelling = {phase: np.zeros((3, len(self.items)), np.int64) for phase in ("base", "base_fresh")}
        self.answers: list[Counter[str]] = [Counter() for _ in self.items]
        self.gold_answers: list[set[str]] = [set() for _ in self.items]
        self.disagreements: dict[tuple[str, str | None, bool], tuple[Verdict, str]] = {}
        self.disagreed: Counter[tuple[str, str | None, bool]] = Counter()
        self.unlisted = 0
        self.different = 0

    @property
    def n(self) -> Counts:
        return self._counts["n"]

    def add(self, judged: JudgedBatch, judges: Judges) -> None:
        """Count a batch of the base policy's rollouts."""
        batch, inverse, ids, pairs, verdicts = judged.batch, judged.inverse, judged.ids, judged.pairs, judged.verdicts
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


def _share(count: int, n: int) -> Share:
    if not n:
        return Share(count=count, n=n, rate=None, interval=None)
    low, high = clopper_pearson(count, n)
    return Share(count=count, n=n, rate=count / n, interval=(float(low), float(high)))
