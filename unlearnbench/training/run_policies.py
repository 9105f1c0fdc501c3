"""The policies that a run can read by name: current, its start, its average over steps, the positive control's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from unlearnbench.errors import MethodError, PolicyError
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.training.build import Models
from unlearnbench.training.judge import Judge

NAMES = ("current", "reference", "average", "teacher")


class AveragedWeights:
    """Implements `method.AveragedPolicy`: a second copy of the weights that are trained, and of nothing else."""

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
            raise MethodError("the averaged policy's state has other weights than the policy; remove the run's folder")
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


class RunPolicies:
    """The policies of one run. The positive control's is loaded when it is first asked for; the judge notes that."""

    def __init__(self, models: Models, judge: Judge) -> None:
        self._models, self._judge = models, judge
        self._known = {"current": models.policy, "reference": models.reference}
        self._averaged: AveragedWeights | None = None

    @property
    def averaged(self) -> AveragedWeights:
        """The policy averaged over steps, from the first call on."""
        if self._averaged is None:
            if self._models.sharded:
                raise MethodError(
                    "an averaged policy needs whole weights in each process; train without --trainer shard=fsdp2"
                )
            self._averaged = AveragedWeights(self._models.policy)
        return self._averaged

    @contextmanager
    def reading(self, name: str) -> Iterator[Policy]:
        """The policy of that name, to be read meanwhile. Raises MethodError for a name that there is not."""
        if name == "average" and self._averaged is not None:
            with self._averaged.in_place():
                yield self._models.policy
            return
        if name == "teacher" and name not in self._known:
            ours = self._models.policy
            where = self._judge.ask(name)
            self._known[name] = load_policy(where, prompt_format=ours.prompt_format, device=ours.device)
        if name not in self._known:
            more = " (call self.run.averaged() in setup)" if name == "average" else ""
            raise MethodError(f"There is no policy {name!r}{more}; ask for {', '.join(NAMES)}.")
        yield self._known[name]

    def output_layer(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, hidden size) and bias that turn the hidden states of a policy that was read into logits.

        Raises PolicyError where its output layer is no linear one.
        """
        policy = self._models.policy if name == "average" else self._known[name]
        layer = policy.model.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear):
            raise PolicyError(f"The output layer of {policy.source} is not linear; train without logprob_chunk.")
        own: dict[str, Tensor] = dict(layer.named_parameters())
        if name == "average" and self._averaged is not None:
            own = self._averaged.of(own)
        return own["weight"].detach(), own["bias"].detach() if "bias" in own else None
