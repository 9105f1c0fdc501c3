"""A `Method` inside TRL's GRPOTrainer, as far as that trainer leaves room: its rewards, advantages and state.

    from unlearnbench.adapters.trl_method import MethodTrainer, grpo_arguments, method_named

    method = method_named("pass_at_k", load_split("micro").config.recipe)
    MethodTrainer(method, args=GRPOConfig(output_dir="out", **grpo_arguments(method)), model=..., train_dataset=...)

TRL chooses the items, draws the rollouts and computes the loss; what a method changes of those would be left out
silently, so a method that overrides another hook than `CARRIED` is refused by name (`why_not`). The data set is that of
`unlearnbench export --format trl`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer

from unlearnbench.adapters.trl import Completion, text_of
from unlearnbench.errors import DataError, MethodError
from unlearnbench.method import ZERO_SIGNAL, Method, PoolItem, Visit, overridden, settings_of
from unlearnbench.methods import load, locate
from unlearnbench.records import Recipe, Rollout, RolloutGroup, Tokens
from unlearnbench.rng import shuffled, stream
from unlearnbench.training.checkpoint import read_method, save_method
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.rollouts import without_failures
from unlearnbench.verifier import gold_texts, verify_golds

CARRIED = ("setup", "reward", "keep", "advantages", "state_dict", "load_state_dict")
"""The hooks that TRL's trainer leaves room for."""
STATE = "method.json"
"""Of a method's state, in a checkpoint of TRL's."""
_LOSS_TYPES = {"token_mean": "dapo", "sequence_mean": "grpo", "constant": "dr_grpo"}


def method_named(name: str, recipe: Recipe, **settings: Any) -> Method:
    """The method that `--method name` means, with the settings that it has on a split of this recipe.

    Raises MethodNotFound, and pydantic.ValidationError for a setting that it does not have.
    """
    cls: type[Method] = load(locate(name))
    return cls(settings_of(cls, recipe, settings))


def why_not(method: type[Method]) -> str | None:
    """The sentence for a method that cannot run inside TRL; None for one that can."""
    if method.start != "base":
        return f"{method.__name__} starts from another policy than the base; give TRL that policy, and train Method."
    if method.entropies:
        return f"{method.__name__} needs entropies, which TRL's GRPOTrainer gives no method; use `unlearnbench eval`."
    lost = [hook for hook in overridden(method) if hook not in CARRIED]
    if not lost:
        return None
    return (
        f"{method.__name__} overrides {', '.join(lost)}, which TRL's GRPOTrainer has no place for (it has one for "
        f"{', '.join(CARRIED)}); train it by `unlearnbench eval`."
    )


def grpo_arguments(method: Method) -> dict[str, Any]:
    """Arguments of GRPOConfig that say what the method's settings say; a batch is on one device as a whole.

    Two things are not the same there. A group without signal stays in the loss's denominator; and `entropy_coef` weighs
    the mean entropy of a batch's tokens, whatever the aggregation.
    """
    settings: Recipe = method.settings
    rollouts = settings.prompts_per_step * settings.group_size
    if rollouts % settings.updates_per_batch:
        raise MethodError(
            f"TRL cuts the {rollouts} rollouts of a step into {settings.updates_per_batch} equal updates, which does "
            "not come out even; choose another prompts_per_step or updates_per_batch"
        )
    return {
        "num_generations": settings.group_size,
        "per_device_train_batch_size": rollouts // settings.updates_per_batch,
        "steps_per_generation": settings.updates_per_batch,
        "gradient_accumulation_steps": 1,
        "max_steps": settings.steps * settings.updates_per_batch,
        "temperature": settings.temperature,
        "top_p": 1.0,
        "max_completion_length": settings.max_tokens,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": settings.warmup_steps * settings.updates_per_batch,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_betas[0],
        "adam_beta2": settings.adam_betas[1],
        "max_grad_norm": settings.gradient_clip,
        "epsilon": settings.clip_low,
        "epsilon_high": settings.clip_high,
        "beta": settings.kl,
        "entropy_coef": settings.entropy,
        "loss_type": _LOSS_TYPES[settings.aggregation],
        "disable_dropout": True,
    }


class TrlServices:
    """What `self.run` can offer inside TRL: the pool, the step and named randomness; anything else is refused."""

    def __init__(self, trainer: MethodTrainer) -> None:
        self._trainer = trainer
        self._root = stream("trl", trainer.args.seed)
        rows = trainer.train_dataset
        prompts = dict(zip(rows["item_id"], map(text_of_prompt, rows["prompt"]), strict=True))
        self.items = tuple(PoolItem(item_id, prompt) for item_id, prompt in prompts.items())
        self.visits: dict[str, list[Visit]] = {}
        self._pool = {item.item_id: item for item in self.items}

    @property
    def seed(self) -> int:
        return int(self._trainer.args.seed)

    @property
    def step(self) -> int:
        return int(self._trainer.state.global_step)

    @property
    def progress(self) -> float:
        return min(1.0, self.step / max(1, int(self._trainer.state.max_steps)))

    def item(self, item_id: str) -> PoolItem:
        if item_id not in self._pool:
            raise MethodError(f"The method asked for the item {item_id!r}, which is not in the pool of self.run.items.")
        return self._pool[item_id]

    def shuffled(self, values: Sequence[Any], *names: object) -> list[Any]:
        return shuffled(values, str(self._root), "method", *names)

    def random(self, *names: object) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=stream(self._root, "method", self.step, *names)))

    def history(self, item_id: str) -> Sequence[Visit]:
        return tuple(self.visits.get(item_id, ()))

    def encode(self, prompt: str) -> Tokens:
        return self._trainer.prompt_tokens(prompt)

    def __getattr__(self, name: str) -> Any:
        raise MethodError(f"The method asked for self.run.{name}, which TRL does not have; use `unlearnbench eval`.")


class MethodTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL has no types
    """GRPOTrainer whose rewards and advantages are a method's; its other arguments are GRPOTrainer's own.

    Raises MethodError for a method that overrides a hook outside `CARRIED` and wherever `unlearnbench eval` would for
    what a hook returns, and DataError for a data set without `item_id` and `answer`, or with a gold
    that is not an answer.
    """

    def __init__(self, method: Method, **arguments: Any) -> None:
        if refused := why_not(type(method)):
            raise MethodError(refused)
        self.method, self.hooks = method, Hooks(method)
        self._drawn: list[Rollout] = []
        super().__init__(reward_funcs=self.reward, **arguments)
        if self.accelerator.num_processes > 1:
            raise MethodError("a method inside TRL runs in one process, as groups are not cut; start it with one")
        missing = {"prompt", "answer", "item_id"} - set(self.train_dataset.column_names)
        if missing:
            raise DataError(
                f"the data set has no column {sorted(missing)[0]!r}; write it with `unlearnbench export --format trl`"
            )
        for gold, item in zip(self.train_dataset["answer"], self.train_dataset["item_id"], strict=True):
            gold_texts(gold, f"item {item!r}")
        method.run = self.services = TrlServices(self)
        self.hooks.call("setup")

    def prompt_tokens(self, prompt: str | Sequence[Mapping[str, Any]]) -> Tokens:
        """Token ids (tokens,) of the context that a prompt, a text or a chat, is answered in."""
        if isinstance(prompt, str):
            ids = self.processing_class(prompt)["input_ids"]
        else:
            ids = self.processing_class.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        return np.asarray(ids, dtype=np.int32)

    def reward(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        completion_ids: Sequence[Sequence[int]],
        answer: Sequence[Any],
        item_id: Sequence[str],
        **columns: Any,
    ) -> list[float | None]:
        """The reward function that TRL calls: the rollouts of a batch, verified, as the method's `reward` sees them."""
        texts = [text_of(completion) for completion in completions]
        golds = [gold_texts(gold, f"item {item!r}") for gold, item in zip(answer, item_id, strict=True)]
        verdicts = verify_golds(golds, texts)
        ends = self._end_tokens()
        self._drawn = []
        rewards: list[float | None] = []
        for k, (prompt, tokens, verdict) in enumerate(zip(prompts, completion_ids, verdicts, strict=True)):
            rollout = Rollout(
                item_id=item_id[k],
                index=k % self._group_size(),
                prompt_ids=self.prompt_tokens(prompt),
                token_ids=np.asarray(tokens, dtype=np.int32),
                logprobs=np.full(len(tokens), np.nan, dtype=np.float32),
                completion=texts[k],
                finish="stop" if len(tokens) and int(tokens[-1]) in ends else "length",
                verdict=verdict,
                reward=0.0,
                iteration=self.services.step,
            )
            reward = self.hooks.reward(rollout)
            self._drawn.append(replace(rollout, reward=reward))
            rewards.append(None if verdict.correct is None else reward)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch with the method's advantages (rows, tokens) in place of its own."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        own: torch.Tensor = batch["advantages"]
        width = batch["completion_ids"].shape[1]
        self._drawn = self._with_logprobs(batch)
        advantages = torch.zeros(len(own), width, dtype=own.dtype, device=own.device)
        size = self._group_size()
        for start in range(0, len(self._drawn), size):
            rollouts = self._drawn[start : start + size]
            prompt = text_of_prompt(inputs[start]["prompt"])
            group = RolloutGroup(rollouts[0].item_id, prompt, self.services.step, tuple(rollouts))
            if self.model.training:
                correct = sum(bool(rollout.verdict.correct) for rollout in group)
                self.services.visits.setdefault(group.item_id, []).append(
                    Visit(self.services.step, len(group), correct)
                )
            judged = without_failures(group)
            if not self._trains_on(judged):
                continue
            rows = [start + k for k, rollout in enumerate(rollouts) if rollout.verdict.correct is not None]
            for row, values in zip(rows, self.hooks.advantages(judged), strict=True):
                advantages[row, : len(values)] = torch.as_tensor(values, dtype=own.dtype)
        batch["advantages"] = advantages
        logged = self._logs["advantages"]  # TRL wrote its own there, one per rollout
        for _ in range(min(len(own), len(logged))):
            logged.pop()
        logged.extend(advantages[:, 0].tolist())
        return batch

    def _with_logprobs(self, batch: Mapping[str, Any]) -> list[Rollout]:
        """The rollouts with their log-probabilities under the policy that drew them, where TRL computes those.

        It does where a batch is cut into several updates; else they stay unknown (NaN).
        """
        known = batch.get("old_per_token_logps")
        if known is None:
            return self._drawn
        rows = known.float().cpu().numpy()
        return [
            replace(rollout, logprobs=row[: len(rollout.token_ids)].astype(np.float32))
            for rollout, row in zip(self._drawn, rows, strict=True)
        ]

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """TRL's checkpoint, and the method's state in it."""
        super()._save_checkpoint(*arguments, **options)
        folder = Path(self._get_output_dir(trial=None)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        state = save_method(folder, self.hooks.call("state_dict"))
        (folder / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *arguments: Any, **options: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *arguments, **options)
        folder = Path(resume_from_checkpoint)
        if not (folder / STATE).is_file():
            raise DataError(
                f"{folder} has no {STATE}, so the method's state is lost; resume from a checkpoint that has it"
            )
        self.hooks.call(
            "load_state_dict", read_method(folder, json.loads((folder / STATE).read_text(encoding="utf-8")))
        )

    def _trains_on(self, group: RolloutGroup) -> bool:
        """Whether the loop of `unlearnbench eval` would train on the group (training/loop.py, `_choose`)."""
        if len(group) == 0:
            return False
        signal = float(np.ptp(group.rewards)) > ZERO_SIGNAL or not self.method.settings.drop_zero_signal
        return signal and self.hooks.keep(group)

    def _group_size(self) -> int:
        return int(self.num_generations if self.model.training else self.num_generations_eval)

    def _end_tokens(self) -> set[int]:
        configured: GenerationConfig = self.accelerator.unwrap_model(self.model).generation_config
        ends = configured.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {int(end) for end in (*ends, self.processing_class.eos_token_id) if end is not None}


def text_of_prompt(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The problem's text: the prompt, or the user's last turn."""
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt if turn.get("role") == "user"]
    return str(turns[-1].get("content") or "") if turns else ""
