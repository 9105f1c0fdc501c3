"""Whether the steps of a right rollout are right: every equation in it holds, and it uses the numbers it was given.

A rollout is *sound* if it has at least one equation, all of its equations hold, every number that the reference
solution starts from stands in it, and its last equation gives the answer. The paper asks a judge model (arXiv
2605.16787); here the steps are arithmetic, so they can be checked.

    python -m recipes.smollm2.soundness    # counts the rollouts of the labelling runs, writes SOUND
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from unlearnbench.curation.reasoning_gym.golds import calculated
from unlearnbench.io import files
from unlearnbench.records import Item
from unlearnbench.splits import load_split
from unlearnbench.training.ledger import read_ledger
from unlearnbench.verifier.task_scorer import stated_gold

QUARTERS = 4
SOUND = Path(__file__).with_name("soundness.json")
_STEP = re.compile(r"[,;]|\.(?=\s|$)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def equations(text: str) -> list[list[Fraction]] | None:
    """Values of both (or more) sides of each equation in a working; None where a side is not a formula of numbers."""
    found = []
    for step in _STEP.split(text.split("\\boxed")[0]):
        sides = [side.strip().replace("\u00d7", "*") for side in step.split("=")]
        if len(sides) < 2:
            continue
        if re.fullmatch(r"(?:-?\d+\*)?[a-z]", sides[0]):  # the unknown of an equation that is solved
            sides = sides[1:]
        try:
            found.append([calculated(side) for side in sides])
        except (ValueError, ZeroDivisionError):
            return None
    return found


def given(solution: str) -> Counter[str]:
    """Numbers that a reference solution starts from: those in it that no step before has made."""
    made: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for step in _STEP.split(solution.split("\\boxed")[0]):
        left, *results = step.split("=")
        for number in _NUMBER.findall(left):
            if made[number]:
                made[number] -= 1
            else:
                used[number] += 1
        made.update(number for result in results for number in _NUMBER.findall(result))
    return used


def sound(item: Item, completion: str) -> bool:
    """Whether a right rollout of an item is sound."""
    working = completion.split("\\boxed")[0]
    steps = equations(completion)
    if not steps or any(len(set(step)) > 1 for step in steps):
        return False
    if item.family != "countdown":  # of its many ways each uses all numbers, or its scorer refuses it
        have = Counter(_NUMBER.findall(working))
        if any(have[number] < count for number, count in given(item.solution).items()):
            return False
    gold = stated_gold(item.answer)
    return not re.fullmatch(r"-?\d+(?:\.\d+)?", gold) or steps[-1][-1] == Fraction(gold)


@dataclass(frozen=True)
class Soundness:
    """Right rollouts of a group in one quarter of training, and the sound ones among them."""

    right: int
    sound: int


def by_quarter(
    rollouts: Iterable[Mapping[str, object]], items: Mapping[str, Item], steps: int
) -> dict[tuple[str, int], Soundness]:
    """By group and quarter (1 to 4): rows of a ledger (`step`, `item_id`, `correct`, `completion`)."""
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for row in rollouts:
        item = items.get(str(row["item_id"]))
        if item is None or not row["correct"]:
            continue
        quarter = min(QUARTERS, 1 + QUARTERS * int(str(row["step"])) // max(steps, 1))
        cell = counts[str(item.group), quarter]
        cell[0] += 1
        cell[1] += sound(item, str(row["completion"]))
    return {key: Soundness(*cell) for key, cell in counts.items()}


def count_runs(problems: Iterable[Item], runs: Path) -> list[dict[str, object]]:
    """Soundness by group and quarter over the labelling runs in a folder, one record each."""
    items = {item.item_id: item for item in problems}
    total: dict[tuple[str, int], Soundness] = defaultdict(lambda: Soundness(0, 0))
    for run in sorted(path for path in runs.iterdir() if path.is_dir()):
        rows = read_ledger(run, ["step", "item_id", "correct", "completion"]).to_pylist()
        for key, of in by_quarter(rows, items, 1 + max(row["step"] for row in rows)).items():
            total[key] = Soundness(total[key].right + of.right, total[key].sound + of.sound)
    return [{"group": group, "quarter": quarter} | asdict(of) for (group, quarter), of in sorted(total.items())]


def read_soundness(path: Path) -> dict[tuple[str, int], Soundness]:
    """What `count_runs` found, by group and quarter; empty where it has not been written."""
    rows = json.loads(path.read_text()) if path.is_file() else []
    return {(row["group"], row["quarter"]): Soundness(row["right"], row["sound"]) for row in rows}


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    name = "smollm2-135m-reasoning"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", type=Path, default=root / "splits" / name)
    parser.add_argument("--runs", type=Path, default=root / "build" / name / "curation" / "runs")
    given = parser.parse_args()
    files.write_json(SOUND, count_runs(load_split(given.split).items, given.runs))


if __name__ == "__main__":
    main()
