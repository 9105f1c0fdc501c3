"""Options of the machine: the same numbers and gradients in less memory, in lower precision, or shared out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from unlearnbench.cli.eval import evaluate as eval_command
from unlearnbench.errors import PolicyError, RunError
from unlearnbench.harness.evaluation_jobs import measure_policy
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.harness.training_jobs import Run, training_job
from unlearnbench.method import LossBatch
from unlearnbench.methods import locate
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.activation_checkpointing import recompute_layers
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.splits import Split
from unlearnbench.training.batch import TokenBatch, fixed_logprobs, token_logprobs
from unlearnbench.training.options import TrainerOptions, trainer_options
from unlearnbench.verifier import Verifier
from unlearnbench.workers.jobs import Compute, TrainJob

CHUNKED = TrainerOptions(logprob_chunk=7)


@pytest.fixture
def policy(micro: Split) -> Policy:
    return load_policy(micro.policy_path, trained=True)


@pytest.fixture
def batch(micro: Split, policy: Policy) -> TokenBatch:
    """Three rows of unlike length; their first five columns have no weight."""
    rows = [policy.encode(item.prompt + item.solution) for item in micro.items[:3]]
    lengths = torch.tensor(sorted(len(row) for row in rows))
    ids = torch.zeros(3, int(lengths[-1]), dtype=torch.long)
    for place, row in enumerate(sorted(rows, key=len)):
        ids[place, : len(row)] = torch.from_numpy(row.astype("int64"))
    mask = (torch.arange(ids.shape[1] - 1)[None] < lengths[:, None] - 1).float()
    mask[:, :5] = 0
    return TokenBatch(ids, lengths, 5, mask, mask * 0, mask, mask / mask.sum(), ("policy",) * 3, mask[:, :1] > 0)


def _pass(policy: Policy, batch: TokenBatch, options: TrainerOptions) -> tuple[Any, dict[str, torch.Tensor], int]:
    """Log-probabilities and entropies, gradients of a loss of both, and the bytes that were kept for the way back."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    policy.model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, entropy = token_logprobs(policy.model, batch, 0.8, with_entropy=True, options=options)
    assert entropy is not None
    (batch.weights * (logprobs.exp() + 0.3 * entropy)).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in policy.model.named_parameters()}
    return (logprobs.detach(), entropy.detach()), gradients, sum(kept.values())


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_have_the_values_and_gradients_of_the_whole(chunk: int, policy: Policy, batch: TokenBatch) -> None:
    options = TrainerOptions(logprob_chunk=chunk)
    expected, gradients, _ = _pass(policy, batch, TrainerOptions())
    found, ours, _ = _pass(policy, batch, options)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, ours[name], rtol=1e-4, atol=1e-6)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    assert float(found[0][:, 5:].abs().min()) > 0
    assert float(found[0][:, :5].abs().max()) == 0
    fixed = fixed_logprobs(policy.model, batch, 0.8, options=options)
    torch.testing.assert_close(fixed, expected[0], rtol=0, atol=1e-5)
    assert "forward" not in vars(policy.model.get_output_embeddings())  # as it was


def test_no_more_logits_than_a_chunk_of_tokens_exist_on_either_way(
    policy: Policy, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    softmax, sizes = torch.log_softmax, []

    def watched(logits: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(logits.shape[0])
        return softmax(logits, dim=dim)

    monkeypatch.setattr(torch, "log_softmax", watched)
    _, _, kept = _pass(policy, batch, CHUNKED)
    assert max(sizes) == 7
    assert sum(sizes) == 2 * batch.weights[:, 5:].numel()  # forward, and once more on the way back
    monkeypatch.undo()
    _, _, whole = _pass(policy, batch, TrainerOptions())
    assert whole - kept > 2 * 4 * batch.weights[:, 5:].numel() * policy.model.config.vocab_size


def test_layers_computed_again_keep_less_and_give_the_same_gradients(policy: Policy, batch: TokenBatch) -> None:
    _, gradients, whole = _pass(policy, batch, CHUNKED)
    recompute_layers(policy.model)
    _, ours, less = _pass(policy, batch, CHUNKED)
    assert less < 0.5 * whole
    assert not policy.model.training  # which would turn dropout on
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, ours[name], rtol=1e-4, atol=1e-7)
    with pytest.raises(PolicyError, match="no layers"):
        recompute_layers(torch.nn.Linear(2, 2))


def test_bfloat16_is_for_products_alone(policy: Policy, batch: TokenBatch) -> None:
    expected, gradients, _ = _pass(policy, batch, TrainerOptions())
    for chunk in (None, 7):
        found, ours, _ = _pass(policy, batch, TrainerOptions(precision="bf16", logprob_chunk=chunk))
        assert found[0].dtype == torch.float32 and all(value.dtype == torch.float32 for value in ours.values())
        assert 1e-5 < float((found[0] - expected[0]).abs().max()) < 0.3
        one, two = (torch.cat([value.flatten() for value in part.values()]) for part in (gradients, ours))
        assert float(torch.cosine_similarity(one, two, dim=0)) > 0.99
    assert all(weight.dtype == torch.float32 for weight in policy.model.parameters())


def test_logits_that_are_more_than_products_are_refused_in_chunks(policy: Policy, batch: TokenBatch) -> None:
    policy.model.config.final_logit_softcapping = 30.0
    with pytest.raises(PolicyError, match="final_logit_softcapping"):
        token_logprobs(policy.model, batch, 1.0, options=CHUNKED)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"logprob_chnk": 3}, "no option 'logprob_chnk'; give one of precision, gradient_checkpointing"),
        ({"logprob_chunk": 0}, "--trainer logprob_chunk=0: Input should be greater"),
        ({"precision": "fp8"}, "--trainer precision=fp8: Input should be 'float32' or 'bf16'"),
        ({"shard": "zero"}, "--trainer shard=zero: Input should be 'fsdp2'"),
    ],
)
def test_a_wrong_option_is_named_in_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError) as caught:
        trainer_options(given)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_options_reach_the_job_that_trains_and_no_other(small_split: Split, tmp_path: Path) -> None:
    config = RunConfig(split=small_split, method=locate("grpo"), seeds=(1,))
    for options in (CHUNKED, TrainerOptions()):
        compute = Compute(trainer=options, processes=2)
        run = Run(small_split, tmp_path, config.method, "eval", config.fingerprint, config.limits, compute)
        with Verifier() as verifier:
            job = training_job(run, 1, tmp_path / "1", verifier)
        assert isinstance(job.work, TrainJob)
        assert (job.work.trainer, job.work.processes, job.processes) == (options, 2, 2)
        measuring = measure_policy(small_split, tmp_path, 1, tmp_path / "1/checkpoint", 2, "eval", compute)
        assert "trainer" not in measuring.work.model_dump()  # its shards are those of any option


def test_options_are_refused_where_they_say_nothing() -> None:
    wrong = CliRunner().invoke(eval_command, ["--method", "grpo", "--trainer", "chunk=7"])
    assert isinstance(wrong.exception, RunError) and "no option 'chunk'" in str(wrong.exception)
    both = CliRunner().invoke(eval_command, ["--checkpoint", "x", "--trainer", "logprob_chunk=7"])
    assert both.exit_code == 2 and "--trainer says how to train" in both.output


class MeansOfRows(Grpo):
    """As methods of whole sequences do, it divides by the sum of the mask."""

    def policy_loss(self, batch: LossBatch) -> torch.Tensor:
        means = (batch.ratio * batch.mask).sum(1, keepdim=True) / batch.mask.sum(1, keepdim=True)
        return -means * batch.advantages


@pytest.mark.parametrize("method", [Grpo, MeansOfRows])
def test_a_pass_without_weight_teaches_nothing(method: type[Grpo], training: Any, tmp_path: Path) -> None:
    run = training(method, tmp_path)
    batch = run._batch(run._choose(run._collect()))
    unknown = replace(batch, behaviour=batch.behaviour * torch.nan)
    told = run.passes.backward(unknown.without_weight(), [None])
    assert told["loss"] == told["sampler_mismatch"] == told["unknown_logprobs"] == 0
    assert not any(weight.grad.any() for weight in run.trained)  # NaN is no 0 either
    assert run.passes.backward(unknown, [None])["unknown_logprobs"] == int(batch.mask.sum())
