"""Weights that foreign code has left: which are taken over, into what, and what is refused of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearnbench.errors import PolicyError
from unlearnbench.policies.policy import load_policy, save_policy
from unlearnbench.policies.weights import parameters_of, take_over
from unlearnbench.records import Lora
from unlearnbench.splits import Split

STATE = {"finished": True}
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def base(small_split: Split) -> Path:
    folder = small_split.policy_path
    assert isinstance(folder, Path)
    return folder


@pytest.fixture
def left(base: Path, tmp_path: Path) -> Path:
    """A folder as a training process leaves it, with another tokenizer and other settings than the base's."""
    folder = tmp_path / "run/1/.training/checkpoint"
    folder.mkdir(parents=True)
    shutil.copyfile(base / "model.safetensors", folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        (folder / name).write_text("{}")
    return folder


def _taken(left: Path, base: Path, lora: Lora | None = None) -> Path:
    target = left.parents[1] / "checkpoint"
    take_over(left, base, target, lora, STATE)
    return target


def _change(left: Path, change: Callable[[Weights], Any], name: str = "model.safetensors") -> None:
    weights = load_file(left / name)
    weights = change(weights) or weights
    save_file(weights, left / name, {"format": "pt"})


def test_weights_are_taken_over_and_all_else_is_the_bases(left: Path, base: Path) -> None:
    _change(left, lambda weights: {name: weight + 1 for name, weight in weights.items()})
    target = _taken(left, base)
    assert (target / "model.safetensors").read_bytes() == (left / "model.safetensors").read_bytes()
    for name in ("config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"):
        assert (target / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((target / "state.json").read_text()) == STATE
    moved = load_policy(target).model.state_dict()
    was = load_policy(base).model.state_dict()
    assert all(torch.equal(moved[name], was[name] + 1) for name in was)


def test_an_older_checkpoint_is_replaced_whole(left: Path, base: Path) -> None:
    target = _taken(left, base)
    (target / "litter.txt").write_text("x")
    _change(left, lambda weights: {name: weight * 2 for name, weight in weights.items()})
    _taken(left, base)
    assert not (target / "litter.txt").exists()
    assert (target / "model.safetensors").read_bytes() == (left / "model.safetensors").read_bytes()
    assert sorted(path.name for path in target.parent.iterdir()) == [".training", "checkpoint"]


def _poisoned(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        last = sorted(weights)[-1]
        changed = weights[last].to(dtype)
        changed.view(-1)[-1] = value
        return {**weights, last: changed}

    return change


def _renamed(weights: Weights) -> Weights:
    return {("model.other.weight" if name == "model.norm.weight" else name): w for name, w in weights.items()}


REFUSED: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "NaN": (_poisoned(float("nan")), "hold values that are not finite in model"),
    "infinity": (_poisoned(float("-inf")), "hold values that are not finite in model"),
    "another dtype": (_poisoned(1.0, torch.float64), r"as F64 \[.*\] where the base policy has F32"),
    "half precision": (_poisoned(1.0, torch.bfloat16), r"as BF16 \[.*\] where the base policy has F32"),
    "integers": (_poisoned(1.0, torch.int32), r"as I32 \[.*\] where the base policy has F32"),
    "another shape": (lambda w: {**w, "model.norm.weight": torch.ones(97)}, r"F32 \[97\] where .* F32 \[96\]: another"),
    "one more": (lambda w: {**w, "model.layers.4.x": torch.ones(1)}, "have model.layers.4.x, and those in"),
    "one less": (lambda w: {n: v for n, v in w.items() if n != "model.norm.weight"}, "have model.norm.weight, and"),
    "another name": (_renamed, "have model.norm.weight, and those in"),
    # loaded beside a tied embedding, it would be another output layer than the embedding
    "a head of its own": (lambda w: {**w, "lm_head.weight": torch.ones(51, 96)}, "have lm_head.weight, and those in"),
    "nothing": (lambda _: {"x": torch.ones(1)}, "another architecture"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_weights_of_another_kind_are_refused_by_name(what: str, left: Path, base: Path) -> None:
    change, message = REFUSED[what]
    _change(left, change)
    with pytest.raises(PolicyError, match=message) as caught:
        _taken(left, base)
    assert "\n" not in str(caught.value)
    assert not (left.parents[1] / "checkpoint").exists()


def test_a_base_in_half_precision_may_be_trained_in_float32(base: Path, left: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(base, tmp_path / "half"))
    _change(half, lambda weights: {name: weight.bfloat16() for name, weight in weights.items()})
    assert (_taken(left, half) / "model.safetensors").is_file()
    _change(left, lambda weights: {name: weight.bfloat16() for name, weight in weights.items()})
    assert (_taken(left, half) / "model.safetensors").is_file()
    _change(left, _poisoned(float("nan"), torch.bfloat16))
    with pytest.raises(PolicyError, match="not finite"):
        _taken(left, half)


def _link(left: Path, elsewhere: Path) -> None:
    (left / "model.safetensors").rename(elsewhere / "model.safetensors")
    (left / "model.safetensors").symlink_to(elsewhere / "model.safetensors")


def _link_folder(left: Path, elsewhere: Path) -> None:
    left.rename(elsewhere / "checkpoint")
    left.symlink_to(elsewhere / "checkpoint")


def _link_parent(left: Path, elsewhere: Path) -> None:
    left.parent.rename(elsewhere / "training")
    left.parent.symlink_to(elsewhere / "training")


def _pipe(left: Path, _: Path) -> None:
    (left / "model.safetensors").unlink()
    os.mkfifo(left / "model.safetensors")  # who opens it would wait for ever


def _folder(left: Path, _: Path) -> None:
    (left / "model.safetensors").unlink()
    (left / "model.safetensors").mkdir()


def _sparse(left: Path, _: Path) -> None:
    with (left / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)


def _junk(left: Path, _: Path) -> None:
    (left / "model.safetensors").write_bytes(b"\xff" * 1000)


def _pickled(left: Path, _: Path) -> None:
    (left / "model.safetensors").unlink()
    (left / "pytorch_model.bin").write_bytes(b"pickle")


def _twice(left: Path, _: Path) -> None:
    shutil.copyfile(left / "model.safetensors", left / "model-00001-of-00001.safetensors")


FILES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a link to the weights of another policy": (_link, "cannot be copied"),
    "a link to another folder": (_link_folder, "There is no folder"),
    "a link above it": (_link_parent, "There is no folder"),
    "a pipe": (_pipe, "are no regular file"),
    "a folder": (_folder, "are no regular file|cannot be copied"),
    "a terabyte": (_sparse, "are larger than the base policy's"),
    "junk": (_junk, "are not a safetensors file"),
    "pickled weights alone": (_pickled, "another architecture"),
    "the same names in two files": (_twice, "in two files"),
    "no folder at all": (lambda left, _: shutil.rmtree(left), "There is no folder"),
}


@pytest.mark.parametrize("what", FILES)
def test_only_regular_files_of_the_folder_itself_are_taken(what: str, left: Path, base: Path, tmp_path: Path) -> None:
    """As the split's positive control's, which the harness could read and the method could not."""
    change, message = FILES[what]
    (tmp_path / "elsewhere").mkdir()
    change(left, tmp_path / "elsewhere")
    with pytest.raises(PolicyError, match=message) as caught:
        _taken(left, base)
    assert "\n" not in str(caught.value)
    assert not (left.parents[1] / "checkpoint").exists()


def test_weights_in_several_files_are_found_by_an_index_of_our_own(left: Path, base: Path) -> None:
    weights = load_file(left / "model.safetensors")
    (left / "model.safetensors").unlink()
    names = sorted(weights)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        save_file({name: weights[name] for name in part}, left / f"model-0000{number}-of-00002.safetensors")
    (left / "model.safetensors.index.json").write_text('{"weight_map": {"x": "/etc/passwd"}}')
    loaded = load_policy(_taken(left, base)).model.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


# --- adapters ---------------------------------------------------------------------------------------------------------

LORA = Lora(rank=4, alpha=8.0, targets=("q_proj", "v_proj"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter as a training process leaves it, by peft; its configuration is another one."""
    from unlearnbench.policies.lora import adapt

    policy, _ = adapt(load_policy(base, trained=True), LORA, "test")
    with torch.no_grad():
        for weight in policy.trained().values():
            weight.add_(0.01)
    folder = tmp_path / "run/1/.training/checkpoint"
    save_policy(policy, folder)
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**told, "lora_alpha": 800, "base_model_name_or_path": "/x"})
    )
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers has renamed
def test_an_adapter_is_taken_over_with_a_configuration_of_our_own(adapter: Path, base: Path) -> None:
    target = _taken(adapter, base, LORA)
    assert sorted(path.name for path in target.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "state.json",
    ]
    told = json.loads((target / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["target_modules"]) == (4, 8.0, ["q_proj", "v_proj"])
    assert (told["base_model_name_or_path"], told["revision"]) == (str(base), None)
    loaded = load_policy(target).model.state_dict()
    weights, before = load_file(adapter / "adapter_model.safetensors"), load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(loaded[f"{name}.weight"], before[f"{name}.weight"] + (8.0 / 4) * (b @ a))
    assert torch.equal(loaded["model.norm.weight"], before["model.norm.weight"])


LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
ADAPTERS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "NaN": (_poisoned(float("nan")), "not finite"),
    "another rank": (lambda w: {**w, LAYER: torch.ones(5, 96)}, r"of shape \[5, 96\], and needs \[4, 96\]"),
    "another layer": (lambda w: {**w, LAYER.replace("q_proj", "x_proj"): torch.ones(4, 96)}, "which fits no layer"),
    "a whole weight": (lambda w: {**w, "base_model.model.lm_head.weight": torch.ones(51, 96)}, "which fits no layer"),
    "a norm": (lambda w: {**w, "base_model.model.model.norm.lora_A.weight": torch.ones(4, 96)}, "which fits no layer"),
    "another dtype": (lambda w: {**w, LAYER: torch.ones(4, 96).half()}, "which fits no layer"),
}


@pytest.mark.parametrize("what", ADAPTERS)
def test_an_adapter_of_another_kind_is_refused_by_name(what: str, adapter: Path, base: Path) -> None:
    change, message = ADAPTERS[what]
    _change(adapter, change, "adapter_model.safetensors")
    with pytest.raises(PolicyError, match=message) as caught:
        _taken(adapter, base, LORA)
    assert "\n" not in str(caught.value)


def test_an_adapter_names_its_base_so_that_it_is_found_again(adapter: Path, base: Path, tmp_path: Path) -> None:
    """Where the base is in the run's folder, also when that is moved; where it is on the Hub, by its name there."""
    own = Path(shutil.copytree(base, tmp_path / "run/.sealed/policy"))
    _taken(adapter, own, LORA)
    moved = (tmp_path / "run").rename(tmp_path / "moved") / "1/checkpoint"
    assert json.loads((moved / "adapter_config.json").read_text())["base_model_name_or_path"] == "../../.sealed/policy"
    assert load_policy(moved).parameters == load_policy(base).parameters
    take_over(moved.parent / ".training/checkpoint", base, moved, LORA, STATE, ("owner/name", "abc"))
    told = json.loads((moved / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("owner/name", "abc")


def test_of_an_adapter_run_no_whole_weights_are_taken_and_of_another_no_adapter(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError, match="another architecture"):
        _taken(adapter, base)
    (adapter / "adapter_model.safetensors").unlink()
    shutil.copyfile(base / "model.safetensors", adapter / "model.safetensors")
    with pytest.raises(PolicyError, match=r"has no adapter_model\.safetensors"):
        _taken(adapter, base, LORA)


def test_parameters_are_counted_as_the_policy_counts_them(base: Path, tmp_path: Path, small_split: Split) -> None:
    own = load_policy(base).parameters
    assert parameters_of(base) == own == small_split.config.base_policy.parameters
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    _change(whole, lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()})  # as some hubs' files
    assert parameters_of(whole) == own
    told = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**told, "tie_word_embeddings": False}))
    assert parameters_of(whole) == load_policy(whole).parameters == own + int(np.prod([51, 96]))
