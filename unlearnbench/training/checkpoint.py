"""A run's checkpoint: a policy folder that also holds what training needs to resume, bit for bit (LOOP, exact resume).

Written at a step's end only, to a temporary folder that then takes the old one's place. No pickle: tensors are
safetensors, everything else is JSON.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearnbench.errors import RunError
from unlearnbench.policies.fsdp import gathered, scattered
from unlearnbench.policies.policy import Policy, restore_weights, save_policy, whole_weights
from unlearnbench.training.build import Models
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.judge import Judge
from unlearnbench.training.meter import Meter
from unlearnbench.training.run_spec import RunSpec, RunState
from unlearnbench.training.services import MeteredServices

STATE = "state.json"
OPTIMISER = "optimiser.safetensors"
METHOD = "method.safetensors"
_TENSOR, _ARRAY, _TUPLE = "__tensor__", "__array__", "__tuple__"


class Checkpoints:
    """Saves and restores one run. Of several processes the first one writes."""

    def __init__(
        self,
        spec: RunSpec,
        hooks: Hooks,
        models: Models,
        judge: Judge,
        services: MeteredServices,
        meter: Meter,
        processes: Processes,
    ) -> None:
        self.spec, self.hooks, self.models, self.judge = spec, hooks, models, judge
        self.services, self.meter, self.processes = services, meter, processes

    def save(self, state: RunState, optimiser: torch.optim.Optimizer, *, finished: bool) -> None:
        """Write a checkpoint; a finished run keeps no optimiser. Raises RunError if the disk is full."""
        writes = self.processes.first
        if writes:
            self.judge.save(state.step)
        stored = {
            "schema_version": 1,
            "fingerprint": self.spec.fingerprint,
            "finished": finished,
            "step": state.step,
            "version": state.version,
            "seconds": state.seconds,
            "meter": self.meter.state(),
            "services": self.services.state(),
        }
        method_state = self.hooks.call("state_dict")
        policy = self.models.policy
        kept = {} if finished else optimiser_tensors(policy, optimiser, keep=writes)
        weights = whole_weights(policy, keep=writes)
        if writes:
            save(self.spec.folder / "checkpoint", policy, kept, stored, method_state, weights)
        self.processes.wait()

    def resume(self, state: RunState, optimiser: torch.optim.Optimizer) -> bool:
        """Set the method up, back at the last checkpoint if there is one; returns whether the run was finished.

        Raises RunError where the checkpoint is of another configuration, or not the same for all processes.
        """
        place = find(self.spec.folder / "checkpoint")
        stored = None if place is None else read_state(place)
        found = self.processes.everybody(None if stored is None else (stored["step"], stored["finished"]))
        if len(set(found)) > 1:
            raise RunError(
                f"not all processes find the same checkpoint in {self.spec.folder}; put it on a disk that all machines "
                "share, and rerun the same command"
            )
        if stored is not None and stored["fingerprint"] != self.spec.fingerprint:
            raise RunError(
                f"{self.spec.folder} holds a run of another configuration; name another folder with --out, or remove it"
            )
        if self.processes.first:
            self.judge.resume(0 if stored is None else stored["step"])
        if place is None or stored is None:
            self.hooks.call("setup")
            return False
        state.step, state.version, state.seconds = stored["step"], stored["version"], stored["seconds"]
        self.meter.restore(stored["meter"])
        self.services.restore(stored["services"])
        if stored["finished"]:
            return True
        restore_weights(self.models.policy, place)
        self.models.sampler.weights_changed()
        restore_optimiser(place, self.models.policy, optimiser)
        self.hooks.call("setup")
        self.hooks.call("load_state_dict", stored["method"])
        return False


def save(
    folder: Path,
    policy: Policy,
    optimiser: Mapping[str, Tensor],
    state: Mapping[str, Any],
    method_state: Mapping[str, Any],
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Replace the checkpoint at `folder`. `optimiser` and `weights` are what was gathered to be saved.

    Raises RunError if the disk is full; the older one is then untouched.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        _require_room(folder.parent, policy, optimiser)
        save_policy(policy, fresh, weights)
        kept = save_method(fresh, method_state)
        if optimiser:
            save_file(dict(optimiser), fresh / OPTIMISER)
        (fresh / STATE).write_text(json.dumps({**state, "method": kept}, indent=1) + "\n")
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if folder.exists():  # else `old` is all there is, left by a kill between the two renames
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as problem:
        detail = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise RunError(
            f"cannot write the checkpoint {folder} ({detail}); free some space and run the same command again: "
            "it resumes"
        ) from problem


def _require_room(folder: Path, policy: Policy, optimiser: Mapping[str, Tensor]) -> None:
    """Raise OSError where the checkpoint will not fit: safetensors aborts the process on a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(value.numel() * value.element_size() for value in policy.trained().values())
    wanted = weights + sum(value.numel() * value.element_size() for value in optimiser.values()) + (1 << 20)
    if shutil.disk_usage(folder).free < wanted:
        raise OSError(errno.ENOSPC, f"no space left for {wanted / 1e6:.0f} MB")


def find(folder: Path) -> Path | None:
    """The complete checkpoint at `folder`, or None. A kill between the two renames leaves it under `.old`."""
    for place in (folder, folder.with_name(folder.name + ".old")):
        if (place / STATE).is_file():
            return place
    return None


def is_finished(folder: Path) -> bool:
    """Whether a policy's folder is that of a run that has ended, or of no run. Raises RunError for a broken one."""
    return not (folder / STATE).is_file() or bool(_state(folder, ("finished",))["finished"])


def read_state(folder: Path) -> dict[str, Any]:
    """What is needed to resume from a checkpoint. Raises RunError for a broken one."""
    state = _state(folder, ("fingerprint", "finished", "step", "version", "seconds", "meter", "services", "method"))
    state["method"] = read_method(folder, state["method"])
    return state


def _state(folder: Path, needed: Sequence[str]) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError, RecursionError):
        state = None
    if not isinstance(state, dict) or not all(name in state for name in needed):
        raise RunError(f"{folder / STATE} is broken, so nothing resumes from it; remove {folder} and run it again")
    return state


def save_method(folder: Path, state: Mapping[str, Any]) -> Any:
    """A method's state as JSON; its tensors and arrays go to a file in the folder.

    Raises RunError for what is neither numbers, strings, lists, dicts, arrays nor tensors.
    """
    tensors: dict[str, Tensor] = {}
    kept = _strip(state, tensors, "")
    if tensors:
        save_file(tensors, folder / METHOD)
    return kept


def read_method(folder: Path, kept: Any) -> Any:
    """The state that `save_method` made JSON of."""
    path = folder / METHOD
    return _fill(kept, load_file(path) if path.is_file() else {})


def restore_optimiser(folder: Path, policy: Policy, optimiser: torch.optim.Optimizer) -> None:
    stored = load_file(folder / OPTIMISER, device=str(policy.device))
    names = _names(policy, optimiser)
    for name, parameter in names.items():
        entry = {key.split("/", 1)[0]: value for key, value in stored.items() if key.split("/", 1)[1] == name}
        if entry:
            entry["step"] = entry["step"].cpu()
            optimiser.state[parameter] = {key: scattered(value, parameter) for key, value in entry.items()}


def _names(policy: Policy, optimiser: torch.optim.Optimizer) -> dict[str, torch.nn.Parameter]:
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return {name: value for name, value in policy.model.named_parameters() if id(value) in trained}


def optimiser_tensors(policy: Policy, optimiser: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Tensor]:
    """What an optimiser knows of each weight; of a sharded policy gathered, and nothing where it is not to be kept."""
    found: dict[str, Tensor] = {}
    for name, parameter in _names(policy, optimiser).items():
        for key, value in optimiser.state.get(parameter, {}).items():
            full = gathered(value)  # every process takes part
            if keep:
                found[f"{key}/{name}"] = full.contiguous() if full is value else full.cpu()
    return found


def _strip(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """JSON of a method's state, with tensors and arrays moved to `tensors`."""
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {_ARRAY: path}
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RunError(f"the method's state_dict has the key {key!r} at {path or '/'}; use strings as keys")
        return {key: _strip(entry, tensors, f"{path}/{key}") for key, entry in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: _strip(list(value), tensors, path)}
    if isinstance(value, list):
        return [_strip(entry, tensors, f"{path}/{k}") for k, entry in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise RunError(
        f"the method's state_dict holds a {type(value).__name__} at {path or '/'}; return numbers, strings, lists, "
        "dicts, arrays and tensors only"
    )


def _fill(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if set(value) == {_ARRAY}:
            return tensors[value[_ARRAY]].numpy()
        if set(value) == {_TUPLE}:
            return tuple(_fill(value[_TUPLE], tensors))
        return {key: _fill(entry, tensors) for key, entry in value.items()}
    if isinstance(value, list):
        return [_fill(entry, tensors) for entry in value]
    return value
