"""The same steps by TRL's GRPOTrainer: same policy, prompts, rollouts and updates, at its fastest sensible settings.

One batch of 320 rollouts is generated in one call and used for four updates of 80 rollouts (`steps_per_generation`
4, no accumulation). On: cache, scaled-dot-product attention, fused AdamW (its default). Off: gradient checkpointing,
bfloat16 (slower than float32 on this CPU), logging, checkpoints, progress bars, pinned memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.grpo import FORWARD_ONLY, GENERATE, OPTIMISER, UPDATE, VERIFY, Phases, Stamps, Work, ready
from unlearnbench.records import Canary, Item, Recipe
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier


class _Updates(TrainerCallback):  # type: ignore[misc]
    """TRL's step is one update: a step of the loop ends with every `per_step`-th of them."""

    def __init__(self, per_step: int, stamps: Stamps) -> None:
        self.per_step, self.stamps = per_step, stamps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.per_step == 0:
            self.stamps.step_ended()


class _Counts:
    """Counts read from the arguments and results of the trainer's own calls."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.rollouts = self.generated = self.forward = self.trained = self.updates = 0


def run(
    split: Split,
    folder: Path,
    scheduled: Sequence[Sequence[Item | Canary]],
    seed: int,
    phases: Phases | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Work:
    """One step for each entry of `scheduled`; the first WARM_UP are not timed. `changes` are fields of GRPOConfig."""
    recipe, steps = split.config.recipe, len(scheduled)
    items = [item for step in scheduled for item in step]
    counts, stamps = _Counts(), Stamps(phases)
    with Verifier(rule=split.config.protocol.verifier_rule) as verifier, ExitStack() as stack:
        ready(verifier)

        def correct(
            prompts: list[str], completions: list[str], completion_ids: list[list[int]], answer: list[str], **_: Any
        ) -> list[float]:
            counts.prompts += prompts[:: recipe.group_size]
            counts.rollouts += len(completions)
            counts.generated += sum(len(ids) for ids in completion_ids)
            return [float(bool(v.correct)) for v in verifier.verify_many(list(zip(answer, completions, strict=True)))]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about names that TRL still uses
            trainer = GRPOTrainer(
                model=AutoModelForCausalLM.from_pretrained(
                    str(split.policy_path), dtype=torch.float32, attn_implementation="sdpa"
                ),
                reward_funcs=correct,
                args=_settings(recipe, folder, steps, seed, changes or {}),
                train_dataset=Dataset.from_dict(
                    {"prompt": [item.prompt for item in items], "answer": [item.answer for item in items]}
                ),
                processing_class=AutoTokenizer.from_pretrained(str(split.policy_path), padding_side="left"),
                callbacks=[_Updates(recipe.updates_per_batch, stamps)],
            )
            trainer.remove_callback(PrinterCallback)  # prints a summary on standard output
            _watch(trainer, counts, phases, stack)
            trainer.train()
    per_step = recipe.prompts_per_step
    return Work(
        steps=steps,
        seconds=stamps.seconds,
        prompts=tuple(tuple(counts.prompts[k * per_step : (k + 1) * per_step]) for k in range(steps)),
        rollouts=counts.rollouts,
        generated=counts.generated,
        forward=counts.forward,
        trained=counts.trained,
        updates=counts.updates,
    )


def _settings(recipe: Recipe, folder: Path, steps: int, seed: int, changes: Mapping[str, Any]) -> GRPOConfig:
    """The recipe as TRL's settings."""
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": recipe.prompts_per_step * recipe.group_size // recipe.updates_per_batch,
        "steps_per_generation": recipe.updates_per_batch,
        "gradient_accumulation_steps": 1,
        "num_iterations": 1,
        "num_generations": recipe.group_size,
        "max_completion_length": recipe.max_tokens,
        "temperature": recipe.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "beta": recipe.kl,
        "epsilon": recipe.clip_low,
        "epsilon_high": recipe.clip_high,
        "loss_type": "dapo",  # a mean over tokens, as the split's recipe
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": recipe.adam_betas[0],
        "adam_beta2": recipe.adam_betas[1],
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.gradient_clip,
        "max_steps": steps * recipe.updates_per_batch,
        "shuffle_dataset": False,
        "seed": seed,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return GRPOConfig(**given | changes)


def _watch(trainer: Any, counts: _Counts, phases: Phases | None, stack: ExitStack) -> None:
    """Count tokens and updates where the trainer computes them, and time its parts if `phases` is given."""
    logprobs = trainer._get_per_token_logps_and_entropies

    def counted(model: Any, input_ids: Any, attention_mask: Any, *args: Any, **kwargs: Any) -> Any:
        tokens = int(attention_mask.sum())
        if torch.is_grad_enabled():
            counts.trained += tokens
        else:
            counts.forward += tokens
        return logprobs(model, input_ids, attention_mask, *args, **kwargs)

    trainer._get_per_token_logps_and_entropies = counted
    trainer.create_optimizer()

    def update(*_: object) -> None:
        counts.updates += 1

    trainer.optimizer.register_step_post_hook(update)
    if phases is None:
        return

    def kind() -> str:
        return UPDATE if torch.is_grad_enabled() else FORWARD_ONLY

    for owner, name, phase in (
        (trainer, "_generate", GENERATE),
        (trainer, "_calculate_rewards", VERIFY),
        (trainer, "_get_per_token_logps_and_entropies", kind),
        (trainer, "_compute_loss", UPDATE),
        (trainer.accelerator, "backward", UPDATE),
        (trainer.optimizer, "step", OPTIMISER),
        (trainer.accelerator, "clip_grad_norm_", OPTIMISER),
    ):
        stack.enter_context(phases.timing(owner, name, phase))
