"""The candidates of `smollm2-135m-reasoning`: reasoning-gym tasks and arithmetic in words, with two worked examples.

Quotas and settings are those under which SmolLM2-135M-Instruct is right in 1 to 60 % of its rollouts. Nothing here
knows how well it does on any one problem.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.real.problems import FAMILIES, make_problems, turn
from unlearnbench.curation.reasoning_gym.pool import Task, task_pool
from unlearnbench.records import Canary, Item, Twin

WORDS = tuple(family for family in FAMILIES if family.name not in ("product", "half"))
"""Without products, which it always knows, and halves, of which there are too few for probes."""
WORDS_EACH = 13
PROBES = 4
CANARIES = 6


def _not_negative(raw: Mapping[str, Any]) -> bool:
    return float(raw["answer"]) >= 0


def _plain_step(raw: Mapping[str, Any]) -> bool:
    """v + a = b or v - a = b."""
    return "*" not in raw["metadata"]["equation"]


def _composite(raw: Mapping[str, Any]) -> bool:
    return len(raw["metadata"]["factors"]) > 1


def _proper(raw: Mapping[str, Any]) -> bool:
    return bool(raw["metadata"]["simplified_numerator"] < raw["metadata"]["simplified_denominator"])


@dataclass(frozen=True)
class Quota:
    """So many candidates of a task."""

    family: str
    task: str
    count: int
    settings: Mapping[str, Any]
    fits: Callable[[Mapping[str, Any]], bool] = lambda raw: True


QUOTAS = (
    Quota(
        "sum_two", "chain_sum", 54, {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}, _not_negative
    ),
    Quota(
        "sum_three", "chain_sum", 40, {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}, _not_negative
    ),
    Quota(
        "sum_mixed", "chain_sum", 34, {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 2}, _not_negative
    ),
    Quota(
        "decimals",
        "decimal_chain_sum",
        34,
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "max_decimal_places": 1},
        _not_negative,
    ),
    Quota(
        "countdown",
        "countdown",
        34,
        {"min_numbers": 2, "max_numbers": 3, "max_value": 20, "min_target": 5, "max_target": 40},
    ),
    Quota(
        "basic",
        "basic_arithmetic",
        27,
        {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        _not_negative,
    ),
    Quota("lcm", "lcm", 27, {"min_value": 2, "max_value": 12}),
    Quota("equations", "simple_equations", 27, {"min_terms": 2, "max_terms": 2, "max_value": 50}, _plain_step),
    Quota("legs", "leg_counting", 20, {"min_animals": 1, "max_animals": 2, "max_instances": 4}),
    Quota(
        "fractions",
        "fraction_simplification",
        20,
        {"max_value": 10, "min_factor": 2, "max_factor": 5, "styles": ("plain",)},
        _proper,
    ),
    Quota("primes", "prime_factorization", 14, {"min_value": 4, "max_value": 99}, _composite),
)


@dataclass(frozen=True)
class Problems:
    """Candidates, up to four probes of each, and canaries."""

    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    canaries: tuple[Canary, ...]

    def only(self, item_ids: set[str]) -> Problems:
        """The problems of these items, and the canaries."""
        return Problems(
            tuple(item for item in self.items if item.item_id in item_ids),
            tuple(twin for twin in self.twins if twin.item_id in item_ids),
            self.canaries,
        )


def conversation(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """The prompt of a question: ChatML, with worked examples before it."""
    turns = [turn("user", asked) + turn("assistant", solved) for asked, solved in examples]
    return "".join(turns) + turn("user", question) + "<|im_start|>assistant\n"


def candidates(seed: int) -> Problems:
    """All of them."""
    items: list[Item] = []
    twins: list[Twin] = []
    for quota in QUOTAS:
        task = Task(quota.task, quota.settings, quota.family, quota.fits)
        made = task_pool([task], quota.count, seed=seed, examples=2, render=conversation)
        items += made.items
        twins += made.twins
    words = make_problems(seed, WORDS, WORDS_EACH, len(WORDS), PROBES)
    canaries = random.Random(f"smollm2/{seed}").sample(words.canaries, CANARIES)
    return Problems((*items, *words.items), (*twins, *words.twins), tuple(canaries))
