"""The transformers sampler against the model's own forward pass, on the shipped policy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import errors
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare
from transformers import AutoTokenizer

from unlearnbench.errors import RunError
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.policies.samplers.draw import draw
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Request
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.rng import stream
from unlearnbench.splits import Split

Indices = NDArray[np.int64]
Uniforms = NDArray[np.float64]


@pytest.fixture(scope="module")
def policy(micro: Split) -> Policy:
    return load_policy(micro.policy_path)


def _requests(policy: Policy, prompts: list[str], n: int) -> list[Request]:
    return [Request(policy.encode(prompt), n, stream("test", prompt)) for prompt in prompts]


def test_auto_tokenizer_gives_back_the_text_of_every_prompt_and_solution(micro: Split) -> None:
    tokenizer = AutoTokenizer.from_pretrained(micro.policy_path)
    texts = [item.prompt for item in micro.items] + [item.solution for item in micro.items]
    texts += [twin.prompt for twin in micro.twins] + [canary.prompt for canary in micro.canaries]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_logprobs_are_those_of_a_forward_pass_over_the_whole_sequence(policy: Policy, micro: Split) -> None:
    prompts = [item.prompt for item in micro.items[:6]] + ["1", "7 5 add="]  # the last two force left padding
    requests = _requests(policy, prompts, 8)
    drawn = TransformersSampler(policy).generate(requests, temperature=1.3, top_p=1.0, max_tokens=20)
    for request, completions in zip(requests, drawn, strict=True):
        for row in range(len(completions)):
            length = completions.lengths[row]
            ids = np.concatenate([request.prompt_ids, completions.tokens[row, :length]]).astype(np.int64)
            with torch.no_grad():
                logits = policy.model(torch.from_numpy(ids)[None]).logits[0, len(request.prompt_ids) - 1 : -1]
            expected = torch.log_softmax(logits.float() / 1.3, -1).gather(
                -1, torch.from_numpy(ids[len(request.prompt_ids) :])[:, None]
            )[:, 0]
            assert np.abs(completions.logprobs[row, :length] - expected.numpy()).max() < 1e-4
            ended = completions.tokens[row, length - 1] in policy.stop_ids
            assert ended == bool(completions.stopped[row])
            assert not np.isin(completions.tokens[row, : length - 1], policy.stop_ids).any()
            assert (completions.tokens[row, length:] == -1).all()


def test_draws_do_not_depend_on_batching_or_company(policy: Policy, micro: Split) -> None:
    prompts = [item.prompt for item in micro.items[:7]]
    together = TransformersSampler(policy).generate(
        _requests(policy, prompts, 5), temperature=1.0, top_p=1.0, max_tokens=20
    )
    apart = TransformersSampler(policy, max_rows=3).generate(
        _requests(policy, prompts[::-1], 5), temperature=1.0, top_p=1.0, max_tokens=20
    )[::-1]
    for one, other in zip(together, apart, strict=True):
        assert one.lengths.tolist() == other.lengths.tolist()
        width = min(one.tokens.shape[1], other.tokens.shape[1])
        assert (one.tokens[:, :width] == other.tokens[:, :width]).all()


def test_the_limit_on_tokens_cuts_and_says_so(policy: Policy, micro: Split) -> None:
    request = _requests(policy, [micro.items[0].prompt], 6)
    short = TransformersSampler(policy).generate(request, temperature=1.0, top_p=1.0, max_tokens=3)[0]
    assert (short.lengths == 3).all()
    assert not short.stopped.any()


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_draws_follow_the_distribution(top_p: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
    n = 20000
    uniform = (np.arange(n) + 0.5) / n
    drawn, logprobs = draw(logits, np.zeros(n, dtype=np.int64), uniform, 0.8, top_p)
    full = torch.softmax(logits[0] / 0.8, -1).double().numpy()
    expected = full.copy()
    if top_p < 1:  # brute force: drop from the least likely while the rest still reaches top_p
        for token in np.argsort(full):
            if expected.sum() - expected[token] >= top_p:
                expected[token] = 0
        expected /= expected.sum()
    observed = np.bincount(drawn, minlength=5)
    assert top_p == 1 or (expected == 0).any()
    assert np.abs(observed - expected * n).max() <= 1  # a grid of uniforms hits each token its exact share of times
    assert np.allclose(logprobs, np.log(full)[drawn], atol=1e-5)


def _sorted_draw(logits: torch.Tensor, row: Indices, uniform: Uniforms, temperature: float, top_p: float) -> Indices:
    """The definition: sort the whole vocabulary, keep until top_p is reached, invert the distribution function."""
    drawn = []
    for which, chance in zip(row.tolist(), uniform.tolist(), strict=True):
        probabilities = torch.log_softmax(logits[which] / temperature, dim=-1).double().exp().numpy()
        order = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))
        before = np.cumsum(probabilities[order]) - probabilities[order]
        kept = np.where(before < top_p, probabilities[order], 0.0)
        cumulative = np.cumsum(kept)
        drawn.append(order[int(np.searchsorted(cumulative, chance * cumulative[-1], side="right"))])
    return np.array(drawn)


@settings(max_examples=40)
@given(
    st.sampled_from((260, 700, 5000)),
    st.floats(0.0, 8.0),
    st.sampled_from((0.0, 0.5)),
    st.sampled_from((0.3, 0.8, 0.95, 0.9999)),
    st.integers(0, 2**31),
)
def test_sorting_the_most_likely_tokens_alone_draws_the_same_tokens(
    vocabulary: int, spread: float, grid: float, top_p: float, seed: int
) -> None:
    """From peaked rows (no full sort) to flat ones (full sort); on a grid, equal logits come in hundreds."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy((rng.standard_normal((5, vocabulary)) * spread).astype(np.float32))
    logits[0] *= 4  # peaked and flat rows in one batch
    if grid:
        logits = (logits / grid).round() * grid
    row, uniform = np.sort(rng.integers(0, 5, 12)), rng.random(12)
    drawn, logprobs = draw(logits, row, uniform, 0.7, top_p)
    assert (drawn == _sorted_draw(logits, row, uniform, 0.7, top_p)).all()
    assert (logprobs == torch.log_softmax(logits / 0.7, dim=-1).numpy()[row, drawn]).all()


def test_a_large_vocabulary_is_drawn_from_in_its_proportions() -> None:
    """Chi-square test of 40,000 independent draws from a row whose set ends inside the most likely tokens."""
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.standard_normal((1, 50000)).astype(np.float32) * 4)
    n, temperature, top_p = 40000, 0.7, 0.95
    drawn, _ = draw(logits, np.zeros(n, dtype=np.int64), rng.random(n), temperature, top_p)
    full = torch.softmax(logits[0].double() / temperature, -1).numpy()
    order = np.argsort(-full)
    inside = order[: int(np.searchsorted(np.cumsum(full[order]), top_p)) + 1]
    assert len(inside) < 256
    assert np.isin(drawn, inside).all()
    expected = full[inside] / full[inside].sum() * n
    common = expected >= 5
    observed = np.bincount(drawn, minlength=50000)[inside]
    cells = [
        (observed[common], expected[common]),
        (observed[~common].sum(keepdims=True), expected[~common].sum(keepdims=True)),
    ]
    found, wanted = (np.concatenate([pair[k] for pair in cells if pair[1].sum() > 0]) for k in (0, 1))
    assert chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-4


def test_a_copy_in_another_precision_draws_nearly_the_same_and_follows_the_policy(micro: Split) -> None:
    policy = load_policy(micro.policy_path)
    sampler = Engine("transformers", {"dtype": "bfloat16"}).sampler(policy, training=True)
    assert not sampler.exact
    assert policy.model.dtype == torch.float32
    requests = _requests(policy, [item.prompt for item in micro.items if item.group == "easy"][:20], 32)

    def draws() -> list[bytes]:
        drawn = sampler.generate(requests, temperature=0.7, top_p=0.95, max_tokens=20)
        return [
            tokens[:length].tobytes()
            for each in drawn
            for tokens, length in zip(each.tokens, each.lengths, strict=True)
        ]

    exact = TransformersSampler(policy).generate(requests, temperature=0.7, top_p=0.95, max_tokens=20)
    expected = [t[:length].tobytes() for each in exact for t, length in zip(each.tokens, each.lengths, strict=True)]
    first = draws()
    same = np.mean([one == other for one, other in zip(first, expected, strict=True)])
    assert same > 0.9  # of 640 rollouts; rounding turns a few draws
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(0.5)
    assert draws() == first  # nobody said so yet
    sampler.weights_changed()
    assert draws() != first


def test_an_option_that_the_transformers_sampler_lacks_is_refused_in_one_sentence() -> None:
    with pytest.raises(RunError, match="no option 'gpu_memory', only dtype"):
        Engine("transformers", {"gpu_memory": 1}).require()
    with pytest.raises(RunError, match="dtype is 'int8'; choose one of float32, bfloat16"):
        Engine("transformers", {"dtype": "int8"}).require()
    Engine("transformers", {"dtype": "bfloat16"}).require()


def test_sampling_restores_the_mode_of_the_model(policy: Policy, micro: Split) -> None:
    policy.model.train()
    TransformersSampler(policy).generate(
        _requests(policy, [micro.items[0].prompt], 1), temperature=1.0, top_p=1.0, max_tokens=2
    )
    assert policy.model.training
    policy.model.eval()


def test_a_folder_without_a_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from unlearnbench.errors import PolicyError

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"cannot be loaded \("):
        load_policy(tmp_path)
    with pytest.raises(PolicyError, match="no policy folder"):
        load_policy(tmp_path / "nothing")


def test_damaged_weights_are_refused_in_one_sentence(micro: Split, tmp_path: Path) -> None:
    from unlearnbench.errors import PolicyError

    shutil.copytree(micro.policy_path, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])  # as after a download that broke off
    with pytest.raises(PolicyError, match="cannot be loaded") as caught:
        load_policy(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_folder_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    from unlearnbench.errors import PolicyError

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(PolicyError, match=r"there is no such folder .*split\.yaml.* on the Hub \(no network\)"):
        load_policy("owner/policy")
    monkeypatch.delattr(transformers.AutoTokenizer, "from_pretrained")  # nobody is asked for a name without an owner
    with pytest.raises(PolicyError, match=r"no policy folder policy .*split\.yaml.* OWNER/NAME"):
        load_policy("policy")


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (errors.GatedRepoError, "accept its terms on its page there, then run: hf auth login"),
        (errors.RepositoryNotFoundError, "see that its name is right and that the Hub can be reached"),
    ],
)
def test_a_policy_that_the_hub_does_not_give_comes_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, cause: type[errors.HfHubHTTPError], remedy: str
) -> None:
    from unlearnbench.errors import PolicyError

    def refuses(*_: object, **__: object) -> None:
        raise OSError("You cannot have it.\nReally.") from cause.__new__(cause)  # as transformers tells it

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuses)
    with pytest.raises(PolicyError, match=remedy) as caught:
        load_policy("owner/name")
    assert "\n" not in str(caught.value)
