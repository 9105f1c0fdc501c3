"""Checkpoints as other trainers save them: what is a policy of the split is taken as it is, the rest is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearnbench.cli.main import run
from unlearnbench.errors import PolicyError
from unlearnbench.harness.policy_ref import checkpoint_notes, find_checkpoint, whole_policy
from unlearnbench.policies.policy import load_policy, merged, save_policy
from unlearnbench.splits import Split

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # peft's and transformers'


def base_model(split: Split) -> Any:
    return load_policy(split.policy_path, trained=True).model


def copied(split: Split, folder: Path) -> Path:
    return Path(shutil.copytree(split.policy_path, folder))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor([[5, 6, 7, 8, 9, 10]])).logits
    return found


def shaken(model: Any) -> Any:
    """The model with other weights wherever it is trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.embed_tokens.weight", float("nan"), "1 numbers that are NaN or infinite, of"),
        ("model.layers.2.mlp.up_proj.weight", float("inf"), "in model.layers.2.mlp.up_proj.weight"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused_by_name(
    name: str, value: float, said: str, dtype: torch.dtype, small_split: Split, tmp_path: Path
) -> None:
    folder = copied(small_split, tmp_path / "diverged")
    weights = {key: weight.to(dtype) for key, weight in load_file(folder / "model.safetensors").items()}
    weights[name][3, 4] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PolicyError, match=said) as caught:
        find_checkpoint(folder, small_split)
    assert f"in {name} (model.safetensors)" in str(caught.value)
    assert (
        run(["eval", "--checkpoint", str(folder), "--split", str(small_split.path), "--out", str(tmp_path / "o")]) == 1
    )
    assert not list((tmp_path / "o").rglob("*.parquet"))


def test_a_torn_file_of_weights_is_one_sentence(small_split: Split, tmp_path: Path) -> None:
    folder = copied(small_split, tmp_path / "torn")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])
    with pytest.raises(PolicyError, match=r"model.safetensors cannot be read .*; save the checkpoint again"):
        find_checkpoint(folder, small_split)


def test_bfloat16_in_shards_is_read_as_the_weights_that_it_is(small_split: Split, tmp_path: Path) -> None:
    model = base_model(small_split).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="400KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small_split.policy_path / name, tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    folder = find_checkpoint(tmp_path / "shards", small_split)
    assert whole_policy(folder, small_split, tmp_path / "whole") == folder
    assert checkpoint_notes(folder, small_split) == []
    loaded = load_policy(folder).model.state_dict()
    assert all(torch.equal(loaded[name], weight.float()) for name, weight in model.state_dict().items())


def test_a_folder_without_a_tokenizer_has_the_bases(small_split: Split, tmp_path: Path) -> None:
    base_model(small_split).save_pretrained(tmp_path / "bare")
    folder = find_checkpoint(tmp_path / "bare", small_split)
    assert checkpoint_notes(folder, small_split) == [f"{folder} has no tokenizer; the base policy's is used"]
    for _ in range(2):  # as after a kill
        whole = whole_policy(folder, small_split, tmp_path / "whole")
    policy, base = load_policy(whole), load_policy(small_split.policy_path)
    prompt = small_split.items[0].prompt
    assert policy.encode(prompt).tolist() == base.encode(prompt).tolist()
    assert policy.stop_ids == base.stop_ids
    torch.testing.assert_close(logits(policy.model), logits(base.model))
    assert not list(tmp_path.glob(".*.tmp"))


def padded(split: Split, folder: Path, tokens: int = 1, tokenizer: bool = True) -> Path:
    """The base with more rows of embeddings than it has tokens, as trainers add them."""
    policy = load_policy(split.policy_path, trained=True)
    if tokenizer:
        policy.tokenizer.add_special_tokens({"pad_token": "[PADDING]"})
    policy.model.resize_token_embeddings(policy.model.config.vocab_size + tokens, mean_resizing=False)
    policy.model.save_pretrained(folder)
    if tokenizer:
        policy.tokenizer.save_pretrained(folder)
    return folder


def test_a_vocabulary_with_padding_is_accepted_and_said(small_split: Split, tmp_path: Path) -> None:
    for name, tokens, own in (("one", 1, True), ("multiple", 13, False)):
        folder = find_checkpoint(padded(small_split, tmp_path / name, tokens, own), small_split)
        assert f"{folder} has {tokens} more tokens than the base policy, as padding adds; they are kept" in (
            checkpoint_notes(folder, small_split)
        )
        assert load_policy(whole_policy(folder, small_split, tmp_path / f"{name}-whole")).model.config.vocab_size > 51


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _swapped(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    one, two = list(vocabulary)[10:12]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_config(vocab_size=50), "has vocab_size 50 where the split's base policy has 51"),
        (_config(vocab_size=5000), "has vocab_size 5000 where"),
        (_config(hidden_size=48), "has hidden_size 48 where the split's base policy has 96"),
        (_swapped, "has another tokenizer than the split's base policy: its token"),
    ],
)
def test_another_policy_is_refused_with_what_differs(
    change: Callable[[Path], None], said: str, small_split: Split, tmp_path: Path
) -> None:
    folder = padded(small_split, tmp_path / "other")
    change(folder)
    with pytest.raises(PolicyError, match=said):
        find_checkpoint(folder, small_split)


ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True},
    "output layer saved": {"modules_to_save": ["lm_head"]},
    "embeddings saved": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "a norm saved": {"modules_to_save": ["norm"]},
    "embeddings adapted": {"target_modules": ["q_proj", "embed_tokens"]},
}
"""The base has its output layer tied to its embeddings, which those of one of the two must not touch."""


@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize("more", [0, 1])
def test_an_adapter_of_any_kind_makes_the_policy_that_was_trained(
    more: int, options: dict[str, Any], small_split: Split, tmp_path: Path
) -> None:
    """Also where its trainer added a token to the base."""
    from peft import LoraConfig, get_peft_model

    model = base_model(small_split)
    if more:
        model.resize_token_embeddings(model.config.vocab_size + more, mean_resizing=False)
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **options})
    adapted = shaken(get_peft_model(model, config))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=bool(more) or "auto")
    expected = logits(adapted)
    folder = find_checkpoint(tmp_path / "adapter", small_split)
    whole = merged(folder, small_split.policy_path)
    width = expected.shape[-1]
    torch.testing.assert_close(logits(whole.model)[..., :width], expected, rtol=0, atol=1e-4)
    save_policy(whole, tmp_path / "whole")
    torch.testing.assert_close(logits(load_policy(tmp_path / "whole").model)[..., :width], expected, rtol=0, atol=1e-4)


def test_a_padded_checkpoint_without_a_tokenizer_is_evaluated(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = padded(small_split, tmp_path / "bare", 3, tokenizer=False)
    words = ["eval", "--checkpoint", str(folder), "--split", str(small_split.path), "--out", str(tmp_path / "run")]
    assert run([*words, "--samples", "2", "--workers", "1", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["groups"]["easy"]["rate_after"] > 0.5, "its policy is the base's"
    assert f"{folder} has no tokenizer; the base policy's is used" in printed.err
    assert f"{folder} has 3 more tokens than the base policy" in printed.err
