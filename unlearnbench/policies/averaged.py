"""A policy averaged over training: an exponential moving average of the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from unlearnbench.errors import PolicyError
from unlearnbench.policies.policy import Policy


class AveragedWeights:
    """A second copy of the weights that are trained, and of nothing else; implements `method.AveragedPolicy`."""

    def __init__(self, policy: Policy) -> None:
        self._trained = policy.trained()
        self._average = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def update(self, rate: float) -> None:
        for name, weight in self._trained.items():
            self._average[name].lerp_(weight.detach(), rate)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if state.keys() != self._average.keys():
            raise PolicyError("The averaged policy's state has other weights than the policy; remove the run's folder.")
        for name, weight in state.items():
            self._average[name].copy_(weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the policy has the averaged weights. Nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def of(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The average of each of these weights of the policy; one that is not trained as it is."""
        names = {id(weight): name for name, weight in self._trained.items()}
        return {
            key: self._average[names[id(weight)]] if id(weight) in names else weight.detach()
            for key, weight in weights.items()
        }

    def _swap(self) -> None:
        for name, weight in self._trained.items():
            weight.data, self._average[name] = self._average[name], weight.data
