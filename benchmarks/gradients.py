"""Gradients of items and their cosines: ours, the paper's way, a clean loop, and the floor of matrix products.

    python -m benchmarks.gradients [--repeats 5] [--items 24] [--micro-items 100] [--spread-items 1000]

All ways compute the gradients of the same rollouts with respect to the B of the same LoRA adapter (r 16, alpha 32, on
q_proj and v_proj), in float32, from tokens to one vector an item. "The paper's way" is what its script does: PEFT's
adapter, two rollouts at a time, padded on the right, one backward pass for each of the two through both, and each
rollout's gradients copied from there. "A clean loop" is what one would write by hand: a rollout at a time, logits only
where they are needed, autograd with respect to B alone. Peaks are those of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import described, now, one_thread, peak_flops, require
from benchmarks.memory import high_water
from benchmarks.process import elsewhere
from benchmarks.turns import Side, Target, judged, progress, table, take_turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from unlearnbench.packing import ItemRollouts

    Vectors = NDArray[np.float32]
    """(items, dimension): an item's gradient, the B (outputs, rank) of each module one after another."""

# numpy and torch are imported in functions: their threads are counted at the import, which comes after `one_thread`.

ROLLOUTS, PARTS = 20, 4
LAYERS, HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 6, 256, 1024, 4, 2, 512
COSINE_ITEMS, DIMENSION = 300, 1_000_000
PAIRS = 200
"""Pairs of vectors that a loop's time is extrapolated from."""
OURS, PAPER, CLEAN, ONCE = "unlearnbench", "the paper's way", "a clean loop", "the same, equal rollouts once"


@dataclass
class Compared:
    """Ways that took turns on the same items: their times, and what the last turn of each made."""

    sides: list[Side]
    made: dict[str, Vectors]
    peaks: dict[str, Peak]

    def seconds(self, name: str) -> float:
        return next(side.median for side in self.sides if side.name == name)

    def ratio(self, name: str) -> float:
        """How many times as long as ours a way takes."""
        return self.seconds(name) / self.seconds(OURS)

    def difference(self, name: str) -> float:
        """The largest difference of a cosine from ours."""
        import numpy as np

        return float(np.abs(cosines_of(self.made[name]) - cosines_of(self.made[OURS])).max())


@dataclass(frozen=True)
class Peak:
    """Resident MiB of a process that holds model and items, and the most it held in its work."""

    before: float
    most: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the gradients of items, and their cosines.")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--items", type=int, default=24, help="items of the random model (default 24)")
    parser.add_argument("--micro-items", type=int, default=100, help="items of micro, against the loop (default 100)")
    parser.add_argument("--spread-items", type=int, default=1000, help="items of micro, over processes (default 1000)")
    chosen = parser.parse_args()
    require("peft")
    one_thread()
    peak = peak_flops()
    larger = compare("random", chosen.items, (OURS, PAPER, CLEAN), chosen.repeats)
    peak = max(peak, peak_flops())
    small = compare("micro", chosen.micro_items, (OURS, CLEAN, ONCE), chosen.repeats)
    many = micro_items(chosen.spread_items)
    alone: dict[int, list[float]] = {1: [], 2: []}

    def spread_over(processes: int) -> float:
        seconds, slowest = spread(many, processes)
        alone[processes].append(slowest)
        return seconds

    spreads = [Side("one process", lambda _: spread_over(1)), Side("two processes", lambda _: spread_over(2))]
    take_turns(spreads, chosen.repeats)
    vectors_alone = {processes: statistics.median(values) for processes, values in alone.items()}
    progress("cosines")
    gram_peak = elsewhere(peak_of_gram)
    gram, loops = cosine_sides()
    take_turns([gram, *loops], chosen.repeats)
    peak = max(peak, peak_flops())

    print(f"{described('torch', 'transformers', 'peft', 'numpy')}; one thread a process")
    print(f"\nMedians of {chosen.repeats} turns. A random model of {LAYERS} layers x {HIDDEN}, {chosen.items} items x")
    print(f"{ROLLOUTS} rollouts, prompts of 30 to 60 tokens, responses of 40 to 120:\n")
    print_compared(larger, floor("random", chosen.items, peak))
    micro = micro_items(chosen.micro_items)
    print(f"\nThe policy of micro, {len(micro)} items x {ROLLOUTS} of the base policy's correct rollouts as they were")
    print(f"drawn, so that {different(micro):,} of {ROLLOUTS * len(micro):,} are different:\n")
    print_compared(small, floor("micro", chosen.micro_items, peak))
    print(f"\nThe floor is the matrix products alone, at the {peak / 1e9:.0f} GFLOP/s that one core reaches in a large")
    print("float32 one: every prompt and different response of an item once, forward and backward through a frozen")
    print("model, and what the adapter adds.")
    print(f"\nThe policy of micro, {chosen.spread_items:,} items x {ROLLOUTS} (some items twice, with other rollouts),")
    print("from the start of the processes to the last vector, and the vectors alone in the slower process:\n")
    rows = [
        [side.name, *times(side), f"{seconds:.2f}"]
        for side, seconds in zip(spreads, vectors_alone.values(), strict=True)
    ]
    print(table(["unlearnbench in", "s", "least", "most", "vectors alone"], rows))
    print(f"\nCosines of {COSINE_ITEMS} vectors of {DIMENSION:,} float32 numbers. A loop's time is extrapolated from")
    beyond = gram_peak.most - gram_peak.before
    print(f"{PAIRS} pairs to {all_pairs():,}. The Gram matrix takes {beyond:,.0f} MiB beyond the vectors.\n")
    rows = [[side.name, *times(side), f"{side.median / gram.median:.1f}"] for side in (gram, *loops)]
    print(table(["cosines", "s", "least", "most", "over ours"], rows))
    print()
    difference = max(side.difference(name) for side in (larger, small) for name in side.made)
    print(judged([
        Target("the paper's time over ours", larger.ratio(PAPER), 2.4),
        Target("the clean loop's time over ours", larger.ratio(CLEAN), 1.8),
        Target("the clean loop's time over ours, micro", small.ratio(CLEAN), 3),
        Target("largest difference of a cosine, in 1e-5", difference * 1e5, 1, at_most=True, digits=3),
        Target(f"seconds for {chosen.spread_items:,} items, two processes", spreads[1].median, 120, True, 1),
        Target("one process's time over two's, vectors alone", vectors_alone[1] / vectors_alone[2], 1.8),
        Target("the loop over pairs over the Gram matrix", loops[0].median / gram.median, 500, digits=0),
    ]))  # fmt: skip


def times(side: Side) -> list[str]:
    """Median, least and most."""
    return [f"{value:.2f}" for value in (side.median, min(side.values), max(side.values))]


def print_compared(compared: Compared, least: float) -> None:
    """A row for each way, and one for the floor."""
    rows = []
    for side in compared.sides:
        peak, difference = compared.peaks[side.name], compared.difference(side.name)
        ratios = [f"{compared.ratio(side.name):.2f}", f"{side.median / least:.1f}"]
        rows.append([side.name, *times(side), *ratios, f"{difference:.1e}", f"{peak.before:.0f}", f"{peak.most:.0f}"])
    rows.append(["the floor", f"{least:.2f}", "", "", f"{least / compared.seconds(OURS):.2f}", "1.0", "", "", ""])
    head = ["gradients", "s", "least", "most", "over ours", "over the floor", "cosines", "MiB before", "peak MiB"]
    print(table(head, rows))


# --- models and rollouts ----------------------------------------------------------------------------------------------


def work(kind: str, count: int) -> tuple[Any, list[ItemRollouts]]:
    """The model and the items of a comparison: `random` or `micro`."""
    return (random_model(), random_items(count)) if kind == "random" else (micro_model(), micro_items(count))


def random_model() -> Any:
    """A Qwen2 model with random weights, always the same."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


def random_items(count: int) -> list[ItemRollouts]:
    """Random tokens: prompts of 30 to 60, responses of 40 to 120, all of them different."""
    from unlearnbench.packing import ItemRollouts

    rng = random.Random(0)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(VOCABULARY), k=rng.randint(least, most)))

    return [ItemRollouts(str(i), tokens(30, 60), tuple(tokens(40, 120) for _ in range(ROLLOUTS))) for i in range(count)]


def micro_model() -> Any:
    """The base policy of micro."""
    from unlearnbench.policy import load_policy
    from unlearnbench.splits import load_split

    return load_policy(load_split("micro").policy_path, device="cpu").model


def micro_items(count: int) -> list[ItemRollouts]:
    """Items spread over micro with correct rollouts of the base policy, drawn from those stored, without replacement.

    Where more are asked for than have 20 correct rollouts, items come again, with rollouts drawn anew.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from unlearnbench.packing import ItemRollouts
    from unlearnbench.policy import load_policy
    from unlearnbench.splits import find_split, load_split

    split = load_split("micro")
    policy = load_policy(split.policy_path, device="cpu")
    endings = {item.item_id: f"\\boxed{{{item.answer}}}" for item in split.items}
    stored = pq.read_table(find_split("micro") / "base_rollouts.parquet")
    correct: dict[str, Counter[str]] = {item_id: Counter() for item_id in endings}
    for row in stored.filter(pc.equal(stored["finish"], "stop")).to_pylist():
        if row["completion"].endswith(endings[row["item_id"]]):
            correct[row["item_id"]][row["completion"]] += row["count"]
    able = [item for item in split.items if correct[item.item_id].total() >= ROLLOUTS]
    rng = random.Random(0)
    rng.shuffle(able)
    (stop, *_) = policy.stop_ids
    found = []
    for k in range(count):
        item = able[k % len(able)]
        counts = correct[item.item_id]
        drawn = rng.sample(list(counts), ROLLOUTS, counts=list(counts.values()))
        responses = tuple((*policy.encode(text).tolist(), stop) for text in drawn)
        found.append(ItemRollouts(f"{item.item_id}/{k}", tuple(policy.encode(item.prompt).tolist()), responses))
    return found


def different(items: Sequence[ItemRollouts]) -> int:
    """Different rollouts, each item's by themselves."""
    return sum(len(set(item.responses)) for item in items)


# --- the ways ---------------------------------------------------------------------------------------------------------


def adapted(model: Any) -> list[tuple[str, Any]]:
    """The modules under the adapter, in the model's order."""
    from unlearnbench.gradients import TARGETS

    return [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS]


def downs(model: Any) -> dict[str, Tensor]:
    """A (rank, inputs) of each module: the draws of `unlearnbench.gradients.Adapter`, whose seed is 0."""
    import torch

    from unlearnbench.gradients import RANK

    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, module in adapted(model):
        uniform = torch.rand(RANK, module.in_features, generator=generator, dtype=torch.float64) * 2 - 1
        found[name] = (uniform / module.in_features**0.5).float()
    return found


def ours(model: Any) -> Callable[[Sequence[ItemRollouts]], Vectors]:
    """As `unlearnbench diagnose` computes them, in four parts."""
    import numpy as np

    from unlearnbench.gradients import Adapter, dimension, item_gradients

    def run(items: Sequence[ItemRollouts]) -> Vectors:
        out = np.zeros((len(items), PARTS, dimension(model, Adapter())), dtype=np.float32)
        item_gradients(model, items, out)
        mean: Vectors = out.mean(1)
        return mean

    return run


def papers_way(model: Any) -> Callable[[Sequence[ItemRollouts]], Vectors]:
    """PEFT's adapter, micro-batches of two, one backward pass a rollout through both."""
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model

    from unlearnbench.gradients import ALPHA, RANK, TARGETS

    started = downs(model)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=list(TARGETS))
    wrapped = get_peft_model(copy.deepcopy(model), config)
    wrapped.eval()
    trained = [(name, weight) for name, weight in wrapped.named_parameters() if weight.requires_grad]
    with torch.no_grad():
        for name, weight in trained:
            if "lora_A" in name:
                weight.copy_(started[name.removeprefix("base_model.model.").partition(".lora_A")[0]])

    def gradient(pair: Sequence[tuple[int, ...]], prompt: tuple[int, ...]) -> Iterator[Tensor]:
        rows = [torch.tensor(prompt + response) for response in pair]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        places = torch.arange(ids.shape[1])
        lengths = torch.tensor([len(row) for row in rows])
        logits = wrapped(input_ids=ids, attention_mask=(places < lengths[:, None]).long(), use_cache=False).logits
        scores = torch.log_softmax(logits[:, :-1], dim=-1).gather(2, ids[:, 1:, None])[..., 0]
        response = (places[1:] >= len(prompt)) & (places[1:] < lengths[:, None])
        losses = -(scores * response).sum(1) / response.sum(1)
        for k, loss in enumerate(losses):
            wrapped.zero_grad()
            loss.backward(retain_graph=k + 1 < len(losses))
            yield torch.cat([weight.grad.detach().cpu().flatten() for _, weight in trained])

    def run(items: Sequence[ItemRollouts]) -> Vectors:
        b_only = torch.cat([torch.full((weight.numel(),), "lora_B" in name) for name, weight in trained])
        found = []
        for item in items:
            pairs = [item.responses[k : k + 2] for k in range(0, len(item.responses), 2)]
            gradients = [one for pair in pairs for one in gradient(pair, item.prompt)]
            found.append(torch.stack(gradients).mean(0)[b_only].numpy())
        return np.stack(found)

    return run


def clean_loop(model: Any, *, once: bool = False) -> Callable[[Sequence[ItemRollouts]], Vectors]:
    """A rollout at a time, through modules whose output has the adapter's added; with `once`, equal rollouts once."""
    import numpy as np
    import torch

    from unlearnbench.gradients import ALPHA, RANK

    started = downs(model)
    model = copy.deepcopy(model).requires_grad_(False)
    modules = adapted(model)
    ups = [torch.zeros(module.out_features, RANK, requires_grad=True) for _, module in modules]

    def hook(down: Tensor, up: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
        return lambda _, inputs, output: output + ALPHA / RANK * ((inputs[0] @ down.T) @ up.T)

    for (name, module), up in zip(modules, ups, strict=True):
        module.register_forward_hook(hook(started[name], up))

    def gradient(prompt: tuple[int, ...], response: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([prompt + response])
        # `logits_to_keep` counts from the end: the predictions of the response, and the one after it.
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :])
        return torch.cat([found.flatten() for found in torch.autograd.grad(loss, ups)])

    def run(items: Sequence[ItemRollouts]) -> Vectors:
        found = np.zeros((len(items), sum(up.numel() for up in ups)), dtype=np.float32)
        for place, item in enumerate(items):
            shares = Counter(item.responses).items() if once else [(response, 1) for response in item.responses]
            for response, count in shares:
                found[place] += gradient(item.prompt, response).numpy() * (count / len(item.responses))
        return found

    return run


WAYS: dict[str, Callable[[Any], Callable[[Sequence[ItemRollouts]], Vectors]]] = {
    OURS: ours,
    PAPER: papers_way,
    CLEAN: clean_loop,
    ONCE: lambda model: clean_loop(model, once=True),
}


def compare(kind: str, count: int, names: Sequence[str], repeats: int) -> Compared:
    """The ways in turn, after one item each to warm up."""
    progress(f"peaks: {kind}")
    peaks = {name: elsewhere(peak_of, name, kind, count) for name in names}
    model, items = work(kind, count)
    made: dict[str, Vectors] = {}

    def side(name: str) -> Side:
        way = WAYS[name](model)
        way(items[:1])

        def once(_: int) -> float:
            began = now()
            made[name] = way(items)
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
    """In a process of its own: what it holds before the work, and at most."""
    one_thread()
    model, items = work(kind, count)
    way = WAYS[name](model)
    with watched() as peak:
        way(items)
    return peak()


@contextmanager
def watched() -> Iterator[Callable[[], Peak]]:
    """The peak of what is done inside, known after it. Peaks before it are forgotten where the system can do so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = high_water(os.getpid()) / 1024
    after = before

    yield lambda: Peak(before, after)
    after = high_water(os.getpid()) / 1024


# --- the floor --------------------------------------------------------------------------------------------------------


def floor(kind: str, count: int, peak: float) -> float:
    """Seconds that the matrix products take at a core's peak."""
    return products(*work(kind, count)) / peak


def products(model: Any, items: Sequence[ItemRollouts]) -> int:
    """FLOPs of the matrix products: a prompt and its different responses once, forward and back to what is adapted.

    A product of (n, k) and (k, m) takes 2 n k m. Backward, a frozen module's takes as many again (for its input). The
    modules that read the first layer's input need none, since nothing before them is adapted. A token that sees k
    tokens has 2 products forward and 4 backward, of 2 k x width each, width being that of all heads. The head works
    where a token is predicted; a response's last token predicts none and is not read. The adapter needs A x and one
    product for B's gradient.
    """
    from unlearnbench.gradients import RANK

    config = model.config
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    head = model.get_output_embeddings().weight.numel()
    linear = [(name, module) for name, module in model.base_model.named_modules() if hasattr(module, "in_features")]
    forward = sum(module.weight.numel() for _, module in linear)
    first = ("q_proj", "k_proj", "v_proj")
    unneeded = sum(m.weight.numel() for name, m in linear if name.startswith("layers.0.") and name.endswith(first))
    adapter = sum(RANK * (module.in_features + module.out_features) for _, module in adapted(model))
    flops = 0
    for item in items:
        prompt, read = len(item.prompt), [len(response) - 1 for response in set(item.responses)]
        tokens = prompt + sum(read)
        sees = prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in read)
        flops += tokens * 2 * (2 * forward - unneeded + adapter)
        flops += sees * config.num_hidden_layers * 6 * 2 * width
        flops += sum(n + 1 for n in read) * 2 * 2 * head
    return flops


# --- processes, and cosines -------------------------------------------------------------------------------------------


def spread(items: Sequence[ItemRollouts], processes: int) -> tuple[float, float]:
    """Items of micro over fresh processes, each with every n-th: seconds on the wall, and of the slowest's vectors."""
    began = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(share, [items[place::processes] for place in range(processes)]))
    seconds = time.perf_counter() - began
    if sum(count for count, _ in done) != len(items):
        raise RuntimeError("the processes did not compute all items")
    return seconds, max(alone for _, alone in done)


def share(items: Sequence[ItemRollouts]) -> tuple[int, float]:
    """In a process: how many vectors it made of its items, and the seconds that they took."""
    one_thread()
    way = ours(micro_model())
    began = time.perf_counter()
    made = len(way(items))
    return made, time.perf_counter() - began


def all_pairs() -> int:
    """Pairs of different vectors."""
    return COSINE_ITEMS * (COSINE_ITEMS - 1) // 2


def many_vectors() -> Vectors:
    """(items, dimension), random: 1.2 GB."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((COSINE_ITEMS, DIMENSION), dtype=np.float32)


def cosine_sides() -> tuple[Side, list[Side]]:
    """The Gram matrix, and loops over pairs: of float32 vectors, and of float16 ones as its script keeps."""
    import numpy as np
    import torch

    from unlearnbench.similarity import gram

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
    """In a process of its own."""
    one_thread()
    from unlearnbench.similarity import gram

    vectors = many_vectors()
    with watched() as peak:
        gram(vectors[:, None])
    return peak()


if __name__ == "__main__":
    main()
