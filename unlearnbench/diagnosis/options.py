"""The options of a diagnosis: all that determines it besides its policy and rollouts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from unlearnbench.errors import RunError

ADAPTER_RANK, ADAPTER_ALPHA, ADAPTER_TARGETS = 16, 32.0, ("q_proj", "v_proj")


@dataclass(frozen=True)
class Options:
    """Raises RunError for what cannot be."""

    rollouts_per_item: int = 20
    cap: int = 1024
    reward: Literal["correct", "group"] = "correct"
    entropy_share: float = 1.0
    parameters: str = "lora"
    targets: tuple[str, ...] = ADAPTER_TARGETS
    rank: int = ADAPTER_RANK
    adapter_seeds: int = 1
    parts: int = 4
    groups: tuple[str, ...] | None = None
    items_per_group: int | None = None
    seed: int = 0
    prompt_format: Literal["raw", "chat"] | None = None

    def __post_init__(self) -> None:
        for name in ("targets", "groups"):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        least = {"rollouts_per_item": 1, "cap": 1, "rank": 1, "adapter_seeds": 1, "parts": 1, "seed": 0}
        for name, bound in {**least, **({} if self.items_per_group is None else {"items_per_group": 1})}.items():
            if getattr(self, name) < bound:
                raise RunError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        if self.rollouts_per_item % self.parts:
            raise RunError(
                f"{self.rollouts_per_item} rollouts per item do not divide into {self.parts} equal parts; choose a "
                f"multiple of {self.parts}"
            )
        if not 0 < self.entropy_share <= 1:
            raise RunError(f"entropy_share is {self.entropy_share}; it must be above 0 and at most 1")
        if self.reward not in ("correct", "group"):
            raise RunError(f"reward is {self.reward!r}; it must be correct or group")
        if self.reward == "group" and self.rollouts_per_item < 2:
            raise RunError("reward group needs at least 2 rollouts per item, to standardise by")
        own = (self.targets, self.rank, self.adapter_seeds) != (ADAPTER_TARGETS, ADAPTER_RANK, 1)
        if self.parameters != "lora" and own:
            raise RunError(f"targets, rank and adapter seeds are those of parameters lora, not of {self.parameters}")

    def chosen(self) -> dict[str, Any]:
        """What gradients are taken of, in JSON."""
        if self.parameters == "lora":
            return {"kind": "lora", "rank": self.rank, "alpha": ADAPTER_ALPHA, "targets": list(self.targets)}
        names = () if self.parameters == "all" else self.parameters.split(",")
        return {"kind": "weights", "names": [name.strip() for name in names if name.strip()]}

    @property
    def wanted(self) -> str:
        """What an item needs enough of."""
        return "correct rollouts" if self.reward == "correct" else "rollouts"

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON gives them back."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields
