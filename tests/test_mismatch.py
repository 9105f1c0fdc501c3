"""A sampler whose log-probabilities are not the trainer's: what is logged, corrected and refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from unlearnbench.errors import PolicyError, RunError
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.samplers.pad_heads import widened_config, widened_weights
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Rollout, Verdict
from unlearnbench.training.batch import make_batch
from unlearnbench.training.importance_sampling import CAP, truncated
from unlearnbench.training.ledger import read_metrics


class Bfloat16Sampler(TransformersSampler):
    """The policy in half the precision: a sampler of its own, as an engine with other kernels is."""

    exact = False
    scale = 1.0

    def __init__(self, policy: Policy) -> None:
        self.trained = policy
        super().__init__(Policy(copy.deepcopy(policy.model), *self._rest(policy)))
        self.weights_changed()

    @staticmethod
    def _rest(policy: Policy) -> tuple[Any, ...]:
        return policy.tokenizer, policy.source, policy.prompt_format, policy.stop_ids

    def weights_changed(self) -> None:
        with torch.no_grad():
            for own, theirs in zip(self.policy.model.parameters(), self.trained.model.parameters(), strict=True):
                own.copy_((theirs * self.scale).bfloat16().float())


class Another(Bfloat16Sampler):
    """Draws from weights that are not the policy's."""

    scale = 0.5


class Claiming(Bfloat16Sampler):
    """Says that it computes what the trainer computes."""

    exact = True


def test_the_mismatch_of_another_engine_is_logged_and_not_refused(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path / "run", steps=2, sampler=Bfloat16Sampler)
    run.run()
    logged = [row for row in read_metrics(tmp_path / "run") if row["updates"]]
    assert logged
    for row in logged:
        assert 1e-3 < row["sampler_mismatch"] < 0.5
        assert 0 < row["sampler_kl"] < 0.01


@pytest.mark.parametrize(("sampler", "says"), [(Another, "nats per token apart"), (Claiming, "is not sampled right")])
def test_a_sampler_of_another_policy_is_refused(training: Any, tmp_path: Path, sampler: Any, says: str) -> None:
    run = training(Grpo, tmp_path / "run", steps=2, sampler=sampler, drop_zero_signal=False)
    with pytest.raises(RunError, match=says):
        run.run()


def test_what_a_foreign_engine_costs_is_metered(training: Any, tmp_path: Path) -> None:
    same = {"kl": 0.0, "updates_per_batch": 2, "drop_zero_signal": False}
    exact = training(Grpo, tmp_path / "exact", steps=1, **same)
    foreign = training(Grpo, tmp_path / "foreign", steps=1, sampler=Bfloat16Sampler, **same)
    exact.run()
    foreign.run()
    assert exact.meter.forward == 0
    assert 0.3 < foreign.meter.forward / foreign.meter.trained < 0.7  # the second of two updates


def test_a_resumed_run_gives_the_engine_the_weights_of_its_checkpoint(training: Any, tmp_path: Path) -> None:
    training(Grpo, tmp_path / "run", steps=3, sampler=Bfloat16Sampler).run()
    resumed = training(Grpo, tmp_path / "run", steps=4, sampler=Bfloat16Sampler)
    assert resumed.state.step == 3
    for own, theirs in zip(
        resumed.models.sampler.policy.model.parameters(), resumed.models.policy.model.parameters(), strict=True
    ):
        assert torch.equal(own, theirs.bfloat16().float())


def _rollout(logprobs: list[float], **changes: Any) -> Rollout:
    given: dict[str, Any] = {
        "item_id": "a",
        "index": 0,
        "prompt_ids": np.array([5, 6], dtype=np.int32),
        "token_ids": np.arange(7, 7 + len(logprobs), dtype=np.int32),
        "logprobs": np.array(logprobs, dtype=np.float32),
        "completion": "",
        "finish": "stop",
        "verdict": Verdict(True, "1", "match"),
        "reward": 1.0,
        "policy_version": 3,
    }
    return Rollout(**given | changes)


def test_the_ratio_of_trainer_to_sampler_weighs_a_token_and_is_cut_off() -> None:
    sampled = [-1.0, -2.0, -3.0]
    own = np.array([-1.1, -1.5, -1.0])  # the last ratio is e^2
    rollouts = [
        _rollout(sampled),
        _rollout(sampled, policy_version=2),  # of an older policy
        _rollout(sampled, context_ids=np.array([9, 9], dtype=np.int32)),  # drawn in another context
        _rollout([math.nan] * 3, source="teacher"),
    ]
    batch = make_batch(rollouts, [np.ones(3)] * 4, "token_mean", torch.device("cpu"), version=3)
    before = torch.zeros_like(batch.weights)
    before[:, 1:] = torch.tensor(own, dtype=torch.float32)
    behaviour = torch.where(torch.isfinite(batch.behaviour), batch.behaviour, before)
    old, weights = truncated(batch, behaviour, before)
    expected = [math.exp(-0.1), math.exp(0.5), CAP]
    assert weights[0, 1:].tolist() == pytest.approx([ratio / 12 for ratio in expected])
    assert old[0, 1:].tolist() == pytest.approx(own.tolist())
    assert torch.equal(weights[1:], batch.weights[1:])  # no ratio for what the sampler did not draw here and now
    assert old[1, 1:].tolist() == old[2, 1:].tolist() == sampled
    assert not weights[:, 0].any()


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(ids).logits
    return logits


def test_larger_heads_compute_the_same(micro: Any) -> None:
    from unlearnbench.policies.policy import load_policy

    model = load_policy(micro.policy_path).model
    config = copy.deepcopy(model.config)
    changed = widened_config(config, 32)
    assert changed["qkv_bias"] is True
    config.head_dim, config.rope_parameters = 32, changed["rope_parameters"]
    wide = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    wide.load_state_dict(dict(widened_weights(model.state_dict().items(), 24, 32)))
    ids = torch.randint(2, config.vocab_size, (4, 100), generator=torch.Generator().manual_seed(1))
    assert (_logits(wide, ids) - _logits(model, ids)).abs().max() < 1e-3
    config.rope_parameters = model.config.rope_parameters  # and not if positions turned as before
    unturned = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    unturned.load_state_dict(wide.state_dict())
    assert (_logits(unturned, ids) - _logits(model, ids)).abs().max() > 0.1


def test_heads_that_cannot_be_widened_are_refused() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 8192
    with pytest.raises(PolicyError, match="cannot be widened"):
        widened_config(LlamaConfig(rope_parameters=rope), 256)
