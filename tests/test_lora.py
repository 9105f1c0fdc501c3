"""LoRA in the loop: only the adapter is trained and saved, the start costs no memory, the whole policy is measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unlearnbench.cli.eval import parse_changes
from unlearnbench.errors import PolicyError
from unlearnbench.harness.policy_ref import resolve
from unlearnbench.method import Method, settings_of
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.lora import adapt
from unlearnbench.policies.policy import load_policy, save_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Request
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Lora, Recipe
from unlearnbench.splits import Split
from unlearnbench.training.batch import fixed_logprobs
from unlearnbench.training.build import begin
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.ledger import read_metrics
from unlearnbench.training.options import TrainerOptions

LORA = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"]}


def _train(training: Any, folder: Path, steps: int = 2) -> Any:
    run = training(Grpo, folder, steps=steps, learning_rate=3e-3, kl=0.01, lora=LORA)
    run.run()
    run.save(finished=steps == 2)
    return run


def _equals_its_parts(run: Any, folder: Path, small_split: Split) -> None:
    """The start is the same memory without the adapter; the sampler draws from the adapted policy."""
    assert {id(p) for p in run.models.reference.model.parameters()} == {
        id(p) for p in run.models.policy.model.parameters()
    }
    batch = run._batch(run._choose(run._collect()))
    base, trained = load_policy(small_split.policy_path), load_policy(folder / "checkpoint")
    start = fixed_logprobs(base.model, batch, 1.0)
    torch.testing.assert_close(fixed_logprobs(run.models.reference.model, batch, 1.0), start, rtol=0, atol=0)
    ours, theirs = (fixed_logprobs(policy.model, batch, 1.0) for policy in (run.models.policy, trained))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert float((ours - start).abs().max()) > 0.01
    assert read_metrics(folder)[0]["sampler_mismatch"] < 1e-4
    assert all(
        weight.requires_grad == (".lora_" in name) for name, weight in run.models.policy.model.named_parameters()
    )
    request = Request(run.models.policy.encode("sum 13 25="), 64, key=7)
    drawn, again = (
        TransformersSampler(policy).generate([request], temperature=1.0, top_p=1.0, max_tokens=12)[0]
        for policy in (run.models.policy, trained)
    )
    same = (drawn.tokens == again.tokens).all(1)
    assert same.mean() > 0.95  # but for draws on an edge
    np.testing.assert_allclose(drawn.logprobs[same], again.logprobs[same], atol=1e-4)


def test_only_the_adapter_moves_and_what_is_saved_is_the_policy_that_was_trained(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = _train(training, tmp_path)
    base = load_file(small_split.policy_path / "model.safetensors")
    file = load_file(tmp_path / "checkpoint/adapter_model.safetensors")
    assert not (tmp_path / "checkpoint/config.json").exists()
    assert sum(tensor.numel() for tensor in file.values()) < 0.1 * run.models.policy.parameters
    assert (
        run.models.policy.parameters
        == run.models.reference.parameters
        == sum(tensor.numel() for tensor in base.values())
    )

    def expected(name: str) -> torch.Tensor:
        place = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{place}.lora_A.weight" not in file:
            return base[name]
        return base[name] + 8.0 / 4 * file[f"{place}.lora_B.weight"] @ file[f"{place}.lora_A.weight"]

    saved = load_policy(tmp_path / "checkpoint").model.state_dict()
    told = dict(run.models.policy.weights())  # what an engine of another kind is given
    moved = 0
    for name in base:
        torch.testing.assert_close(saved[name], expected(name), rtol=0, atol=1e-6)
        torch.testing.assert_close(told[name], expected(name), rtol=0, atol=1e-6)
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            moved += int(not torch.equal(saved[name], base[name]))
        else:
            assert torch.equal(saved[name], base[name])
    assert moved == 2 * run.models.policy.model.config.num_hidden_layers
    assert told.keys() == saved.keys()
    _equals_its_parts(run, tmp_path, small_split)


def test_a_step_and_a_resumed_one_are_two(training: Any, tmp_path: Path) -> None:
    whole = _train(training, tmp_path / "whole", steps=2)
    _train(training, tmp_path / "parts", steps=1)
    parts = _train(training, tmp_path / "parts", steps=2)
    assert parts.meter.state() == whole.meter.state()
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "parts/metrics.jsonl").read_bytes()
    one, two = (load_file(tmp_path / f"{name}/checkpoint/adapter_model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_with_the_base_in_its_folder_may_be_moved(small_split: Split, tmp_path: Path) -> None:
    base = Path(shutil.copytree(small_split.policy_path, tmp_path / "run/.sealed/policy"))
    policy, _ = adapt(load_policy(base, trained=True), Lora(rank=2), "test")
    with torch.no_grad():
        for name, weight in policy.trained().items():
            weight.add_(0.1 if "lora_B" in name else 0.0)
    save_policy(policy, tmp_path / "run/1/checkpoint")
    (tmp_path / "run").rename(tmp_path / "moved")
    place = resolve(tmp_path / "moved")[0].source  # as `diagnose` finds it
    loaded = load_policy(place)
    assert Path(loaded.source) == (tmp_path / "moved/.sealed/policy").resolve()
    for name, weight in policy.weights():
        torch.testing.assert_close(loaded.model.state_dict()[name], weight, rtol=0, atol=1e-6)
    (tmp_path / "moved/1/checkpoint/adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match="does not name its base"):
        load_policy(place)


def test_settings_of_an_adapter_are_changed_one_by_one_and_hashes_stay(micro: Split) -> None:
    assert parse_changes(("lora.rank=4", "lora.alpha=8")) == {"lora": {"rank": 4, "alpha": 8}}
    recipe = Recipe(lora=Lora(rank=4, alpha=8))
    assert settings_of(Method, recipe, {"lora": {"rank": 2}}).lora == Lora(rank=2, alpha=8)
    assert settings_of(Method, recipe, {"lora": None}).lora is None
    assert "lora" not in Recipe().model_dump() and "lora" not in Method.Settings().model_dump(mode="json")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert micro.hash == "859d5b219ba5e9d53586a873eae9065219a34be0898780c8ff11b4f83abb3222"


@pytest.mark.parametrize(
    ("targets", "said"), [(["nonsense"], "is called as lora.targets says"), (["embed_tokens"], "an embedding")]
)
def test_layers_that_cannot_be_adapted_are_named(targets: list[str], said: str, small_split: Split) -> None:
    with pytest.raises(PolicyError, match=said):
        adapt(load_policy(small_split.policy_path), Lora(targets=tuple(targets)), "test")


def test_an_adapter_is_no_start_for_another_which_would_be_saved_without_it(small_split: Split, tmp_path: Path) -> None:
    policy, _ = adapt(load_policy(small_split.policy_path, trained=True), Lora(rank=2), "test")
    save_policy(policy, tmp_path / "run/1/checkpoint")
    start, told = tmp_path / "run/1/checkpoint", {"revision": None, "prompt_format": "raw", "root": "test"}
    with pytest.raises(PolicyError, match="start from its merged policy"):
        begin(start, Recipe(lora=Lora(rank=2)), TrainerOptions(), Processes(), Engine(), **told)
    models = begin(start, Recipe(), TrainerOptions(), Processes(), Engine(), **told)
    assert not models.policy.adapted  # all weights of the merged policy
