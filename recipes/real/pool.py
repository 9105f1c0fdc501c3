"""The pool that `curate` labels: SmolLM2-135M-Instruct, arithmetic in words, and a protocol that a CPU can pay for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipes.real.policy import PARAMETERS, WEIGHTS, write_policy
from recipes.real.problems import FAMILIES, make_problems
from unlearnbench.records import Lora, PolicyRef, Protocol, Recipe, Samples, Sampling, SplitConfig
from unlearnbench.splits import Split, write_split

NAME = "smollm2-135m-arithmetic"
MAX_TOKENS = 40


@dataclass(frozen=True)
class Size:
    """How much of everything. Evaluation takes fewer samples than a score needs, and reports that."""

    families: int
    items_a_family: int
    base: int
    fresh: int
    after: int
    twins: int
    runs: int
    steps: int
    prompts: int
    samples: int
    rollouts_per_item: int
    items_per_group: int
    competition: int


FULL = Size(10, 10, 16, 8, 12, 4, 3, 5, 16, 4, 4, 8, 4)
SHORT = Size(5, 3, 4, 2, 4, 2, 1, 2, 4, 2, 2, 3, 1)


def write_pool(folder: Path, policy: Path, size: Size, seed: int) -> Split:
    """Write split.yaml, items, twins and canaries to `folder`, and the policy. The same seed: the same pool."""
    write_policy(policy)
    problems = make_problems(seed, FAMILIES[: size.families], size.items_a_family)
    config = SplitConfig(
        name=NAME,
        description=describe(size),
        seed=seed,
        base_policy=PolicyRef(path=f"../{policy.name}", revision=WEIGHTS, parameters=PARAMETERS),
        protocol=Protocol(
            runs=size.runs,
            samples=Samples(base=size.base, after=size.after, certify=0, base_fresh=size.fresh, twins=size.twins),
            sampling=Sampling(max_tokens=MAX_TOKENS),
        ),
        recipe=Recipe(
            steps=size.steps,
            prompts_per_step=size.prompts,
            group_size=8,
            updates_per_batch=2,
            max_rounds=1,
            max_tokens=MAX_TOKENS,
            learning_rate=5e-4,
            weight_decay=0.0,
            kl=0.0,
            entropy=0.0,
            micro_batch_tokens=1024,
            checkpoint_every=2,
            lora=Lora(),
        ),
        provenance=f"problems by recipes/real, seed {seed}; labels by `unlearnbench curate --sampler vllm` on a CPU",
        licence="Apache-2.0; the base policy, SmolLM2-135M-Instruct, Apache-2.0 too",
    )
    return write_split(folder, config, problems.items, twins=problems.twins, canaries=problems.canaries)


def describe(size: Size) -> str:
    """The description of the split, which says what its labels are worth."""
    return (
        f"Two-digit arithmetic in words for SmolLM2-135M-Instruct. Labels from few samples: {size.runs} short runs, "
        f"{size.base} samples before and {size.after} after, none certified."
    )
