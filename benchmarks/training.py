"""A GRPO step of unlearnbench's loop against one of TRL's GRPOTrainer, where its time goes, and the FLOP floor.

    python -m benchmarks.training [--repeats 5] [--steps 10]

Both train the policy of `micro` from the same prompts, 40 x 8 rollouts of at most 20 tokens per step, four updates
per step, with the same verifier as the reward, on one thread. Every run starts from the base policy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measurement import (
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time GRPO steps against TRL's.")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each turn (default 10)")
    chosen = parser.parse_args()
    require("trl")
    one_thread()
    from benchmarks import grpo, grpo_trl
    from benchmarks.grpo import Phases
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.splits import load_split

    done: dict[str, list[Work]] = {DROPPED: [], KEPT: [], TRL: []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        split = load_split("micro")
        parameters = load_policy(split.policy_path).parameters

        def once(name: str, turn: int, steps: int, phases: Phases | None = None) -> Work:
            root, out = f"benchmarks/training/{turn}", folder / f"{name}-{turn}"
            if name != TRL:
                return grpo.run(split, out, root, steps, drop=name == DROPPED, phases=phases)
            steps += grpo.WARM_UP
            with grpo.training_of(split, folder / f"schedule-{turn}", root, steps, drop=True) as training:
                scheduled = grpo.schedule(training, split, steps)
            return grpo_trl.run(split, out, scheduled, turn + 1, phases)

        def side(name: str) -> Callable[[int], float]:
            def measured(turn: int) -> float:
                done[name].append(once(name, turn, chosen.steps))
                return done[name][-1].step

            return measured

        peak = peak_flops()
        sides = [Side(name, side(name)) for name in done]
        take_turns(sides, chosen.repeats)
        where: dict[str, dict[str, float]] = {}
        for name in done:
            progress(f"where the time goes: {name}")
            phases = Phases()
            work = once(name, chosen.repeats, chosen.steps, phases)
            spent = {phase: seconds / chosen.steps for phase, seconds in phases.seconds.items()}
            where[name] = spent | {grpo.REST: max(0.0, work.step - sum(spent.values()))}
        peak = max(peak, peak_flops())
        progress("")

    _show(done, sides, where, parameters, peak, chosen)


def _show(
    done: Mapping[str, Sequence[Work]],
    sides: Sequence[Side],
    where: Mapping[str, Mapping[str, float]],
    parameters: int,
    peak: float,
    chosen: argparse.Namespace,
) -> None:
    """Print every table: seconds and work per step, where its time goes (in seconds, by phase), the FLOP floor."""
    from benchmarks.grpo import PHASES

    seconds = {one.name: one.median for one in sides}
    print(f"{described('trl', 'torch', 'transformers')}; one thread")
    print(f"\nMedians of {chosen.repeats} turns of {chosen.steps} steps each, after one step to warm up; a turn is a")
    print("run from the base policy. Counts are means per step over all turns.\n")
    rows = [[one.name, *one.cells(".3f")] for one in sides]
    head = ["GRPO step", "s", "least", "most", "rollouts", "tokens", "updates", "tokens trained"]
    print(table(head, [row + _counts(done[row[0]]) for row in rows]))
    same = len({tuple(work.prompts for work in works) for works in done.values()}) == 1
    print(f"\nsame prompts in every step on all sides: {'yes' if same else 'NO'}\n")
    print(target_table([
        Target("TRL's time over ours, dead groups dropped", seconds[TRL] / seconds[DROPPED], 3),
        Target("TRL's time over ours, none dropped", seconds[TRL] / seconds[KEPT], 1.5),
    ]))  # fmt: skip
    print("\nWhere the time of a step goes, in ms (one more turn of each, with its parts timed):\n")
    print(table(["ms per step", *done], [
        [phase, *(f"{1000 * where[name].get(phase, 0.0):.0f}" for name in done)] for phase in PHASES
    ]))  # fmt: skip
    print(f"\nThe floor: {parameters:,} parameters, 2 N FLOPs per token forward and 6 N forward and backward, at the")
    print(
        f"{peak / 1e9:.0f} GFLOP/s that one core reaches in a large float32 matrix product. Every token of a rollout is"
    )
    print(
        "counted; ours computes beginnings that rollouts share, and the reference of rollouts that are equal, once.\n"
    )
    print(table(["FLOP floor", *done], _floor(done, seconds, parameters, peak)))


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
    rows = [[f"GFLOP, {phase}", *(f"{flops[name][phase] / 1e9:.2f}" for name in done)] for phase in flops[DROPPED]]
    floors = {name: sum(flops[name].values()) / peak for name in done}
    rows.append(["ms at the core's peak", *(f"{1000 * floors[name]:.0f}" for name in done)])
    rows.append(["measured over that", *(f"{seconds[name] / floors[name]:.1f}" for name in done)])
    return rows


if __name__ == "__main__":
    main()
