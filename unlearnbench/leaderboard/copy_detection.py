"""Were the rollouts drawn one by one? What copying and writing by hand leave behind in them.

A *cell* is the n rollouts of one problem in one seed. Given how often each text occurs in a cell, independent draws
make every order of them equally likely, whatever the policy is. Tests rest on that, and none on a model of text:

- `copied_cells`: two cells agree sample by sample. The chance that at least m of n positions agree is at most
  r_m (n - m)! / n!, where r_m is the number of ways to place m agreeing pairs (the m-th factorial moment of the
  matches, by rook numbers; Riordan 1958, An Introduction to Combinatorial Analysis, ch. 7). All pairs of cells are
  looked at, and Bonferroni's bound over them is held at FALSE_ALARM.
- `same_texts`: two cells have the same texts in whatever order. Whatever the policy, n independent draws give the texts
  of another cell, a_k times each, with a chance of at most n! prod (a_k / n)**a_k / a_k!, which is that of draws in
  just these shares. Bonferroni again; a cell of few different texts can be anybody's.
- `copied_seeds`: the texts of two seeds are the same, in whatever order. Draws of one and the same policy are as alike
  as honest ones can be; split at random, the 2n texts of a problem have sum_k (a_k - b_k)**2 of known mean and
  variance, and a sum over problems that is SIGMAS below its mean is a copy. Two policies differ more, never less.
- `fixed_text`: the completions of many problems are one text around the answer. No law of chance here: a policy that
  knows answers by heart writes so too. What is asked is set far beyond all honest runs that were looked at.
- `borrowed_texts`: most of the items that a seed solves are answered in the words of other problems, and not in those
  of their own reference solution. No law of chance either, and set in the same way.

docs/guide/leaderboard.md has what they find in honest runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from unlearnbench.scoring.rates import Counts, Flags

FALSE_ALARM = 1e-6
"""Chance that an honest bundle is refused for copied cells, at most; below 1e-9 a pair of seeds for copied seeds."""
SIGMAS = 6.0
CHUNK = 1024
"""Cells whose matches with all others are in memory at once."""
FIXED_PROBLEMS = 10
FIXED_PRECISION = 0.9
BORROWED_PROBLEMS = 40
BORROWED_SHARE = 0.6


@dataclass(frozen=True)
class Cellwise:
    """Codes of texts, shape (cells, samples): equal codes are equal texts. `problem` and `seed` are of each cell."""

    text: Counts
    problem: Counts
    seed: Counts


@dataclass(frozen=True)
class Copy:
    """Two cells, by their places, that agree in `matches` samples; at most so likely, over all pairs."""

    first: int
    second: int
    matches: int
    chance: float


def copied_cells(cells: Cellwise) -> list[Copy]:
    """Pairs of cells that agree sample by sample beyond chance, the least likely first."""
    number, n = cells.text.shape
    pairs = number * (number - 1) // 2
    if not pairs:
        return []
    varied = np.flatnonzero((cells.text != cells.text[:, :1]).any(axis=1))  # one text only: its order says nothing
    fewest = next((m for m in range(1, n + 1) if pairs * _orders(n, m) < FALSE_ALARM), n + 1)
    found = []
    for first, second, matches in _candidates(cells, varied, fewest):
        chance = pairs * _at_least(matches, cells.text[first], cells.text[second])
        if chance < FALSE_ALARM:
            found.append(Copy(first, second, matches, chance))
    return sorted(found, key=lambda copy: copy.chance)


def same_texts(cells: Cellwise) -> list[Copy]:
    """Pairs of cells that have the same texts beyond chance, in whatever order: each cell with the first such one."""
    number, n = cells.text.shape
    pairs = number * (number - 1) // 2
    first: dict[bytes, int] = {}
    found = []
    for place, texts in enumerate(np.sort(cells.text, axis=1)):
        before = first.setdefault(texts.tobytes(), place)
        if before != place:
            shares = np.unique(texts, return_counts=True)[1].tolist()
            likely = math.lgamma(n + 1) + sum(a * math.log(a / n) - math.lgamma(a + 1) for a in shares)
            chance = pairs * math.exp(likely)
            if chance < FALSE_ALARM:
                found.append(Copy(before, place, n, chance))
    return found


def _orders(n: int, m: int) -> float:
    """(n - m)! / n!: how unlikely m agreeing samples are at the most."""
    return math.exp(math.lgamma(n - m + 1) - math.lgamma(n + 1))


def _candidates(cells: Cellwise, varied: Counts, fewest: int) -> Iterator[tuple[int, int, int]]:
    """Pairs of cells that agree in so many samples, with how many, in the order of the cells."""
    text = cells.text[varied]
    rows, n = text.shape
    _, column = np.unique(text * n + np.arange(n), return_inverse=True)  # a text at a sample's place
    place = sparse.csr_matrix(
        (np.ones(rows * n, np.int32), column.reshape(-1), np.arange(0, rows * n + 1, n)), dtype=np.int32
    )
    across = place.T.tocsc()
    for start in range(0, rows, CHUNK):
        agreeing = (place[start : start + CHUNK] @ across).tocoo()
        close = (agreeing.data >= fewest) & (agreeing.col > agreeing.row + start)
        for row, other, matches in zip(
            agreeing.row[close].tolist(), agreeing.col[close].tolist(), agreeing.data[close].tolist(), strict=True
        ):
            yield int(varied[row + start]), int(varied[other]), matches


def _at_least(matches: int, first: Counts, second: Counts) -> float:
    """A bound on the chance that independent orders of two cells agree in so many positions or more."""
    n = len(first)
    one, other = (
        dict(zip(*map(np.ndarray.tolist, np.unique(cell, return_counts=True)), strict=True)) for cell in (first, second)
    )
    shared = [(one[text], other[text]) for text in one if text in other]
    # the bound with fewer matches asked for holds too, and is sometimes the smaller one
    rooks = np.ones(1)
    for a, b in shared:
        ways = [math.comb(a, j) * math.comb(b, j) * math.factorial(j) for j in range(min(a, b) + 1)]
        rooks = np.convolve(rooks, np.array(ways, float))
    bounds = [
        math.exp(math.log(rooks[m]) + math.lgamma(n - m + 1) - math.lgamma(n + 1) - _log_comb(matches, m))
        for m in range(1, min(matches, len(rooks) - 1) + 1)
    ]
    return min([1.0, *bounds])


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def likeness(first: Counts, second: Counts) -> float:
    """How many standard deviations the texts of two seeds differ more (less, if negative) than one policy's would.

    Both of shape (problems, samples). Conditional on each problem's pooled texts, T = sum_k (a_k - b_k)**2 =
    2n + 2 sum over pairs of the same text of e_i e_j, where e is a random balanced assignment to the seeds.
    """
    total = expected = variance = 0.0
    size = 2 * first.shape[1]
    two, four = -1.0 / (size - 1), 3.0 / max((size - 1) * (size - 3), 1)
    for one, other in zip(first, second, strict=True):
        _, code = np.unique(np.concatenate([one, other]), return_inverse=True)
        code = code.reshape(-1)
        a, b = (np.bincount(part, minlength=code.max() + 1).astype(float) for part in np.split(code, 2))
        pooled = a + b
        pairs = float((pooled * (pooled - 1)).sum()) / 2
        sharing = float((pooled * (pooled - 1) * (pooled - 2)).sum())
        total += float(((a - b) ** 2).sum())
        expected += size + 2 * pairs * two
        variance += max(4 * (pairs + sharing * two + (pairs**2 - pairs - sharing) * four - (pairs * two) ** 2), 0.0)
    return (total - expected) / math.sqrt(variance) if variance > 0 else math.inf


def copied_seeds(cells: Cellwise, groups: Sequence[str]) -> list[tuple[int, int, str, float]]:
    """Pairs of seeds that are too alike, with the group (one entry a problem) and by how many standard deviations."""
    seeds = np.unique(cells.seed).tolist()
    found = []
    for number, one in enumerate(seeds):
        for other in seeds[number + 1 :]:
            for group in dict.fromkeys(groups):
                of_group = np.array([groups[problem] == group for problem in cells.problem.tolist()])
                sides = [_in_order(cells, of_group & (cells.seed == seed)) for seed in (one, other)]
                if sides[0].shape == sides[1].shape and len(sides[0]):
                    apart = likeness(*sides)
                    if apart < -SIGMAS:
                        found.append((int(one), int(other), group, apart))
    return found


def _in_order(cells: Cellwise, chosen: Flags) -> Counts:
    rows = np.flatnonzero(chosen)
    ordered: Counts = cells.text[rows[np.argsort(cells.problem[rows], kind="stable")]]
    return ordered


@dataclass(frozen=True)
class FixedText:
    """One text around the answers of `problems` problems, right with `answers` different ones."""

    text: str
    problems: int
    answers: int
    precision: float


def fixed_text(
    texts: Sequence[str], stated: Sequence[str | None], correct: Flags, problem: Counts, samples: int
) -> FixedText | None:
    """The text that solves most problems, FIXED_PROBLEMS or more, each in half of its rollouts or more, and is right in
    FIXED_PRECISION of its uses; None if there is none. One seed; one entry a rollout, `correct` too."""
    frames: dict[str, int] = {}
    frame = np.empty(len(texts), np.int64)
    known: dict[tuple[str, str | None], int] = {}
    for place, pair in enumerate(zip(texts, stated, strict=True)):
        if pair not in known:
            known[pair] = frames.setdefault(_frame(*pair), len(frames))
        frame[place] = known[pair]
    uses = np.bincount(frame, minlength=len(frames))
    hits = np.bincount(frame, correct, len(frames))
    precise = np.flatnonzero(hits >= np.maximum(FIXED_PRECISION * uses, FIXED_PROBLEMS))
    names: NDArray[np.str_] = np.array(list(frames), object)
    worst = None
    for number in precise.tolist():
        rows = np.flatnonzero((frame == number) & correct)
        often = np.flatnonzero(2 * np.bincount(problem[rows]) >= samples)
        if len(often) >= FIXED_PROBLEMS and (worst is None or len(often) > worst.problems):
            answers = {stated[row] for row in rows[np.isin(problem[rows], often)].tolist()}
            worst = FixedText(str(names[number]), len(often), len(answers), float(hits[number] / uses[number]))
    return worst


@dataclass(frozen=True)
class Borrowed:
    """Of a seed's `solved` cells, `borrowed` are in the words of other items: `first`, say, in those of `other`."""

    seed: int
    solved: int
    borrowed: int
    first: int
    other: int


def borrowed_texts(cells: Cellwise, correct: Flags, item: Counts, reference: Counts, core: Flags) -> list[Borrowed]:
    """Seeds in which BORROWED_PROBLEMS or more, and BORROWED_SHARE or more, of the core's solved cells are borrowed.

    `correct` is (cells, samples); `item` is the item that a cell belongs to (a twin's is its item's) and `reference`
    the code of that item's reference solution, -1 if no rollout is that text. A cell is solved if half of it is right.
    Its words are its commonest right text, and are borrowed if a right rollout of another item, in any seed, is that
    text and the reference solution is not.
    """
    rows, samples = np.nonzero(correct)
    (cell, code), uses = np.unique(np.stack([rows, cells.text[rows, samples]]), axis=1, return_counts=True)
    commonest = np.full(len(cells.text), -1)
    order = np.argsort(uses, kind="stable")
    commonest[cell[order]] = code[order]  # the last one stays
    owners: dict[int, set[int]] = {}
    for one, of in zip(code.tolist(), item[cell].tolist(), strict=True):
        owners.setdefault(one, set()).add(of)
    solved = np.flatnonzero(core & (2 * correct.sum(axis=1) >= correct.shape[1]))
    found = []
    for seed in np.unique(cells.seed[solved]).tolist():
        here = solved[cells.seed[solved] == seed].tolist()
        borrowed = [
            (place, min(others))
            for place in here
            if commonest[place] != reference[place] and (others := owners[int(commonest[place])] - {int(item[place])})
        ]
        if len(borrowed) >= max(BORROWED_PROBLEMS, BORROWED_SHARE * len(here)):
            found.append(Borrowed(int(seed), len(here), len(borrowed), *borrowed[0]))
    return found


def _frame(text: str, stated: str | None) -> str:
    """A completion without the answer that it states."""
    if not stated:
        return text
    at = text.rfind(stated)
    return text if at < 0 else f"{text[:at]}…{text[at + len(stated) :]}"
