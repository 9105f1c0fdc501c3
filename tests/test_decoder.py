"""The tokenizer that the judge reads rollouts with: it says what the policy itself would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlearnbench.errors import PolicyError
from unlearnbench.policies.decoder import Decoder
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.splits import Split


@pytest.fixture(scope="module")
def policy(small_split: Split) -> Policy:
    return load_policy(small_split.policy_path)


def test_a_decoder_says_what_the_policy_says(small_split: Split, policy: Policy) -> None:
    base = small_split.policy_path
    assert isinstance(base, Path)
    decoder = Decoder.load(base)
    assert decoder.stop_ids == set(policy.stop_ids)
    assert decoder.size == policy.model.config.vocab_size
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, decoder.size, size).astype(np.int32) for size in draw.integers(1, 20, 300)]
    assert decoder.texts(rows) == [policy.decode(row) for row in rows]


def test_an_output_layer_may_have_more_ids_than_the_tokenizer(tmp_path: Path, small_split: Split) -> None:
    """As that of many published policies, which can draw them: no honest run may be refused for one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = small_split.policy_path
    model = AutoModelForCausalLM.from_pretrained(base)
    size = len(AutoTokenizer.from_pretrained(base))
    model.resize_token_embeddings(size + 13, mean_resizing=False)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    decoder, policy = Decoder.load(tmp_path), load_policy(tmp_path)
    assert decoder.size == size + 13
    row = np.array([4, size + 5, 5, 1], np.int32)
    assert decoder.texts([row]) == [policy.decode(row)]


def test_a_policy_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"has no tokenizer\.json"):
        Decoder.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PolicyError, match="cannot be read"):
        Decoder.load(tmp_path)


ENDS = {
    "generation_config.json": '{"eos_token_id": [1]}',
    "config.json": '{"eos_token_id": 1}',
    "tokenizer_config.json": '{"eos_token": {"content": "<end>"}}',
    "special_tokens_map.json": '{"eos_token": "<end>"}',
}


@pytest.mark.parametrize("where", ENDS)
def test_the_end_is_found_wherever_a_policy_names_it(where: str, tmp_path: Path, small_split: Split) -> None:
    base = small_split.policy_path
    assert isinstance(base, Path)
    (tmp_path / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / where).write_text(ENDS[where])
    assert Decoder.load(tmp_path).stop_ids == {1}
