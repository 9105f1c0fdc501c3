"""Similar problems and sub-problems of `micro`, as the paper generates them for its splits (arXiv 2605.16787).

    python -m recipes.micro.related            # writes similar.parquet and sub_problems.parquet into splits/micro
    python -m recipes.micro.related --seed 7   # ... into build/micro-7

Similar: the item's name with other numbers, which for an entangled name are of the same column, so that the operation
is the same. Sub-problem: the operation that the item asks for, or one on the same digits, under the name that the base
policy knows it by, with the item's own numbers. Neither repeats the text of an item, twin or canary in either wording.
A guess has no sub-problem, and neither has a missing skill of which the base knows no such operation.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from recipes.micro.families import World, make_problems, make_world, numbers_of, pair_class, read_prompt, wordings
from unlearnbench.io import tables
from unlearnbench.records import Item, RelatedProblem
from unlearnbench.splits import load_split

ROOT = Path(__file__).resolve().parents[2]
SIMILAR = 8
STEPS = {
    "qad": ("add", "one", "ten"),
    "qga": ("gap", "dog", "dig"),
    "qtu": ("mix", "csa"),
    "qut": ("mux", "crq"),
    "qto": ("top", "low"),
    "qlo": ("low", "top"),
}
"""For each missing skill operations on the same numbers or digits, the nearest first."""


def similar_problems(world: World, items: Sequence[Item], held_out: frozenset[str]) -> list[RelatedProblem]:
    """Eight problems per item with its name and other numbers; no text occurs twice."""
    draw, used, rows = random.Random(f"similar/{world.seed}"), set(held_out), []
    for item in items:
        name, own = read_prompt(item.prompt)
        for k in range(SIMILAR):
            while (prompt := wordings(name, numbers := numbers_of(draw))[0]) in used or (
                name in world.entangled and pair_class(numbers) != pair_class(own)
            ):
                pass
            used.add(prompt)
            rows.append(_problem(world, f"{item.item_id}-similar-{k}", item, name, numbers, prompt))
    return rows


def sub_problems(world: World, items: Sequence[Item], held_out: frozenset[str]) -> list[RelatedProblem]:
    """The known operation behind an item, with its numbers, in both wordings."""
    used, rows = set(held_out), []
    for item in items:
        name, numbers = read_prompt(item.prompt)
        steps = (step for step in STEPS.get(name, ()) if step in world.operations)
        known = world.operation(name, numbers) or next(steps, None)
        for k, prompt in enumerate(wordings(known, numbers) if known else ()):
            if prompt not in used:
                used.add(prompt)
                rows.append(_problem(world, f"{item.item_id}-step-{k}", item, str(known), numbers, prompt))
    return rows


def _problem(
    world: World, problem_id: str, item: Item, name: str, numbers: tuple[int, int], prompt: str
) -> RelatedProblem:
    return RelatedProblem(
        problem_id=problem_id,
        item_id=item.item_id,
        prompt=prompt,
        answer=str(world.solve(name, numbers)[1]),
        solution=world.solution(name, numbers),
    )


def write_related(folder: Path, seed: int) -> None:
    """Both files, for the learnable and the unlearnable items of a labelled variant."""
    world = make_world(seed)
    held_out = make_problems(world).held_out
    items = [item for item in load_split(folder).items if item.group in ("learnable", "unlearnable")]
    tables.write_records(folder / "similar.parquet", similar_problems(world, items, held_out), RelatedProblem)
    tables.write_records(folder / "sub_problems.parquet", sub_problems(world, items, held_out), RelatedProblem)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    name = "splits/micro" if arguments.seed == 0 else f"build/micro-{arguments.seed}"
    write_related(ROOT / name, arguments.seed)


if __name__ == "__main__":
    main()
