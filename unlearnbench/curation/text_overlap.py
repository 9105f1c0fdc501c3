"""How much problem texts share: which item of a pool a generated problem was made from, and whether it repeats one.

A text is its set of words and numbers, weighted by how rare each is in the pool (inverse document frequency, Spärck
Jones 1972); likeness is the cosine of two such sets. A problem made from an item shares the item's rare words and
numbers far more often than an item drawn at random does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[a-z]+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SPACING = re.compile(r"\\[,;:! ]|\\left\b|\\right\b|[\s$]+")
NEARLY = 0.9
"""Of the tokens of two texts with the same numbers, in order: from here on, one repeats the other."""
_SHARED = 0.6
"""Different tokens in common; with fewer, comparing in order is in vain and slow."""

Likeness = NDArray[np.float32]


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case, names of LaTeX commands among the words; `1,000` is 1000."""
    return _TOKEN.findall(re.sub(r"(?<=\d),(?:\\!)?(?=\d{3})", "", text.lower()))


class Texts:
    """The texts of a pool, weighed once, so that other texts can be compared with all of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        sets = [set(tokens(text)) for text in texts]
        often = Counter(token for members in sets for token in members)
        self._column = {token: place for place, token in enumerate(sorted(often))}
        counts = np.array([often[token] for token in self._column], np.float32)
        self._weight = np.log((1 + len(sets)) / (1 + counts)).astype(np.float32) + np.float32(1e-3)
        self._unseen = float(np.log(1 + len(sets))) + 1e-3
        self._pool = self._matrix(sets)

    def __len__(self) -> int:
        return int(self._pool.shape[0])

    def likeness(self, problems: Sequence[str]) -> Likeness:
        """The mean cosine of some problems with each text of the pool, shape (texts,)."""
        rows = self._matrix([set(tokens(problem)) for problem in problems])
        mean = np.asarray(rows.sum(axis=0), np.float32).ravel() / np.float32(max(1, len(problems)))
        return np.asarray(self._pool @ mean, np.float32)

    def _matrix(self, sets: Sequence[set[str]]) -> Any:
        """Rows of unit length; words that the pool does not know count in the length alone."""
        from scipy.sparse import csr_matrix

        values: list[float] = []
        columns: list[int] = []
        starts = [0]
        for members in sets:
            known = sorted(self._column[token] for token in members if token in self._column)
            foreign = len(members) - len(known)
            weights = self._weight[known]
            length = float(np.sqrt((weights**2).sum() + foreign * self._unseen**2)) or 1.0
            values += (weights / length).tolist()
            columns += known
            starts.append(len(columns))
        shape = (len(sets), len(self._column))
        return csr_matrix((np.array(values, np.float32), np.array(columns, np.int64), np.array(starts)), shape=shape)


def standing(pool: Texts, made_from: Sequence[int], problems: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """For each item, by place in the pool, the share of the pool that its own problems are less like than it.

    1 where the item is the likest of all to the problems made from it, about 0.5 where they have nothing to do with
    each other; ties count half. Shape (items,).
    """
    shares = np.zeros(len(made_from))
    for row, (place, own) in enumerate(zip(made_from, problems, strict=True)):
        mean = pool.likeness(own)
        below = np.count_nonzero(mean < mean[place])
        level = np.count_nonzero(mean == mean[place]) - 1
        shares[row] = (below + level / 2) / max(1, len(pool) - 1)
    return shares


class Repeats:
    """Finds texts that say the same as one of a pool: with the same numbers, and nearly the same words in order."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._same: set[str] = {_plain(text) for text in texts}
        self._by_numbers: dict[tuple[str, ...], list[tuple[set[str], list[str]]]] = defaultdict(list)
        for text in texts:
            words = tokens(text)
            self._by_numbers[_numbers(words)].append((set(words), words))

    def holds(self, text: str) -> bool:
        """Whether `text` equals one of the texts but for spacing and case, or nearly equals it."""
        if _plain(text) in self._same:
            return True
        words = tokens(text)
        members = set(words)
        for others, other in self._by_numbers.get(_numbers(words), ()):
            few, many = sorted((len(words), len(other)))
            if 2 * few < NEARLY * (few + many) or len(members & others) < _SHARED * len(members | others):
                continue
            if SequenceMatcher(None, words, other, autojunk=False).ratio() >= NEARLY:
                return True
        return False


def _plain(text: str) -> str:
    return _SPACING.sub("", text.lower())


def _numbers(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if _NUMBER.fullmatch(word)))
