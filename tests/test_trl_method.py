"""A method inside a real GRPOTrainer of TRL: what it is paid and what it is trained on are the method's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearnbench.adapters.export import export
from unlearnbench.errors import DataError, MethodError, MethodNotFound
from unlearnbench.method import Method, settings_of
from unlearnbench.methods import BUILT_IN, load, locate
from unlearnbench.methods.pass_at_k import PassAtK
from unlearnbench.methods.unlikeliness import Unlikeliness
from unlearnbench.records import Recipe, Rollout, RolloutGroup
from unlearnbench.splits import load_split
from unlearnbench.verifier import verify

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl", reason="TRL is not installed (pip install unlearnbench[trl])")
    from datasets import Dataset, load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from unlearnbench.adapters.trl import reward
    from unlearnbench.adapters.trl_method import MethodTrainer, grpo_arguments, method_named, why_not

pytestmark = pytest.mark.filterwarnings("default")
SMALL = Recipe(
    steps=2,
    prompts_per_step=8,
    group_size=8,
    updates_per_batch=2,
    max_tokens=20,
    temperature=2.0,
    learning_rate=1e-3,
    kl=0.0,
    entropy=0.0,
    standardise=False,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trl")
    export(load_split("micro"), "trl", folder / "data", part="easy")
    return load_dataset(str(folder / "data"), split="train", cache_dir=str(folder / "cache"))


@pytest.fixture
def arguments(data: Dataset, tmp_path: Path) -> Callable[[Method], dict[str, Any]]:
    """What GRPOTrainer needs beside its rewards: the policy of micro, its pool, and the method's own settings."""
    policy = str(load_split("micro").policy_path)

    def arguments(method: Method) -> dict[str, Any]:
        config = trl.GRPOConfig(
            **grpo_arguments(method),
            output_dir=str(tmp_path),
            seed=1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
        return {"model": model, "args": config, "train_dataset": data, "processing_class": tokenizer}

    return arguments


class Seen(MethodTrainer):
    """Keeps each batch that TRL trains on."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        self.batches: list[dict[str, Any]] = [*getattr(self, "batches", []), batch]
        return batch


def test_plain_grpo_is_the_same_run_as_trls_own(arguments: Any) -> None:
    ours = arguments(Method(SMALL))
    MethodTrainer(Method(SMALL), **ours).train()
    theirs = arguments(Method(SMALL))
    theirs["args"].scale_rewards = "none"
    trl.GRPOTrainer(reward_funcs=reward, **theirs).train()
    before = AutoModelForCausalLM.from_pretrained(str(load_split("micro").policy_path), dtype=torch.float32)

    pairs = list(zip(ours["model"].parameters(), theirs["model"].parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    assert any(
        not torch.equal(old, new) for old, new in zip(before.parameters(), ours["model"].parameters(), strict=True)
    )


def test_a_method_by_name_is_trained_on_its_own_advantages(arguments: Any) -> None:
    method = method_named("pass_at_k", SMALL, k=3)
    assert isinstance(method, PassAtK) and method.settings.k == 3
    trainer = Seen(method, **arguments(method))
    trainer.train()

    assert len(trainer.batches) == 2
    table = trainer._logs  # of the last batch, in the order in which it was drawn
    paid = np.array(table["rewards"]["reward"]).reshape(-1, 8)
    assert 0 < paid.sum() < paid.size
    for rewards, logged in zip(paid, np.array(table["advantages"]).reshape(-1, 8), strict=True):
        right = int(rewards.sum())
        # Closed form of eq. 33: a right one has n k/n C(n-c, k-1) / C(n-1, k-1), a wrong one nothing.
        share = np.prod([(8 - right - j) / (7 - j) for j in range(2)]) if 0 < right < 8 else 0.0
        assert logged == pytest.approx(rewards * 3 * share, abs=1e-6)


def test_hooks_see_whole_groups_of_verified_rollouts(arguments: Any) -> None:
    golds = {item.item_id: item.answer for item in load_split("micro").items}
    groups: list[RolloutGroup] = []
    steps: list[int] = []

    class FirstToken(Method):
        """Pays by length, drops one item's groups, and trains on the first token alone."""

        def setup(self) -> None:
            self.dropped = self.run.shuffled([item.item_id for item in self.run.items])[: len(self.run.items) // 2]

        def reward(self, rollout: Rollout) -> float:
            return float(len(rollout.token_ids))

        def keep(self, rollouts: RolloutGroup) -> bool:
            groups.append(rollouts)
            return rollouts.item_id not in self.dropped

        def advantages(self, rollouts: RolloutGroup) -> Any:
            steps.append(self.run.step)
            visits = self.run.history(rollouts.item_id)
            assert visits[-1].step == self.run.step and visits[-1].n == 8
            return [np.eye(1, len(rollout.token_ids))[0] for rollout in rollouts]

    trainer = Seen(method := FirstToken(SMALL), **arguments(FirstToken(SMALL)))
    trainer.train()

    assert set(steps) <= {0, 2}, "two updates per batch"
    for group in groups:
        assert len(group) == 8 and len({rollout.item_id for rollout in group}) == 1
        for rollout in group:
            assert rollout.verdict == verify(golds[group.item_id], rollout.completion)
            assert rollout.finish == ("stop" if len(rollout.token_ids) < 20 else rollout.finish)
            assert trainer.processing_class.decode(rollout.token_ids, skip_special_tokens=True) == rollout.completion
    kept = sum(group.item_id not in method.dropped for group in groups)
    assert 0 < kept < 16, "else the test shows nothing of keep"
    advantages = torch.cat([batch["advantages"][:, :1] for batch in trainer.batches])
    assert int(advantages.sum()) == 8 * kept
    assert all(not batch["advantages"][:, 1:].any() for batch in trainer.batches)


REFUSED = {
    "rloo": "policy_loss",
    "dapo": "select_items, plan_rollouts",
    "gspo": "policy_loss",
    "negative_only": "augment",
    "positive_only": "augment",
    "dars": "plan_rollouts",
    "knapsack": "plan_rollouts",
    "rl_zvp": "entropies",
    "replay": "plan_rollouts, inject",
    "remind": "select_items, inject",
    "self_distill": "augment, policy_loss, auxiliary_loss, on_step_end",
    "drift": "inject, augment, policy_loss, auxiliary_loss, on_step_end",
    "curriculum": "select_items",
    "no_training": "train",
}
"""Methods of track verifier that TRL has no place for, and what it is that they need of it."""
VERIFIER = [name for name in BUILT_IN if load(locate(name)).track == "verifier"]


@pytest.mark.parametrize("name", VERIFIER)
def test_every_verifier_method_runs_inside_trl_or_is_refused_by_what_it_overrides(name: str, arguments: Any) -> None:
    refused = why_not(load(locate(name)))
    if name in REFUSED:
        assert refused is not None
        named = REFUSED[name].split(", ")
        assert all(hook in refused.split("which")[0] for hook in named), refused
        return
    assert refused is None, name
    method = method_named(name, SMALL)
    trainer = Seen(method, **arguments(method))
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 4  # two steps of two updates
    advantages = torch.cat([batch["advantages"].flatten() for batch in trainer.batches])
    assert bool(torch.isfinite(advantages).all())
    changed = any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert changed == bool(advantages.any())
    assert changed or name == "format_reward"  # the policy boxes every answer, so all rewards are the same


def test_a_methods_state_is_in_trls_checkpoints(arguments: Any, tmp_path: Path) -> None:
    def trainer(steps: int) -> Any:
        method = method_named("outcome_exploration", SMALL)
        told = arguments(method)
        told["args"].max_steps, told["args"].save_steps = steps, 2
        told["args"].save_strategy = "steps"
        return MethodTrainer(method, **told)

    first = trainer(2)
    first.train()
    counts = {item: dict(found) for item, found in first.method.counts.items()}
    assert sum(sum(found.values()) for found in counts.values()) > 32
    again = trainer(4)
    seen: list[Any] = []
    load_state = again.method.load_state_dict
    again.method.load_state_dict = lambda state: (load_state(state), seen.append(again.method.counts))
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(seen) == 1
    (tmp_path / "checkpoint-2/method.json").unlink()
    with pytest.raises(DataError, match=r"has no method\.json"):
        trainer(4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_unlikely_successes_are_told_apart_inside_trl(arguments: Any) -> None:
    groups: list[RolloutGroup] = []

    class Watched(Unlikeliness):
        def advantages(self, rollouts: RolloutGroup) -> Any:
            groups.append(rollouts)
            return super().advantages(rollouts)

    MethodTrainer(
        Watched(settings_of(Watched, SMALL, {})), **arguments(Watched(settings_of(Watched, SMALL, {})))
    ).train()
    assert groups and all(np.isfinite(rollout.logprobs).all() for group in groups for rollout in group)
    assert all((rollout.logprobs < 0).any() for group in groups for rollout in group)


def test_what_does_not_carry_over_is_refused_by_name(arguments: Any, data: Dataset) -> None:
    with pytest.raises(MethodError, match="Dapo overrides select_items, plan_rollouts, which"):
        MethodTrainer(method_named("dapo", SMALL))
    with pytest.raises(MethodNotFound, match="no_such"):
        method_named("no_such", SMALL)
    with pytest.raises(MethodError, match="64 rollouts of a step into 5 equal updates"):
        grpo_arguments(Method(SMALL.model_copy(update={"updates_per_batch": 5})))
    named = arguments(Method(SMALL))
    with pytest.raises(DataError, match=r"no column 'item_id'.*--format trl"):
        MethodTrainer(Method(SMALL), **{**named, "train_dataset": data.remove_columns("item_id")})

    class Asking(Method):
        def advantages(self, rollouts: RolloutGroup) -> Any:
            return self.run.logprobs(rollouts.prompt, [rollout.token_ids for rollout in rollouts])

    asking = Asking(SMALL)
    with pytest.raises(MethodError, match=r"self\.run\.\w+, which TRL does not have"):
        MethodTrainer(asking, **named).train()
