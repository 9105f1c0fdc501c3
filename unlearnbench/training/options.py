"""How a training step is computed on this machine: options that change memory and speed, and results up to rounding.

They are not part of a recipe: no hash covers them, and a run may be resumed with others (docs/guide/at-scale.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from unlearnbench.errors import RunError
from unlearnbench.records import Record


class TrainerOptions(Record):
    """What `--trainer KEY=VALUE` sets. Weights and optimiser are float32 whatever it says (LOOP 11)."""

    precision: Literal["float32", "bf16"] = "float32"
    """Matrix products of training passes in bfloat16 (autocast); softmax, ratios and losses stay float32."""
    gradient_checkpointing: bool = False
    """Keep the inputs of layers alone, and compute the rest again on the way back."""
    logprob_chunk: int | None = Field(default=None, ge=1)
    """Tokens whose logits are held at once, forward and backward; None holds those of a whole micro-batch."""
    shard: Literal["fsdp2"] | None = None
    """Share weights, gradients and optimiser out over the processes that train a seed together."""


DEFAULT = TrainerOptions()


def trainer_options(given: Mapping[str, Any]) -> TrainerOptions:
    """The options of these names. Raises RunError naming the wrong one and what there is."""
    try:
        return TrainerOptions.model_validate(dict(given))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(TrainerOptions.model_fields)
            raise RunError(f"the trainer has no option {name!r}; give one of {known}") from problem
        raise RunError(f"--trainer {name}={given[name]}: {first['msg']}; see docs/guide/at-scale.md") from problem
