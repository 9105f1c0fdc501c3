"""Every claimed verdict of a bundle given again: as measured where the text is the same, else by the verifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearnbench.errors import DataError, VerifierError
from unlearnbench.leaderboard.verification.rollouts import Drawn
from unlearnbench.records import Rule, Verdict
from unlearnbench.scoring.rates import Counts, Flags
from unlearnbench.verifier import Verifier

AT_ONCE = 100
"""Completions that are judged before the time that they took is checked."""
SECONDS, SECONDS_PER_TEXT = 120.0, 0.01
"""How long the verifier may take: so long, and so long for each different completion."""


def altered(claimed: Drawn, found: Drawn | None, rule: Rule, workers: int) -> list[str]:
    """Claimed verdicts that are not given, one sentence each.

    Raises DataError where the texts take longer than those of any honest run, VerifierError if the verifier fails.
    """
    right = _verdicts(claimed, found, rule, workers)
    cells, told = claimed.asked.cells, []
    for cell, sample in np.argwhere(claimed.right != right).tolist():
        seed, phase, name = cells[cell]
        says, given = ("correct", "wrong") if claimed.right[cell, sample] else ("wrong", "correct")
        told.append(
            f"rollouts.parquet: {phase} {name!r} of seed {seed}, sample {sample} is {says} by the bundle and {given} "
            "by the verifier"
        )
    return told


def _verdicts(claimed: Drawn, found: Drawn | None, rule: Rule, workers: int) -> Flags:
    """The verdict on each claimed rollout, shape (cells, samples)."""
    codes = {text: code for code, text in enumerate(claimed.texts)}
    pair, first, place = np.unique(_pairs(claimed, claimed.text), return_index=True, return_inverse=True)
    verdict = np.zeros(len(pair), bool)
    known = np.zeros(len(pair), bool)
    if found is not None:
        own = np.array([codes.get(text, -1) for text in found.texts], np.int64)[found.text]
        measured, at = np.unique(np.where(own < 0, -1, _pairs(claimed, own)), return_index=True)
        here = np.minimum(np.searchsorted(measured, pair), len(measured) - 1)
        known = measured[here] == pair
        verdict[known] = found.right.reshape(-1)[at[here[known]]]
    golds, samples, problem = claimed.asked.golds, claimed.asked.samples, claimed.asked.problem
    rows = first[~known].tolist()
    texts = claimed.text.reshape(-1)
    questions = [(golds[problem[row // samples]], claimed.texts[texts[row]]) for row in rows]
    verdict[~known] = [bool(one.correct) for one in judged(questions, rule, workers)]
    return verdict[place.reshape(claimed.text.shape)]


def _pairs(claimed: Drawn, text: Counts) -> Counts:
    """A number for each pair of problem and text, shape (cells, samples)."""
    return claimed.asked.problem[:, None] * max(1, len(claimed.texts)) + text


def judged(questions: Sequence[tuple[str, str]], rule: Rule, workers: int) -> list[Verdict]:
    """The verdict on each pair of gold and completion, some at a time, while they take no longer than honest ones."""
    most, spent = SECONDS + SECONDS_PER_TEXT * len(questions), 0.0
    found: list[Verdict] = []
    known: set[tuple[str, str | None]] = set()
    if not questions:
        return found
    with Verifier(rule, workers=workers) as verifier:
        for start in range(0, len(questions), AT_ONCE):
            asked = questions[start : start + AT_ONCE]
            found += verifier.verify_many(asked)
            for (gold, _), verdict in zip(asked, found[start:], strict=True):
                if (gold, verdict.answer) not in known:  # an answer that was judged before takes no time
                    known.add((gold, verdict.answer))
                    spent += verdict.seconds
            if spent > most:
                raise DataError(
                    f"rollouts.parquet: {len(found):,} of {len(questions):,} different completions took the verifier "
                    f"{spent:.0f} seconds, longer than those of any policy; the rest was not judged"
                )
    if any(verdict.correct is None for verdict in found):
        raise VerifierError("the verifier itself failed twice on a text of the bundle; run the same command again")
    return found
