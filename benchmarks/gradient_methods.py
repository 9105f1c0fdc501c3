"""Methods for the gradients of items (ours, the paper's, a clean loop), the FLOP floor, and what they are compared on.

"The paper's way" is what its script does: PEFT's adapter, two rollouts at a time, padded on the right, one backward
pass for each of the two through both, and each rollout's gradients copied from there. "A clean loop" is what one would
write by hand: one rollout at a time, logits only where they are needed, autograd with respect to B alone.

They are compared on a random model with random rollouts, and on micro's base policy with its own.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from unlearnbench.policies.packing import ItemRollouts

    Vectors = NDArray[np.float32]
    """(items, dimension): the gradients of an item with respect to each module's B (outputs, rank), concatenated."""

# numpy and torch are imported in functions: they read the number of threads at import, which must follow `one_thread`.

PARTS = 4
ROLLOUTS = 20
LAYERS, HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 6, 256, 1024, 4, 2, 512
OURS, PAPER, CLEAN, ONCE = "unlearnbench", "the paper's way", "a clean loop", "the same, equal rollouts once"


def adapted(model: Any) -> list[tuple[str, Any]]:
    """The modules with an adapter, in the model's order."""
    from unlearnbench.diagnosis.gradients import TARGETS

    return [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in TARGETS]


def downs(model: Any) -> dict[str, Tensor]:
    """A (rank, inputs) of each module: the draws of `unlearnbench.diagnosis.gradients.Adapter`, whose seed is 0."""
    import torch

    from unlearnbench.diagnosis.gradients import RANK

    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, module in adapted(model):
        uniform = torch.rand(RANK, module.in_features, generator=generator, dtype=torch.float64) * 2 - 1
        found[name] = (uniform / module.in_features**0.5).float()
    return found


def ours(model: Any) -> Callable[[Sequence[ItemRollouts]], Vectors]:
    """As `unlearnbench diagnose` computes them, in four parts."""
    import numpy as np

    from unlearnbench.diagnosis.gradients import Adapter, dimension, item_gradients

    def run(items: Sequence[ItemRollouts]) -> Vectors:
        out = np.zeros((len(items), PARTS, dimension(model, Adapter())), dtype=np.float32)
        item_gradients(model, items, out)
        mean: Vectors = out.mean(1)
        return mean

    return run


def papers_way(model: Any) -> Callable[[Sequence[ItemRollouts]], Vectors]:
    """PEFT's adapter, micro-batches of two, one backward pass per rollout through both."""
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model

    from unlearnbench.diagnosis.gradients import ALPHA, RANK, TARGETS

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
    """One rollout at a time, the adapter's output added to each module's; with `once`, equal rollouts once."""
    import numpy as np
    import torch

    from unlearnbench.diagnosis.gradients import ALPHA, RANK

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


METHODS: dict[str, Callable[[Any], Callable[[Sequence[ItemRollouts]], Vectors]]] = {
    OURS: ours,
    PAPER: papers_way,
    CLEAN: clean_loop,
    ONCE: lambda model: clean_loop(model, once=True),
}


def products(model: Any, items: Sequence[ItemRollouts]) -> int:
    """FLOPs of the matrix products: a prompt and its different responses once, forward and back to what is adapted.

    A product of (n, k) and (k, m) takes 2 n k m. Backward, a frozen module's takes as many again (for its input). The
    modules that read the first layer's input need none, since nothing before them is adapted. A token that sees k
    tokens has 2 products forward and 4 backward, of 2 k x width each, width being that of all heads. The head works
    where a token is predicted; a response's last token predicts none and is not read. The adapter needs A x and one
    product for B's gradient.
    """
    from unlearnbench.diagnosis.gradients import RANK

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


# --- models and items -------------------------------------------------------------------------------------------------


def workload(kind: str, count: int) -> tuple[Any, list[ItemRollouts]]:
    """The model and the items of a comparison; `kind` is `random` or `micro`."""
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
    from unlearnbench.policies.packing import ItemRollouts

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

    If more are wanted than have 20 correct rollouts, items repeat, with other rollouts drawn.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from unlearnbench.policies.packing import ItemRollouts
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


def distinct(items: Sequence[ItemRollouts]) -> int:
    """The number of different rollouts, counted per item and added up."""
    return sum(len(set(item.responses)) for item in items)
