"""What a plan takes for granted where nothing was measured: sizes of a split that is not built, tokens of a rollout.

Every figure of these is called an assumption where it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlearnbench.splits import Split
from unlearnbench.splits.manifest import released_of, waits

LENGTH = 600.0
"""Tokens of a rollout. The reference solutions of MATH-500 have 183 (levels 1 to 4) and 268 (3 to 5) on average, by
SmolLM2's tokenizer; a policy that thinks aloud writes two or three times as much."""
PROMPT = 100.0
"""Tokens of a prompt: the problems of MATH-500 have 65 and 85, and instruction and template come on top."""
SUBJECTS = 7
"""Families of a pool whose problems are not here: MATH has seven subjects."""
CHARACTERS_A_TOKEN = 3.0


@dataclass(frozen=True)
class Pool:
    """What an evaluation goes through, and what is to be converted."""

    items: int
    twins: int
    canaries: int
    prompt: float
    """Tokens of a prompt, roughly."""
    families: Sequence[str]
    """Of each unlearnable item."""
    assumption: str | None
    """What of this is assumed, in words; None where the problems are here."""

    @property
    def problems(self) -> int:
        return self.items + self.twins + self.canaries


def pool_of(split: Split) -> Pool:
    """The pool as it is here; for a split that is not built, what its released ids say."""
    released = released_of(split.path)
    if released is None or not waits(split.path):
        families = [item.family for item in split.items if item.group == "unlearnable"]
        twins = len(split.problems("twin"))
        prompt = sum(len(item.prompt) for item in split.items) / max(1, len(split.items)) / CHARACTERS_A_TOKEN
        return Pool(len(split.items), twins, len(split.canaries), prompt, families, None)
    ids = [number for group in released.groups.values() for number in group.ids]
    unlearnable_ids = released.groups["unlearnable"].ids if "unlearnable" in released.groups else ()
    return Pool(
        items=max(ids, default=-1) + 1,
        twins=0,
        canaries=0,
        prompt=PROMPT,
        families=[f"{place % SUBJECTS}" for place, _ in enumerate(unlearnable_ids)],
        assumption=(
            f"the split is not built: a pool as large as its largest released index, {SUBJECTS} families of one size, "
            f"{PROMPT:g} tokens per prompt"
        ),
    )
