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

MAX_VERIFIER_FAILURES = 0.01
"""The run stops if the verifier fails on more than this share of a step's rollouts (LOOP 9)."""
Progress = Callable[[int, Metrics, Meter], None]
"""Called after every step with the number of steps made, the step's metrics, and the meter."""


class Training:
    """One run of one seed: the state that the loop carries, and the loop.

    `resume` must be called once before `run`: it sets the method up, also for a run that starts from scratch.
    """

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
        models.policy.model.eval()  # in updates, too: with dropout the trainer would be another policy (LOOP 15)
        self.trained = list(models.policy.trained().values())  # the adapter's weights alone, if the policy has one
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
            began, flops_before = time.monotonic(), self.meter.flops
            self.services.step, self.services.progress = self.state.step, self._progress()
            groups = self._collect()
            kept = self._choose(groups)
            metrics = step_metrics(self.state.step, groups, kept) | self._update(kept)
            if self.meter.flops == flops_before:
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
        """Share of the budget that is spent, 0 to 1, by the limit (FLOPs or steps) that is nearer."""
        limits = self.spec.limits
        by_cost = self.meter.flops / limits.flops if limits.flops else 0.0
        by_steps = self.state.step / limits.steps if limits.steps else 0.0
        return min(1.0, max(by_cost, by_steps))

    def _collect(self) -> list[RolloutGroup]:
        """All rollouts of a step, one group per item: rounds of generating, verifying and rewarding.

        Raises VerifierError if the verifier failed on too many of them.
        """
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
        """The groups to train on, in the order of LOOP 16: inject, drop groups without signal, keep, augment.

        The judge records every drawn rollout with its reward, whether it is trained on or not.
        """
        usable = [without_failures(group) for group in groups]
        injected = self.hooks.groups("inject", usable)
        kept = [group for group in injected if self._has_signal(group) and self.hooks.keep(group)]
        if self.processes.first:
            rewards = [rollout.reward for group in groups for rollout in group]
            self.judge.record(self.state.step, rewards, sorted({group.item_id for group in kept}))
        return self.hooks.groups("augment", kept)

    def _update(self, groups: Sequence[RolloutGroup]) -> Metrics:
        """`updates_per_batch` optimiser steps, each on its part of the kept groups; none if nothing was kept.

        Returns the metrics of the updates, averaged. Raises MethodError for a gradient that is not finite.
        """
        recipe = self.recipe
        parts = np.array_split(np.arange(len(groups)), recipe.updates_per_batch)
        batches = [self._batch([groups[i] for i in part]) for part in parts if len(part)]
        self.processes.require_same([batch.digest() for batch in batches], type(self.method).__name__, self.state.step)
        references = self.passes.reference_logprobs(batches)
        old_policy = self.passes.own_logprobs(batches)  # None: the sampler's, or the update's own, serve
        rate = recipe.learning_rate * min(1.0, (self.state.step + 1) / max(1, recipe.warmup_steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        updates: list[Metrics] = []
        for batch, reference, old in zip(batches, references, old_policy, strict=True):
            self.optimiser.zero_grad(set_to_none=True)
            updates.append(self.passes.backward(batch, reference, old))
            if not self.models.sharded:  # sharded gradients are summed in the backward pass
                self.processes.sum_gradients(self.trained)
            if self.state.version == 0 and len(updates) == 1:  # no weight has changed yet (LOOP 2)
                check_sampler(self.models.policy, self.models.sampler, updates[0], self.options.precision)
            norm = gathered(torch.nn.utils.clip_grad_norm_(self.trained, recipe.gradient_clip))
            if not bool(torch.isfinite(norm)):
                raise MethodError(
                    f"{type(self.method).__name__} has a gradient that is not finite in step {self.state.step}; "
                    "check its policy_loss, auxiliary_loss and advantages."
                )
            self.optimiser.step()
            updates[-1]["gradient_norm"] = float(norm)
        if batches:
            self.state.version += 1
            self.models.sampler.weights_changed()
        return averaged(updates, len(batches))

    def save(self, *, finished: bool = False) -> None:
        """Write a checkpoint. A finished run keeps its weights and no optimiser."""
        self.checkpoints.save(self.state, self.optimiser, finished=finished)

    def resume(self) -> bool:
        """Load the last checkpoint, if there is one, and call the method's `setup`.

        Returns whether the run had finished; then nothing is set up, and there is nothing left to train.
        """
        return self.checkpoints.resume(self.state, self.optimiser)

    def _batch(self, groups: Sequence[RolloutGroup]) -> TokenBatch:
        """The rollouts of one update as tensors, with the method's advantages."""
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
        """Whether a group's rewards differ (LOOP 8); with `drop_zero_signal` off, whether it has a rollout."""
        if len(group) == 0:
            return False
        rewards = group.rewards
        return not self.recipe.drop_zero_signal or float(rewards.max() - rewards.min()) > ZERO_SIGNAL

    def _require_verdicts(self, groups: Sequence[RolloutGroup]) -> None:
        """Raise VerifierError if too many verdicts are missing; of fewer than 100 rollouts, one may be (LOOP 9)."""
        verdicts = [rollout.verdict.correct for group in groups for rollout in group]
        if (failures := verdicts.count(None)) > MAX_VERIFIER_FAILURES * max(len(verdicts), 100):
            raise VerifierError(
                f"the verifier failed on {failures} of {len(verdicts)} rollouts in step {self.state.step}; its "
                "workers may lack memory; rerun the same command to resume"
            )
