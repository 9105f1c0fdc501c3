"""Checkpoints of a run: written at a step's end only, and resumed from bit for bit (LOOP, "Exact resume")."""

from __future__ import annotations

import torch

from unlearnbench.errors import RunError
from unlearnbench.policies.policy import restore_weights, whole_weights
from unlearnbench.training import checkpoint
from unlearnbench.training.build import Models
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.judge import Judge
from unlearnbench.training.meter import Meter
from unlearnbench.training.run_spec import RunSpec, RunState
from unlearnbench.training.services import MeteredServices


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
        kept = {} if finished else checkpoint.optimiser_tensors(policy, optimiser, keep=writes)
        weights = whole_weights(policy, keep=writes)
        if writes:
            checkpoint.save(self.spec.folder / "checkpoint", policy, kept, stored, method_state, weights)
        self.processes.wait()

    def resume(self, state: RunState, optimiser: torch.optim.Optimizer) -> bool:
        """Set the method up, back at the last checkpoint if there is one; returns whether the run was finished.

        Raises RunError where the checkpoint is of another configuration, or not the same for all processes.
        """
        place = checkpoint.find(self.spec.folder / "checkpoint")
        stored = None if place is None else checkpoint.read_state(place)
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
        checkpoint.restore_optimiser(place, self.models.policy, optimiser)
        self.hooks.call("setup")
        self.hooks.call("load_state_dict", stored["method"])
        return False
