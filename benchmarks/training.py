"""A GRPO step of unlearnbench's loop against one of TRL's GRPOTrainer, where its time goes, and the FLOP floor.

    python -m benchmarks.training [--policy micro/106m] [--repeats 5] [--steps 10]

Both train the policy of `micro` from the same prompts, 40 x 8 rollouts of at most 20 tokens per step, four updates
per step, with the same verifier as the reward, on one thread. Every run starts from the base policy.

`--policy 106m` trains one with random weights and a language model's size (30 layers of 576) instead: 8 x 8 rollouts
of at most 48 tokens per step, two updates per step, on two threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measurement import (
    CLOCK,
    Side,
    Target,
    described,
    one_thread,
    peak_flops,
    progress,
    require,
    table,
    take_turns,
    target_table,
)

if TYPE_CHECKING:
    from benchmarks.grpo import Phases, Work

DROPPED, KEPT, TRL = "unlearnbench, dead groups dropped", "unlearnbench, none dropped", "TRL GRPOTrainer"


@dataclass(frozen=True)
class Case:
    """What is compared, and what was promised: how many times as long as a side of ours TRL takes."""

    promised: Mapping[str, float]
    steps: int
    threads: int = 1
    recipe: Mapping[str, int] | None = None
    """Changes of micro's recipe for a policy with random weights; None for the policy of micro itself."""


CASES = {
    "micro": Case({DROPPED: 5, KEPT: 2}, 10),
    # Random weights are never right, so every group is dead: dropping them would leave nothing to train on.
    "106m": Case({KEPT: 2}, 2, 2, {"prompts_per_step": 8, "max_tokens": 48, "updates_per_batch": 2}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time GRPO steps against TRL's.")
    parser.add_argument("--policy", choices=list(CASES), default="micro", help="what is trained (default micro)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--steps", type=int, help="timed steps of each turn (default 10; of 106m 2)")
    chosen = parser.parse_args()
    require("trl")
    one_thread()
    import torch

    from benchmarks import grpo, grpo_trl, random_policies
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.splits import load_split

    case = CASES[chosen.policy]
    steps = chosen.steps or case.steps
    threads = 1 if CLOCK == "cpu" else case.threads  # waiting for one another, threads use processor time
    torch.set_num_threads(threads)
    done: dict[str, list[Work]] = {name: [] for name in (*case.promised, TRL)}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in done}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if case.recipe is None:
            split = load_split("micro")
        else:
            split = random_policies.split_of(chosen.policy, folder / "split", **case.recipe)
        parameters = load_policy(split.policy_path).parameters

        def once(name: str, turn: int, phases: Phases) -> Work:
            root, out = f"benchmarks/training/{turn}", folder / f"{name}-{turn}"
            if name != TRL:
                return grpo.run(split, out, root, steps, drop=name == DROPPED, phases=phases)
            total = steps + grpo.WARM_UP
            with grpo.training_of(split, folder / f"schedule-{turn}", root, total, drop=True) as training:
                scheduled = grpo.schedule(training, split, total)
            del training
            return grpo_trl.run(split, out, scheduled, turn + 1, phases)

        def side(name: str) -> Callable[[int], float]:
            def measured(turn: int) -> float:
                phases = grpo.Phases()
                work = once(name, turn, phases)
                spent = {phase: seconds / steps for phase, seconds in phases.seconds.items()}
                done[name].append(work)
                parts[name].append(spent | {grpo.REST: max(0.0, work.step - sum(spent.values()))})
                return work.step

            return measured

        peak = peak_flops()
        sides = [Side(name, side(name)) for name in done]
        take_turns(sides, chosen.repeats)
        peak = max(peak, peak_flops())
        progress("")

    print(f"{described('trl', 'torch', 'transformers')}; {_spelt(threads)}")
    print(f"\nMedians of {chosen.repeats} turns of {steps} steps each, after one step to warm up; a turn is a")
    print("run from the base policy. Counts are means per step over all turns.\n")
    _show(case, done, sides, parts)
    print(f"\nThe floor: {parameters:,} parameters, 2 N FLOPs per token forward and 6 N forward and backward, at the")
    print(
        f"{peak / 1e9:.0f} GFLOP/s that {_spelt(threads)} reached in a large float32 matrix product. Every token of a"
    )
    print(
        "rollout is counted; ours computes beginnings that rollouts share once, and in passes of an update the prompts"
        "\nof a group and equal rollouts.\n"
    )
    print(table(["FLOP floor", *done], _floor(done, {one.name: one.median for one in sides}, parameters, peak)))


def _spelt(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


def _show(
    case: Case,
    done: Mapping[str, Sequence[Work]],
    sides: Sequence[Side],
    parts: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """Print seconds and work per step, what was promised, and where the time of a step goes (in seconds, by phase)."""
    from benchmarks.grpo import PHASES

    seconds = {one.name: one.median for one in sides}
    rows = [[one.name, *one.cells(".3f")] for one in sides]
    head = ["GRPO step", "s", "least", "most", "rollouts", "tokens", "updates", "tokens trained"]
    print(table(head, [row + _counts(done[row[0]]) for row in rows]))
    same = len({tuple(work.prompts for work in works) for works in done.values()}) == 1
    print(f"\nsame prompts in every step on all sides: {'yes' if same else 'NO'}\n")
    words = {name: f"TRL's time over ours, {name.partition(', ')[2]}" for name in case.promised}
    print(
        target_table([Target(words[name], seconds[TRL] / seconds[name], most) for name, most in case.promised.items()])
    )
    print("\nWhere the time of a step goes, in ms, medians of the same turns:\n")
    print(table(["ms per step", *done], [
        [phase, *(f"{1000 * statistics.median(one.get(phase, 0.0) for one in parts[name]):.0f}" for name in done)]
        for phase in PHASES
    ]))  # fmt: skip


def _counts(works: Sequence[Work]) -> list[str]:
    """Rollouts, generated tokens, updates and trained tokens per step."""
    steps = sum(work.steps for work in works)
    totals = (
        sum(getattr(work, name) for work in works) / steps for name in ("rollouts", "generated", "updates", "trained")
    )
    return [f"{total:,.4g}" if total < 1000 else f"{total:,.0f}" for total in totals]


def _floor(
    done: Mapping[str, Sequence[Work]], seconds: Mapping[str, float], parameters: int, peak: float
) -> list[list[str]]:
    """GFLOPs per step by phase, the least time they could take, and the measured time over it."""
    flops = {
        name: {
            phase: statistics.mean(work.flops(parameters)[phase] for work in works)
            for phase in works[0].flops(parameters)
        }
        for name, works in done.items()
    }
    rows = [[f"GFLOP, {phase}", *(f"{flops[name][phase] / 1e9:.2f}" for name in done)] for phase in flops[TRL]]
    floors = {name: sum(flops[name].values()) / peak for name in done}
    rows.append(["ms at the core's peak", *(f"{1000 * floors[name]:.0f}" for name in done)])
    rows.append(["measured over that", *(f"{seconds[name] / floors[name]:.1f}" for name in done)])
    return rows


if __name__ == "__main__":
    main()
