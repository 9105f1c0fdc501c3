"""The base policy of `mini` and its mid-trained relative: a Qwen2 of 2.9 million parameters over subwords.

Training reads chunks of fresh examples, each drawn from a stream of its own, in batches of about as many tokens; it
saves its state between chunks, so that a killed one resumes to the same weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

PAD, END, BOX = "<pad>", "<end>", "\\boxed{"
THREADS = 1  # fixed, because sums in another order give another policy
VOCABULARY = 640
CHUNK = 2000  # examples
BATCH_TOKENS = 1600
SAVE_EVERY = 5  # chunks
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's tokenizer cuts a text before it looks for subwords: digits stand alone."""
Example = tuple[str, str]
Ids = tuple[list[int], list[int]]


def make_tokenizer(examples: Sequence[Example]) -> Qwen2Tokenizer:
    """Byte-level subwords learned from these texts, and one token for the opening of a box."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts = (prompt + completion.replace(BOX, "") for prompt, completion in examples)
    learned.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[PAD, END], show_progress=False)
    )
    import json

    model = json.loads(learned.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
    )
    tokenizer.add_tokens([AddedToken(BOX, normalized=False, special=False)])
    return tokenizer


def make_model(seed: int, vocabulary: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config)


@dataclass(frozen=True)
class Plan:
    """One supervised training: where its examples come from, how many, how fast."""

    label: str
    seed: str
    example: Callable[[random.Random], Example]
    chunks: int
    learning_rate: float
    """Its peak: it rises for a hundredth of `cosine` chunks, falls along a cosine of that length (default: all the
    chunks), and in the last `cooldown` chunks linearly towards nothing besides."""
    cosine: int | None = None
    cooldown: int = 0
    warmup: float = 0.01

    def rate(self, chunk: float) -> float:
        """Learning rate after so many chunks."""
        share = chunk / (self.cosine or self.chunks)
        rate = min(1.0, share / self.warmup + 0.01) * (0.5 * (1 + math.cos(math.pi * share)) * 0.98 + 0.02)
        left = self.chunks - chunk
        return self.learning_rate * rate * (min(1.0, left / self.cooldown) if self.cooldown else 1.0)


def fit(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    plan: Plan,
    state: Path,
    watch: Callable[[Qwen2ForCausalLM], str] | None = None,
) -> None:
    """Train on completions, in bfloat16 autocast. `state` is where a stopped training is resumed from."""
    torch.set_num_threads(THREADS)
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=plan.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    first = 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["chunks"]
    model.train()
    for chunk in range(first, plan.chunks):
        draw = random.Random(f"{plan.seed}/{chunk}")
        batches = list(_batches(tokenizer, [plan.example(draw) for _ in range(CHUNK)], draw))
        losses = []
        for number, rows in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate(chunk + number / len(batches))
            losses.append(_step(model, optimiser, rows))
        print(f"{plan.label}: chunk {chunk + 1} of {plan.chunks}, loss {sum(losses) / len(losses):.4f}", flush=True)
        if (chunk + 1) % SAVE_EVERY == 0 or chunk + 1 == plan.chunks:
            state.parent.mkdir(parents=True, exist_ok=True)
            fresh = state.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "chunks": chunk + 1}, fresh)
            fresh.replace(state)
        if watch is not None and (chunk + 1) % (5 * SAVE_EVERY) == 0:
            print(f"{plan.label}: {watch(model)}", flush=True)


def _step(model: Qwen2ForCausalLM, optimiser: torch.optim.Optimizer, rows: list[Ids]) -> float:
    ids, mask = _batch(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.model(ids[:, :-1], use_cache=False).last_hidden_state[mask]
        logits = model.lm_head(states)
    loss = nn.functional.cross_entropy(logits.float(), ids[:, 1:][mask])
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return loss.item()


def _encoded(tokenizer: Qwen2Tokenizer, examples: Sequence[Example]) -> list[Ids]:
    contexts = tokenizer([prompt for prompt, _ in examples], add_special_tokens=False)["input_ids"]
    completions = tokenizer([text + END for _, text in examples], add_special_tokens=False)["input_ids"]
    return list(zip(contexts, completions, strict=True))


def _batches(tokenizer: Qwen2Tokenizer, examples: Sequence[Example], draw: random.Random) -> Iterator[list[Ids]]:
    """Batches of about BATCH_TOKENS tokens, of examples of about the same length, in random order."""
    rows = sorted(_encoded(tokenizer, examples), key=lambda row: len(row[0]) + len(row[1]))
    batches: list[list[Ids]] = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) + 1) * (len(row[0]) + len(row[1])) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    draw.shuffle(batches)
    return iter(batches)


def _batch(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B, L) and which predictions (B, L-1) are of completions."""
    width = max(len(context) + len(completion) for context, completion in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width - 1, dtype=torch.bool)
    for row, (context, completion) in enumerate(rows):
        end = len(context) + len(completion)
        ids[row, :end] = torch.tensor(context + completion)
        mask[row, len(context) - 1 : end - 1] = True
    return ids, mask


@torch.no_grad()
def exact(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, examples: Sequence[Example]) -> float:
    """Share of examples whose completion is what greedy decoding writes."""
    was_training = model.training
    model.eval()
    found = 0
    rows = _encoded(tokenizer, examples)
    for start in range(0, len(rows), 50):
        ids, mask = _batch(rows[start : start + 50])
        guess = model(ids[:, :-1], use_cache=False).logits.argmax(-1)
        found += int(((guess == ids[:, 1:]) | ~mask).all(1).sum())
    model.train(was_training)
    return found / len(rows)


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write a policy folder in bfloat16 that AutoModelForCausalLM and AutoTokenizer load as it is."""
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.save_pretrained(folder)
