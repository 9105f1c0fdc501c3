"""A base policy that is a name on the Hub: trained, without network, from the cache of whoever runs the command."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from unlearnbench import evaluate
from unlearnbench.errors import PolicyError
from unlearnbench.harness.policy_ref import base_folder
from unlearnbench.splits import Split
from unlearnbench.splits.write import write_config

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """A split whose policy lies in the Hub's cache alone, as it downloads: links to files named by their content."""
    cache = tmp_path / "home/.cache/huggingface/hub"
    repository = cache / "models--owner--tiny"
    snapshot = repository / "snapshots" / REVISION
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs/main").write_text(REVISION)
    split = Path(shutil.copytree(small_split.path, tmp_path / "small"))
    for file in (split / "policy").iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (split / "policy").rmdir()
    reference = small_split.config.base_policy.model_copy(update={"path": "owner/tiny", "revision": REVISION})
    write_config(split, small_split.config.model_copy(update={"base_policy": reference}))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # of the processes that measure
    return Split(split)


@pytest.mark.slow
def test_it_is_trained_and_measured_and_an_adapter_of_it_names_it(cached: Split, tmp_path: Path) -> None:
    settings = {"lora": {"rank": 2, "alpha": 4.0}, "prompts_per_step": 6}
    result = evaluate("grpo", cached, quick=True, out=tmp_path / "run", settings=settings)
    easy = result.groups["easy"].rate_after
    assert easy is not None and easy > 0.5  # it is the policy that it should be
    told = json.loads((tmp_path / "run/1/checkpoint/adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("owner/tiny", REVISION)


def test_it_is_the_one_in_the_cache(cached: Split, small_split: Split) -> None:
    folder = base_folder(cached)
    assert folder.name == REVISION
    own = small_split.path / "policy/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == own.read_bytes()


def test_one_that_is_not_there_is_one_sentence(cached: Split, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "home/.cache")
    with pytest.raises(PolicyError, match="the Hub cannot be reached for a policy of that name"):
        base_folder(cached)
