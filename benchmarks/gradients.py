"""Gradients of items and their cosines: ours, the paper's way, a clean loop, and the floor of matrix products.

    python -m benchmarks.gradients [--repeats 3] [--items 8] [--micro-items 60] [--spread-items 1000]

All methods (`gradient_methods`) compute the gradients of the same rollouts with respect to the B of the same LoRA
adapter (r 16, alpha 32, on q_proj and v_proj), in float32, from tokens to one vector per item. Peaks are those of a
process that does nothing else. Cosines of many vectors are one Gram matrix, or a loop over pairs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from benchmarks.gradient_methods import (
    CLEAN,
    HIDDEN,
    LAYERS,
    METHODS,
    ONCE,
    OURS,
    PAPER,
    ROLLOUTS,
    distinct,
    micro_items,
    micro_model,
    ours,
    products,
    workload,
)
from benchmarks.measurement import (
    Peak,
    Side,
    Target,
    described,
    in_fresh_process,
    now,
    one_thread,
    peak_flops,
    progress,
    require,
    table,
    take_turns,
    target_table,
    watched,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.gradient_methods import Vectors
    from unlearnbench.policies.packing import ItemRollouts

# numpy and torch are imported in functions: they read the number of threads at import, which must follow `one_thread`.

COSINE_ITEMS, DIMENSION = 300, 1_000_000
PAIRS = 200
"""Pairs of vectors from which a loop's time is extrapolated."""


@dataclass
class Compared:
    """Methods that took turns on the same items: their times, and the vectors of each one's last turn."""

    sides: list[Side]
    made: dict[str, Vectors]
    peaks: dict[str, Peak]

    def seconds(self, name: str) -> float:
        return next(side.median for side in self.sides if side.name == name)

    def ratio(self, name: str) -> float:
        """The time of a method over that of ours."""
        return self.seconds(name) / self.seconds(OURS)

    def difference(self, name: str) -> float:
        """The largest difference of a cosine from ours."""
        import numpy as np

        return float(np.abs(cosines_of(self.made[name]) - cosines_of(self.made[OURS])).max())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the gradients of items, and their cosines.")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--items", type=int, default=8, help="items of the random model (default 8)")
    parser.add_argument("--micro-items", type=int, default=60, help="items of micro, against the loop (default 60)")
    parser.add_argument("--spread-items", type=int, default=1000, help="items of micro, over processes (default 1000)")
    chosen = parser.parse_args()
    require("peft")
    one_thread()
    peak = peak_flops()
    larger = compare("random", chosen.items, (OURS, PAPER, CLEAN), chosen.repeats)
    peak = max(peak, peak_flops())
    small = compare("micro", chosen.micro_items, (OURS, CLEAN, ONCE), chosen.repeats)
    many = micro_items(chosen.spread_items)
    slowest: dict[int, list[float]] = {1: [], 2: []}

    def spread_over(processes: int) -> float:
        seconds, vectors_only = spread(many, processes)
        slowest[processes].append(vectors_only)
        return seconds

    spreads = [Side("one process", lambda _: spread_over(1)), Side("two processes", lambda _: spread_over(2))]
    take_turns(spreads, chosen.repeats)
    vectors_alone = {processes: statistics.median(values) for processes, values in slowest.items()}
    progress("cosines")
    gram_peak = in_fresh_process(peak_of_gram)
    gram, loops = cosine_sides()
    take_turns([gram, *loops], chosen.repeats)
    peak = max(peak, peak_flops())

    print(f"{described('torch', 'transformers', 'peft', 'numpy')}; one thread a process")
    print(f"\nMedians of {chosen.repeats} turns. A random model of {LAYERS} layers x {HIDDEN}, {chosen.items} items x")
    print(f"{ROLLOUTS} rollouts, prompts of 30 to 60 tokens, responses of 40 to 120:\n")
    print_compared(larger, floor("random", chosen.items, peak))
    micro = micro_items(chosen.micro_items)
    print(f"\nThe policy of micro, {len(micro)} items x {ROLLOUTS} of the base policy's correct rollouts as they were")
    print(f"drawn, so that {distinct(micro):,} of {ROLLOUTS * len(micro):,} are different:\n")
    print_compared(small, floor("micro", chosen.micro_items, peak))
    print(f"\nThe floor is the matrix products alone, at the {peak / 1e9:.0f} GFLOP/s that one core reaches in a large")
    print("float32 one: every prompt and different response of an item once, forward and backward through a frozen")
    print("model, and what the adapter adds.")
    print(f"\nThe policy of micro, {chosen.spread_items:,} items x {ROLLOUTS} (some items twice, with other rollouts),")
    print("from the start of the processes to the last vector, and the vectors alone in the slower process:\n")
    rows = [
        [side.name, *side.cells(".2f"), f"{seconds:.2f}"]
        for side, seconds in zip(spreads, vectors_alone.values(), strict=True)
    ]
    print(table(["unlearnbench in", "s", "least", "most", "vectors alone"], rows))
    print(f"\nCosines of {COSINE_ITEMS} vectors of {DIMENSION:,} float32 numbers. A loop's time is extrapolated from")
    beyond = gram_peak.most - gram_peak.before
    print(f"{PAIRS} pairs to {all_pairs():,}. The Gram matrix takes {beyond:,.0f} MiB beyond the vectors.\n")
    rows = [[side.name, *side.cells(".2f"), f"{side.median / gram.median:.1f}"] for side in (gram, *loops)]
    print(table(["cosines", "s", "least", "most", "over ours"], rows))
    print()
    difference = max(side.difference(name) for side in (larger, small) for name in side.made)
    print(target_table([
        Target("the paper's time over ours", larger.ratio(PAPER), 2.4),
        Target("the clean loop's time over ours", larger.ratio(CLEAN), 1.8),
        Target("the clean loop's time over ours, micro", small.ratio(CLEAN), 3),
        Target("largest difference of a cosine, in 1e-5", difference * 1e5, 1, at_most=True, digits=3),
        Target(f"seconds for {chosen.spread_items:,} items, two processes", spreads[1].median, 120, True, 1),
        Target("one process's time over two's, vectors alone", vectors_alone[1] / vectors_alone[2], 1.8),
        Target("the loop over pairs over the Gram matrix", loops[0].median / gram.median, 500, digits=0),
    ]))  # fmt: skip


def print_compared(compared: Compared, least: float) -> None:
    """Print a row for each method, and one for the floor."""
    rows = []
    for side in compared.sides:
        peak, difference = compared.peaks[side.name], compared.difference(side.name)
        ratios = [f"{compared.ratio(side.name):.2f}", f"{side.median / least:.1f}"]
        memory = [f"{peak.before:.0f}", f"{peak.most:.0f}"]
        rows.append([side.name, *side.cells(".2f"), *ratios, f"{difference:.1e}", *memory])
    rows.append(["the floor", f"{least:.2f}", "", "", f"{least / compared.seconds(OURS):.2f}", "1.0", "", "", ""])
    head = ["gradients", "s", "least", "most", "over ours", "over the floor", "cosines", "MiB before", "peak MiB"]
    print(table(head, rows))


# --- gradients in turn ------------------------------------------------------------------------------------------------


def compare(kind: str, count: int, names: Sequence[str], repeats: int) -> Compared:
    """The methods in turn, after one item each to warm up."""
    progress(f"peaks: {kind}")
    peaks = {name: in_fresh_process(peak_of, name, kind, count) for name in names}
    model, items = workload(kind, count)
    made: dict[str, Vectors] = {}

    def side(name: str) -> Side:
        method = METHODS[name](model)
        method(items[:1])

        def once(_: int) -> float:
            began = now()
            made[name] = method(items)
            return now() - began

        return Side(name, once)

    compared = Compared([side(name) for name in names], made, peaks)
    take_turns(compared.sides, repeats)
    return compared


def cosines_of(vectors: Vectors) -> NDArray[np.float64]:
    """(items, items), in float64."""
    import numpy as np

    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    product: NDArray[np.float64] = units @ units.T
    return product


def peak_of(name: str, kind: str, count: int) -> Peak:
    """To be called in a fresh process: its memory before the work, and at most during it."""
    one_thread()
    model, items = workload(kind, count)
    method = METHODS[name](model)
    with watched() as peak:
        method(items)
    return peak()


def floor(kind: str, count: int, peak: float) -> float:
    """Seconds that the matrix products take at a core's peak."""
    return products(*workload(kind, count)) / peak


# --- over processes ---------------------------------------------------------------------------------------------------


def spread(items: Sequence[ItemRollouts], processes: int) -> tuple[float, float]:
    """Items of micro over fresh processes, every n-th each: wall seconds, and the slowest process's vectors alone."""
    began = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(share, [items[place::processes] for place in range(processes)]))
    seconds = time.perf_counter() - began
    if sum(count for count, _ in done) != len(items):
        raise RuntimeError("the processes did not compute all items")
    return seconds, max(alone for _, alone in done)


def share(items: Sequence[ItemRollouts]) -> tuple[int, float]:
    """To be called in a fresh process: how many vectors were made of these items, and the seconds that they took."""
    one_thread()
    method = ours(micro_model())
    began = time.perf_counter()
    made = len(method(items))
    return made, time.perf_counter() - began


# --- cosines ----------------------------------------------------------------------------------------------------------


def all_pairs() -> int:
    """The number of pairs of different vectors."""
    return COSINE_ITEMS * (COSINE_ITEMS - 1) // 2


def many_vectors() -> Vectors:
    """(items, dimension), random: 1.2 GB."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((COSINE_ITEMS, DIMENSION), dtype=np.float32)


def cosine_sides() -> tuple[Side, list[Side]]:
    """The Gram matrix, and loops over pairs: of float32 vectors, and of float16 ones as the paper's script keeps."""
    import numpy as np
    import torch

    from unlearnbench.diagnosis.similarity import gram

    vectors = many_vectors()
    rng = random.Random(1)
    pairs = [tuple(rng.sample(range(COSINE_ITEMS), 2)) for _ in range(PAIRS)]

    def whole(_: int) -> float:
        began = now()
        products = gram(vectors[:, None])
        lengths = np.sqrt(np.diag(products))
        products /= lengths[:, None] * lengths
        return now() - began

    def loop(rows: Tensor) -> Callable[[int], float]:
        def once(_: int) -> float:
            began = now()
            for i, j in pairs:
                torch.nn.functional.cosine_similarity(rows[i].float(), rows[j].float(), dim=0).item()
            return (now() - began) * all_pairs() / PAIRS

        return once

    rows = torch.from_numpy(vectors)
    return Side("the Gram matrix, unlearnbench", whole), [
        Side("a loop over pairs, float32", loop(rows)),
        Side("a loop over pairs, kept in float16", loop(rows.half())),
    ]


def peak_of_gram() -> Peak:
    """Peak memory of the Gram matrix; to be called in a fresh process."""
    one_thread()
    from unlearnbench.diagnosis.similarity import gram

    vectors = many_vectors()
    with watched() as peak:
        gram(vectors[:, None])
    return peak()


if __name__ == "__main__":
    main()
