"""The start of the positive control: SmolLM2-135M-Instruct fine-tuned on worked solutions of other problems.

The problems are those of the candidates' families with other numbers: no question of an item, probe or canary, and in
the families in words no numbers of theirs either. A training text is a conversation of one family, ten problems long;
the loss is taken over the solutions from the third on, so every one follows at least two others, as in the prompts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.real.problems import NAMES, THINGS, Family, worked
from recipes.smollm2.candidates import QUOTAS, WORDS, Problems, conversation
from unlearnbench.curation.reasoning_gym.pool import Task, checked
from unlearnbench.policies.policy import Policy, load_policy, save_policy
from unlearnbench.verifier import Verifier

EACH, GENERATED = 400, 20_000
"""Worked problems of a family, or as many as there are among so many that are generated."""
WIDER: Mapping[str, Mapping[str, Any]] = {
    "lcm": {"max_value": 24},
    "equations": {"max_value": 99},
    "fractions": {"max_value": 20},
    "primes": {"max_value": 400},
}
"""Settings of tasks that have few problems left beside the split's."""
SHOWN, TURNS = 2, 10
STEPS, SEQUENCES, WARMUP = 200, 4, 10
LEARNING_RATE = 5e-5
SAVE_EVERY = 20

Worked = tuple[str, str]
"""Question and solution."""


def make_taught(problems: Problems, base: Path, folder: Path, state: Path, seed: int) -> Path:
    """Fine-tune the policy in `base` and write it to `folder`; `state` is where a stopped training is resumed from."""
    if not (folder / "model.safetensors").is_file():
        torch.set_num_threads(1)  # fixed, because sums in another order give another policy
        policy = load_policy(base)
        fit(policy, worked_problems(problems, seed), seed, state)
        policy.model.bfloat16()
        fresh = folder.with_name(folder.name + ".new")
        save_policy(policy, fresh)
        fresh.rename(folder)
    return folder


def worked_problems(problems: Problems, seed: int) -> dict[str, list[Worked]]:
    """Worked problems of every family, none of which is asked by the split."""
    prompts = [record.prompt for record in (*problems.items, *problems.twins, *problems.canaries)]
    held_out = {_last_question(prompt) for prompt in prompts}
    made: dict[str, list[Worked]] = {}
    with Verifier(workers=1) as verifier:
        for quota in QUOTAS:
            task = Task(quota.task, {**quota.settings, **WIDER.get(quota.family, {})}, quota.family, quota.fits)
            source = checked(task, seed, "taught", verifier, Counter(), set(held_out), GENERATED)
            made[quota.family] = [(entry.question, entry.solution) for entry in islice(source, EACH)]
    for family in WORDS:
        made[family.name] = _in_words(family, held_out, random.Random(f"smollm2/taught/{seed}/{family.name}"))
    return made


def _in_words(family: Family, held_out: Iterable[str], draw: random.Random) -> list[Worked]:
    taken = {_numbers(question) for question in held_out}
    made: dict[str, str] = {}
    for _ in range(GENERATED):
        numbers, (name, other) = family.draw(draw), draw.sample(NAMES, 2)
        wording = draw.choice(family.wordings)
        question = wording.format(*numbers, name=name, other=other, things=draw.choice(THINGS))
        if _numbers(question) not in taken:
            made[question] = worked(*family.solve(numbers))
        if len(made) == EACH:
            break
    return list(made.items())


def _numbers(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", question))


def _last_question(prompt: str) -> str:
    return prompt.rsplit("<|im_start|>user\n", 1)[-1].split("<|im_end|>", 1)[0]


def fit(policy: Policy, examples: Mapping[str, Sequence[Worked]], seed: int, state: Path) -> None:
    """Train all weights with AdamW, products in bfloat16, one conversation a forward pass."""
    model, families = policy.model, sorted(examples)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    first = 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["steps"]
    model.train()
    for step in range(first, STEPS):
        draw = random.Random(f"smollm2/taught/{seed}/{step}")
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * (1 - step / STEPS)
        loss = sum(_backward(policy, draw.sample(examples[draw.choice(families)], TURNS)) for _ in range(SEQUENCES))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        print(f"positive control: step {step + 1} of {STEPS}, loss {loss / SEQUENCES:.4f}", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            fresh = state.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "steps": step + 1}, fresh)
            fresh.replace(state)
    model.eval()


def _backward(policy: Policy, rows: Sequence[Worked]) -> float:
    """Mean loss per token of the solutions after the shown ones; 1 / SEQUENCES of its gradient is added."""
    ids: list[int] = []
    learned: list[bool] = []
    for place, (question, solution) in enumerate(rows):
        asked = (conversation(question, []), False)
        for text, counts in (asked, (f"{solution}<|im_end|>", place >= SHOWN), ("\n", False)):
            piece = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            learned += [counts] * len(piece)
    tokens, mask = torch.tensor([ids]), torch.tensor([learned[1:]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = policy.model.model(tokens[:, :-1], use_cache=False).last_hidden_state[mask]
        logits = policy.model.lm_head(states)
    loss = nn.functional.cross_entropy(logits.float(), tokens[:, 1:][mask])
    (loss / SEQUENCES).backward()  # type: ignore[no-untyped-call]
    return loss.item()
