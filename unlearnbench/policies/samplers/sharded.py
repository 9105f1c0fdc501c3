"""Sampling from a sharded policy: every process gathers all weights while it samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unlearnbench.policies.fsdp import whole
from unlearnbench.policies.samplers.sampler import Completions, Request, Sampler


class WholeSampler:
    """A sampler that runs the sharded model itself: processes draw as many tokens as their own requests need."""

    def __init__(self, sampler: Sampler, model: Any) -> None:
        self._sampler, self._model = sampler, model

    @property
    def exact(self) -> bool:
        return self._sampler.exact

    def generate(
        self, requests: Sequence[Request], *, temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        """As the sampler within; all processes call it together."""
        with whole(self._model):
            return self._sampler.generate(requests, temperature=temperature, top_p=top_p, max_tokens=max_tokens)

    def weights_changed(self) -> None:
        self._sampler.weights_changed()
