"""The base policy of `micro` and its mid-trained relative: a Qwen2 of 0.4 million parameters over characters."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz+-*%=;:>,& "
PAD, END, BOX = "<pad>", "<end>", "\\boxed{"
THREADS = 1  # fixed, because sums in another order give another policy
Example = tuple[str, str]


def make_tokenizer() -> Qwen2Tokenizer:
    """One token a character, and one for the opening of a box. Every text of the families comes back unchanged.

    A real Qwen2Tokenizer without merges: transformers 5 goes by the model type and loads that class whatever the
    folder's configuration names, and it would drop the spaces of any other character tokenizer without a word.
    """
    space = "\u0120"  # how the byte-level alphabet of this class writes a space
    vocabulary = {token: i for i, token in enumerate([PAD, END, "}", *CHARACTERS.replace(" ", space)])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=PAD, eos_token=END, pad_token=PAD)
    tokenizer.add_tokens([AddedToken(BOX, normalized=False, special=False)])
    return tokenizer


def make_model(seed: int, vocabulary: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config)


def _batch(tokenizer: Qwen2Tokenizer, examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B, L) and the mask (B, L-1) of predictions inside completions."""
    contexts = tokenizer([prompt for prompt, _ in examples], add_special_tokens=False)["input_ids"]
    completions = tokenizer([text + END for _, text in examples], add_special_tokens=False)["input_ids"]
    width = max(len(c) + len(t) for c, t in zip(contexts, completions, strict=True))
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros(len(examples), width - 1)
    for row, (context, completion) in enumerate(zip(contexts, completions, strict=True)):
        ids[row, : len(context) + len(completion)] = torch.tensor(context + completion)
        mask[row, len(context) - 1 : len(context) + len(completion) - 1] = 1.0
    return ids, mask


def fit(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    example: Callable[[random.Random], Example],
    *,
    steps: int,
    seed: str,
    label: str,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
) -> float:
    """Supervised training on completions; returns the mean loss of the last 100 steps."""
    torch.set_num_threads(THREADS)
    draw = random.Random(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    recent: list[float] = []
    model.train()
    for step in track(range(steps), description=label, disable=None):
        share = min(1.0, (step + 1) / 100) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.02)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * share
        ids, mask = _batch(tokenizer, [example(draw) for _ in range(batch_size)])
        logits = model(ids[:, :-1]).logits
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * mask.flatten()).sum() / mask.sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-99:], loss.item()]
        if step % 250 == 0:
            print(f"{label}: step {step} of {steps}, loss {loss.item():.4f}", flush=True)
    return sum(recent) / len(recent)


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write a policy folder that AutoModelForCausalLM and AutoTokenizer load as it is."""
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
