"""Which sampler draws, and with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from unlearnbench.errors import RunError
from unlearnbench.policies.samplers.sampler import INSTALL, Sampler

if TYPE_CHECKING:  # a sampler is named without torch, and made with it
    from unlearnbench.policies.policy import Policy

DTYPES = ("float32", "bfloat16", "float16")
"""What the transformers sampler may compute in."""


@dataclass(frozen=True)
class Engine:
    """Which sampler draws, and the options of its own that it is given."""

    name: Literal["transformers", "vllm"] = "transformers"
    options: Mapping[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Raise RunError where it is not installed, or has no such option."""
        if self.name == "vllm" and find_spec("vllm") is None:
            raise RunError(INSTALL)
        if self.name == "transformers":
            unknown = [name for name in self.options if name != "dtype"]
            if unknown:
                raise RunError(
                    f"the transformers sampler has no option {unknown[0]!r}, only dtype; choose --sampler vllm"
                )
            if self.options.get("dtype", "float32") not in DTYPES:
                raise RunError(f"dtype is {self.options['dtype']!r}; choose one of {', '.join(DTYPES)}")

    def sampler(self, policy: Policy, *, training: bool) -> Sampler:
        """The sampler of a policy, which is `training` in this process or only measured."""
        if self.name == "vllm":
            from unlearnbench.policies.samplers.vllm import VllmSampler

            return VllmSampler(policy, self.options, training=training)
        import torch

        from unlearnbench.policies.samplers.transformers import TransformersSampler

        dtype = self.options.get("dtype")
        return TransformersSampler(policy, dtype=None if dtype is None else getattr(torch, dtype))


TRANSFORMERS = Engine()
