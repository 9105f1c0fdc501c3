"""Variance components of a null control: how much of the variance of its counts lies between families, items, runs.

The counts are taken to come from a `simulation.World`: the logit of a cell (item, run) is normal, the sum of
independent parts. Two rollouts that share some of the parts have E[p p'] = E[E[p | shared]^2], which rises with the
variance of what they share; the product of two different rollouts' verdicts estimates it without bias, however few
rollouts per cell has. So each part's variance follows from one mean product (the method of moments; for one variance,
Kleinman 1973, JASA 68:46).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize
from scipy.special import expit

from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.inference.simulation import World
from unlearnbench.scoring.rates import Counts, Reals

_NODES = np.linspace(-6, 6, 121)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_MOST = 15.0**2
"""Largest variance of a logit that is looked for: rates are then 0 or 1, and larger values make no difference."""


def world_of(cells: Cells, families: Sequence[str]) -> World | None:
    """The world whose mean products are those of these counts (items x runs). Parts below 0 are set to 0.

    None if the counts do not determine it: fewer than two runs, families or items in a family, or no success at all.
    """
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    if cells.runs < 2 or not len(family) or not family.max() or np.bincount(family).max() < 2:
        return None
    if int(cells.n.min()) < 2 or not cells.correct.any() or (cells.correct == cells.n).all():
        return None
    rates = cells.correct / cells.n
    mean = float(rates.mean())
    pairs = cells.correct * (cells.correct - 1) / (cells.n * (cells.n - 1))
    apart = _product_apart(rates, family)
    # Covariances, so that chance in the mean is not counted as a component.
    same_cell = float(pairs.mean()) - apart
    same_item = _product(rates, np.arange(len(family)), runs="other") - apart
    same_family = _product(rates, family, runs="other", without_item=True) - apart
    same_family_run = _product(rates, family, runs="same", without_item=True) - apart
    same_run = _product_same_run(rates, family) - apart
    total = _total_variance(mean, same_cell)
    base = _base(mean, total)

    def shared(covariance: float) -> float:
        return _shared_variance(base, total, mean, covariance)

    of_family, of_run = shared(same_family), shared(same_run)
    of_item = max(shared(same_item) - of_family, 0.0)
    of_family_run = max(shared(same_family_run) - of_family - of_run, 0.0)
    rest = max(total - of_family - of_item - of_run - of_family_run, 0.0)
    parts = {"family": of_family, "item": of_item, "run": of_run, "family_run": of_family_run, "item_run": rest}
    return World(base=base, **{name: float(np.sqrt(value)) for name, value in parts.items()})


# --- mean products of two rollouts' verdicts -------------------------------------------------------------------


def _product(rates: Reals, unit: Counts, *, runs: str, without_item: bool = False) -> float:
    """Mean of rate x rate over pairs of cells of one unit: in the same run or another, of another item if asked."""
    sums = np.zeros((int(unit.max()) + 1, rates.shape[1]))
    np.add.at(sums, unit, rates)
    sizes, count = np.bincount(unit).astype(float), rates.shape[1]
    if runs == "same":
        total, number = float((sums**2).sum()), float((sizes**2).sum()) * count
    else:
        total = float((sums.sum(axis=1) ** 2).sum() - (sums**2).sum())
        number = float((sizes**2).sum()) * count * (count - 1)
    if without_item:
        own = float((rates**2).sum()) if runs == "same" else float((rates.sum(axis=1) ** 2).sum() - (rates**2).sum())
        total -= own
        number -= len(rates) * count * (1 if runs == "same" else count - 1)
    return float(total / number)


def _product_same_run(rates: Reals, family: Counts) -> float:
    """Items of different families in the same run."""
    sums = np.zeros((int(family.max()) + 1, rates.shape[1]))
    np.add.at(sums, family, rates)
    sizes = np.bincount(family).astype(float)
    number = (sizes.sum() ** 2 - (sizes**2).sum()) * rates.shape[1]
    return float(((sums.sum(axis=0) ** 2).sum() - (sums**2).sum()) / number)


def _product_apart(rates: Reals, family: Counts) -> float:
    """Items of different families in different runs: they share nothing, so this is the squared mean."""
    sums = np.zeros((int(family.max()) + 1, rates.shape[1]))
    np.add.at(sums, family, rates)
    sizes, count = np.bincount(family).astype(float), rates.shape[1]
    everything = sums.sum() ** 2 - (sums.sum(axis=0) ** 2).sum()
    together = (sums.sum(axis=1) ** 2).sum() - (sums**2).sum()
    number = (sizes.sum() ** 2 - (sizes**2).sum()) * count * (count - 1)
    return float((everything - together) / number)


# --- from products to variances of logits ----------------------------------------------------------------------


def _mean(base: float, variance: float) -> float:
    return float(expit(base + np.sqrt(variance) * _NODES) @ _WEIGHTS)


def _base(mean: float, variance: float) -> float:
    """Mean logit at which the mean rate is `mean`."""
    return float(optimize.brentq(lambda base: _mean(base, variance) - mean, -80, 80, xtol=1e-6))


def _covariance(base: float, total: float, mean: float, variance: float) -> float:
    """Covariance of two rates that share parts of this variance, out of `total`."""
    own = np.sqrt(max(total - variance, 0.0)) * _NODES
    given = expit(base + np.sqrt(variance) * _NODES[:, None] + own) @ _WEIGHTS
    return float(given**2 @ _WEIGHTS - mean**2)


def _total_variance(mean: float, covariance: float) -> float:
    """Variance of a cell's logit at which two rollouts of the same cell have this covariance."""

    def excess(total: float) -> float:
        return _covariance(_base(mean, total), total, mean, total) - covariance

    if excess(_MOST) <= 0:
        return _MOST
    return 0.0 if covariance <= 0 else float(optimize.brentq(excess, 0.0, _MOST, xtol=1e-4))


def _shared_variance(base: float, total: float, mean: float, covariance: float) -> float:
    """Variance of the shared parts at which two rates have this covariance, from 0 to `total`."""
    if covariance <= 0 or total <= 0:
        return 0.0
    if _covariance(base, total, mean, total) <= covariance:
        return total
    return float(optimize.brentq(lambda part: _covariance(base, total, mean, part) - covariance, 0.0, total, xtol=1e-4))
