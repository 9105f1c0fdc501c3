"""The training loop. Read `Training.run` first: it is the algorithm.

    for each step, until the budget is spent:
        rounds of: plan → generate → verdicts → reward               (`_collect`)
        inject, drop groups without signal, keep, augment            (`_choose`)
        a few optimiser updates on the kept groups                   (`_update`)
        log, and every few steps a checkpoint

What a method may change is in `method.py`; what other trainers learned the hard way is in docs/reference/training.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.errors import MethodError, VerifierError
from unlearnbench.method import ZERO_SIGNAL, Method, PoolItem, Visit
from unlearnbench.policies.fsdp import gathered
from unlearnbench.records import Recipe, Rollout, RolloutGroup
from unlearnbench.training.batch import TokenBatch, make_batch
from unlearnbench.training.build import Models, RunPolicies
from unlearnbench.training.checkpoint import Checkpoints
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.importance_sampling import check_sampler
from unlearnbench.training.judge import Judge
from unlearnbench.training.meter import Meter
from unlearnbench.training.metrics import Metrics, averaged, step_metrics
from unlearnbench.training.options import DEFAULT, TrainerOptions
from unlearnbench.training.passes import Passes
from unlearnbench.training.rollouts import Rollouts, merged, without_failures
from unlearnbench.training.run_spec import RunSpec, RunState
from unlearnbench.training.services import MeteredServices

MAX_VERIFIER_FAILURES = 0.01  # above this share of a step's rollouts the run stops (LOOP 9)
Progress = Callable[[int, Metrics, Meter], None]


class Training:
    """One run of one seed: the state that the loop carries, and the loop."""

    def __init__(
        self,
        method: Method,
        pool: Sequence[PoolItem],
        models: Models,
        judge: Judge,
        spec: RunSpec,
        *,
        processes: Processes | None = None,
        options: TrainerOptions = DEFAULT,
        progress: Progress | None = None,
    ) -> None:
        self.method, self.hooks = method, Hooks(method)
        self.recipe: Recipe = method.settings
        self.models, self.judge, self.spec = models, judge, spec
        self.processes, self.options = processes or Processes(), options
        self.pool = {item.item_id: item for item in pool}  # similar problems and sub-problems join it when asked for
        self.meter = Meter(models.policy.parameters, spec.limits.flops)
        policies = RunPolicies(models, judge)
        self.services = MeteredServices(self.pool, judge, models, spec, self.recipe, self.meter, policies)
        method.run = self.services
        self.rollouts = Rollouts(self.hooks, self.pool, models, judge, spec.root, self.meter, self.processes)
        self.passes = Passes(self.hooks, models, policies, self.meter, self.processes, options)
        models.policy.model.eval()  # in updates, too: dropout would make the trainer's probabilities another policy's
        self.trained = list(models.policy.trained().values())  # an adapter's weights, where there is one
        self.optimiser = torch.optim.AdamW(
            self.trained,
            lr=self.recipe.learning_rate,
            betas=self.recipe.adam_betas,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        self.progress = progress
        self.checkpoints = Checkpoints(spec, self.hooks, models, judge, self.services, self.meter, self.processes)
        self.state = RunState()

    def run(self) -> None:
        """Train from the last checkpoint until a limit is reached."""
        while not self.meter.spent and (self.spec.limits.steps is None or self.state.step < self.spec.limits.steps):
            began, before = time.monotonic(), self.meter.flops
            self.services.step, self.services.progress = self.state.step, self._progress()
            groups = self._collect()
            kept = self._choose(groups)
            metrics = step_metrics(self.state.step, groups, kept) | self._update(kept)
            if self.meter.flops == before:
                raise MethodError(
                    f"{type(self.method).__name__} spent nothing in step {self.state.step}, so its budget would never "
                    "end; return items from select_items and plans from plan_rollouts, or override train."
                )
            self.hooks.call("on_step_end", self.state.step, {k: v for k, v in metrics.items() if v is not None})
            metrics["flops"] = self.meter.flops
            if self.processes.first:
                self.judge.log(metrics)
            self.state.step += 1
            self.state.seconds += time.monotonic() - began
            if self.state.step % self.recipe.checkpoint_every == 0:
                self.save()
            if self.progress and self.processes.first:
                self.progress(self.state.step, metrics, self.meter)

    def _progress(self) -> float:
        """Share of the budget that is spent, by the limit that is nearer."""
        limits = self.spec.limits
        by_cost = self.meter.flops / limits.flops if limits.flops else 0.0
        by_steps = self.state.step / limits.steps if limits.steps else 0.0
        return min(1.0, max(by_cost, by_steps))

    def _collect(self) -> list[RolloutGroup]:
        """All rollouts of a step: rounds of generating, verifying and rewarding."""
        selected = self.hooks.selected(self.state.step, self.pool)
        groups: list[RolloutGroup] = []
        for round_ in range(self.recipe.max_rounds):
            plans = self.hooks.plans(self.state.step, round_, selected, groups, self.pool)
            if not plans:
                break
            groups = merged(groups, self.rollouts.draw(plans, self.state.step, round_, self.state.version))
            self._require_verdicts(groups)
        for group in groups:
            correct = sum(bool(rollout.verdict.correct) for rollout in group)
            self.services.visits.setdefault(group.item_id, []).append(Visit(self.state.step, len(group), correct))
        return groups

    def _choose(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """The groups to train on; the judge records everything that was drawn first."""
        usable = [without_failures(group) for group in groups]
        injected = self.hooks.groups("inject", usable)
        kept = [group for group in injected if self._has_signal(group) and self.hooks.keep(group)]
        if self.processes.first:
            rewards = [rollout.reward for group in groups for rollout in group]
            self.judge.record(self.state.step, rewards, sorted({group.item_id for group in kept}))
        return self.hooks.groups("augment", kept)

    def _update(self, groups: Sequence[RolloutGroup]) -> Metrics:
        """`updates_per_batch` optimiser steps over the kept groups; none where nothing was kept."""
        recipe = self.recipe
        parts = np.array_split(np.arange(len(groups)), recipe.updates_per_batch)
        batches = [self._batch([groups[i] for i in part]) for part in parts if len(part)]
        self.processes.require_same([batch.digest() for batch in batches], type(self.method).__name__, self.state.step)
        references = self.passes.reference_logprobs(batches)
        before = self.passes.own_logprobs(batches)
        rate = recipe.learning_rate * min(1.0, (self.state.step + 1) / max(1, recipe.warmup_steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        seen: list[Metrics] = []
        for batch, reference, own in zip(batches, references, before, strict=True):
            self.optimiser.zero_grad(set_to_none=True)
            seen.append(self.passes.backward(batch, reference, own))
            if not self.models.sharded:  # else the backward passes have done it
                self.processes.sum_gradients(self.trained)
            if self.state.version == 0 and len(seen) == 1:
                check_sampler(self.models.policy, self.models.sampler, seen[0], self.options.precision)
            norm = gathered(torch.nn.utils.clip_grad_norm_(self.trained, recipe.gradient_clip))
            if not bool(torch.isfinite(norm)):
                raise MethodError(
                    f"{type(self.method).__name__} has a gradient that is not finite in step {self.state.step}; "
                    "check its policy_loss, auxiliary_loss and advantages."
                )
            self.optimiser.step()
            seen[-1]["gradient_norm"] = float(norm)
        if batches:
            self.state.version += 1
            self.models.sampler.weights_changed()
        return averaged(seen, len(batches))

    def save(self, *, finished: bool = False) -> None:
        """Write a checkpoint. A finished run keeps its weights and no optimiser."""
        self.checkpoints.save(self.state, self.optimiser, finished=finished)

    def resume(self) -> bool:
        """Set the method up, back at the last checkpoint if there is one; returns whether the run was finished."""
        return self.checkpoints.resume(self.state, self.optimiser)

    def _batch(self, groups: Sequence[RolloutGroup]) -> TokenBatch:
        rollouts: list[Rollout] = []
        advantages: list[NDArray[np.float64]] = []
        for group in groups:
            rollouts += group.rollouts
            advantages += self.hooks.advantages(group)
        return make_batch(
            rollouts,
            advantages,
            self.recipe.aggregation,
            self.models.policy.device,
            max_tokens=self.recipe.max_tokens,
            version=self.state.version,
        )

    def _has_signal(self, group: RolloutGroup) -> bool:
        if len(group) == 0:
            return False
        rewards = group.rewards
        return not self.recipe.drop_zero_signal or float(rewards.max() - rewards.min()) > ZERO_SIGNAL

    def _require_verdicts(self, groups: Sequence[RolloutGroup]) -> None:
        verdicts = [rollout.verdict.correct for group in groups for rollout in group]
        if (failures := verdicts.count(None)) > MAX_VERIFIER_FAILURES * max(len(verdicts), 100):
            raise VerifierError(
                f"the verifier failed on {failures} of {len(verdicts)} rollouts in step {self.state.step}; its "
                "workers may lack memory; rerun the same command to resume"
            )
