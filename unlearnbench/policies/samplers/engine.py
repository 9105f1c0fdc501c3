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
            from unlearnbench.policies.samplers.vllm import VllmSampler

            return VllmSampler(policy, self.options, training=training)
        from unlearnbench.policies.samplers.transformers import TransformersSampler

        return TransformersSampler(policy)


TRANSFORMERS = Engine()
