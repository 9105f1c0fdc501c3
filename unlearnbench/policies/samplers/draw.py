"""Drawing the next token of many rollouts from logits, with their own random numbers.

With top_p < 1 a draw is from the smallest set of most likely tokens whose probability reaches top_p (Holtzman et al.
2020, 1904.09751). Finding it takes a sort of the vocabulary, which for 49,152 tokens costs as much as the model. So
the most likely tokens alone are sorted first; where they hold the set, the draw is exactly the one that a full sort
gives, and the rows where they do not (flat distributions) are sorted in full.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_LIKELY = 256  # tokens of a row that are sorted first: a language model's set was never larger in 2,900 rows
FEWEST = 32  # below an eighth of so small a vocabulary nothing is gained


def draw(
    logits: Tensor, row: NDArray[np.int64], uniform: NDArray[np.float64], temperature: float, top_p: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A token of each rollout from its row's distribution, and its log-softmax(logits / temperature).

    `logits` (rows, V); `row` (n,) is each rollout's row, `uniform` (n,) its random number in [0, 1). Drawn by
    inversion of the distribution function over the tokens in order of their number, with top_p < 1 in order of their
    probability (equal ones by number).
    """
    scaled = torch.log_softmax(logits / temperature, dim=-1)
    rows, chance = (torch.from_numpy(array).to(logits.device) for array in (row, uniform))
    if top_p >= 1:
        drawn = _invert(scaled.double().exp(), rows, chance)
    elif (kept := min(MOST_LIKELY, scaled.shape[-1] // 8)) < FEWEST:
        drawn = _from_all(scaled, rows, chance, top_p)
    else:
        drawn, sure = _from_most_likely(scaled, rows, chance, top_p, kept)
        if not bool(sure.all()):
            left = ~sure[rows]
            flat, place = torch.unique(rows[left], return_inverse=True)
            drawn[left] = _from_all(scaled[flat], place, chance[left], top_p)
    return drawn.cpu().numpy(), scaled[rows, drawn].cpu().numpy()


def _from_all(scaled: Tensor, rows: Tensor, chance: Tensor, top_p: float) -> Tensor:
    """Draws with the whole vocabulary sorted."""
    probabilities, order = scaled.double().exp().sort(dim=-1, descending=True, stable=True)
    return order[rows, _invert(_cut(probabilities, top_p), rows, chance)]


def _from_most_likely(scaled: Tensor, rows: Tensor, chance: Tensor, top_p: float, kept: int) -> tuple[Tensor, Tensor]:
    """Draws from the `kept` most likely tokens of each row, and for which rows (rows,) they are those of the sort.

    They are where the set ends before the least likely token kept. Tokens as likely as that one may have been left
    out, so a set that reaches them is not sure.
    """
    found = scaled.topk(kept, dim=-1, sorted=False).indices.sort(dim=-1).values  # equal ones stay in order of number
    probabilities, order = scaled.gather(-1, found).double().exp().sort(dim=-1, descending=True, stable=True)
    inside = _cut(probabilities, top_p)
    last = (inside > 0).sum(-1, keepdim=True) - 1
    sure = (inside.gather(-1, last) > probabilities[:, -1:])[:, 0]
    index = _invert(inside, rows, chance)
    return found[rows, order[rows, index]], sure


def _cut(probabilities: Tensor, top_p: float) -> Tensor:
    """Sorted probabilities with those behind the set at 0."""
    before = probabilities.cumsum(-1) - probabilities
    return probabilities.masked_fill(before >= top_p, 0.0)


def _invert(probabilities: Tensor, rows: Tensor, chance: Tensor) -> Tensor:
    """Where each rollout's random number falls in its row's distribution function, shape (n,)."""
    cumulative = probabilities.cumsum(-1)
    own = cumulative if len(rows) == len(cumulative) and bool((rows[:-1] < rows[1:]).all()) else cumulative[rows]
    target = chance[:, None] * own[:, -1:]
    return torch.searchsorted(own, target, right=True).clamp(max=own.shape[-1] - 1)[:, 0]
