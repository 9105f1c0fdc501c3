"""What gradients are compared on: a random model with random rollouts, and micro's base policy with its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearnbench.diagnosis.packing import ItemRollouts

# numpy and torch are imported in functions: their threads are counted at the import, which comes after `one_thread`.

ROLLOUTS = 20
LAYERS, HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 6, 256, 1024, 4, 2, 512


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
    from unlearnbench.diagnosis.packing import ItemRollouts

    rng = random.Random(0)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(VOCABULARY), k=rng.randint(least, most)))

    return [ItemRollouts(str(i), tokens(30, 60), tuple(tokens(40, 120) for _ in range(ROLLOUTS))) for i in range(count)]


def micro_model() -> Any:
    """The base policy of micro."""
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.splits import load_split

    return load_policy(load_split("micro").policy_path, device="cpu").model


def micro_items(count: int) -> list[ItemRollouts]:
    """Items spread over micro with correct rollouts of the base policy, drawn from those stored, without replacement.

    Where more are asked for than have 20 correct rollouts, items come again, with rollouts drawn anew.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from unlearnbench.diagnosis.packing import ItemRollouts
    from unlearnbench.policies.policy import load_policy
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
