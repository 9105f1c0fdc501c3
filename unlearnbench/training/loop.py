"""The one training loop. Read `Training.run` first: it is the algorithm.

    for each step, until the budget is spent:
        rounds of: plan → generate → verify → record → reward        (`_collect`)
        inject, drop groups without signal, keep, augment            (`_choose`)
        a few optimiser updates on the kept groups                   (`_update`)
        log, and now and then a checkpoint

What a method may change is in `method.py`; what other trainers learned the hard way is in docs/reference/training.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.errors import MethodError, RunError, VerifierError
from unlearnbench.method import ZERO_SIGNAL, LossBatch, Method, Plan, Visit
from unlearnbench.policies.fsdp import gathered, is_sharded
from unlearnbench.policies.policy import Policy, restore_weights, whole_weights
from unlearnbench.policies.samplers.sampler import Request, Sampler
from unlearnbench.records import Item, Recipe, Rollout, RolloutGroup, Verdict
from unlearnbench.rng import stream
from unlearnbench.training import checkpoint
from unlearnbench.training.batch import TokenBatch, fixed_logprobs, make_batch, token_logprobs
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.importance_sampling import check_sampler, truncated
from unlearnbench.training.ledger import Ledger
from unlearnbench.training.meter import Meter
from unlearnbench.training.options import DEFAULT, TrainerOptions
from unlearnbench.training.rollout_groups import merged, repeats, without_failures
from unlearnbench.training.services import Ask, MeteredServices, unanswered
from unlearnbench.verifier import UNGRADABLE, Verifier

MAX_VERIFIER_FAILURES = 0.01  # above this share of a step's rollouts the run stops (LOOP 9)
_UNJUDGED = Verdict(None, None, "verifier_error")
Metrics = dict[str, float | int | None]
Progress = Callable[[int, Metrics, Meter], None]


@dataclass(frozen=True)
class Limits:
    """When a run ends: after the step that reaches `flops`, or after `steps`, whichever comes first."""

    flops: int | None
    steps: int | None


class Training:
    """One run of one seed: the state that the loop carries, and the loop."""

    def __init__(
        self,
        method: Method,
        items: Sequence[Item],
        policy: Policy,
        reference: Policy,
        sampler: Sampler,
        verifier: Verifier,
        *,
        root: str,
        seed: int,
        limits: Limits,
        folder: Path,
        fingerprint: str,
        knows_traces: bool,
        ask: Ask = unanswered,
        processes: Processes | None = None,
        progress: Progress | None = None,
        options: TrainerOptions = DEFAULT,
    ) -> None:
        self.method, self.hooks = method, Hooks(method)
        self.recipe: Recipe = method.settings
        self.policy, self.reference = policy, reference
        self.sampler, self.verifier = sampler, verifier
        self.processes, self.options = processes or Processes(), options
        self.sharded = is_sharded(policy.model)
        self.items = {item.item_id: item for item in items}  # similar and sub-problems join it when they are read
        self.root, self.limits, self.folder, self.fingerprint = root, limits, folder, fingerprint
        self.meter = Meter(policy.parameters, limits.flops)
        self.services = MeteredServices(
            self.items,
            ask=ask,
            verifier=verifier,
            root=root,
            seed=seed,
            recipe=self.recipe,
            policy=policy,
            reference=reference,
            sampler=sampler,
            meter=self.meter,
        )
        method.run = self.services
        solutions = {item.item_id: item.solution for item in items} if knows_traces else None
        self.ledger = Ledger(folder, solutions, writes=self.processes.first)
        policy.model.eval()  # in updates, too: dropout would make the trainer's probabilities another policy's
        self.trained = list(policy.trained().values())  # an adapter's weights, where there is one
        self.optimiser = torch.optim.AdamW(
            self.trained,
            lr=self.recipe.learning_rate,
            betas=self.recipe.adam_betas,
            weight_decay=self.recipe.weight_decay,
        )
        self.progress = progress
        self.step = 0
        self.version = 0
        self.seconds = 0.0

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the last checkpoint until a limit is reached."""
        while not self.meter.spent and (self.limits.steps is None or self.step < self.limits.steps):
            began, before = time.monotonic(), self.meter.flops
            self.services.step = self.step
            groups = self._collect()
            kept = self._choose(groups)
            metrics = self._metrics(groups, kept) | self._update(kept)
            if self.meter.flops == before:
                raise MethodError(
                    f"{type(self.method).__name__} spent nothing in step {self.step}, so its budget would never "
                    "end; return items from select_items and plans from plan_rollouts, or override train."
                )
            self.hooks.call("on_step_end", self.step, {k: v for k, v in metrics.items() if v is not None})
            metrics["flops"] = self.meter.flops
            self.ledger.log(metrics)
            self.step += 1
            self.seconds += time.monotonic() - began
            if self.step % self.recipe.checkpoint_every == 0:
                self.save()
            if self.progress and self.processes.first:
                self.progress(self.step, metrics, self.meter)

    def _collect(self) -> list[RolloutGroup]:
        """All rollouts of a step: rounds of generating, verifying and rewarding."""
        selected = self.hooks.selected(self.step, self.items)
        groups: list[RolloutGroup] = []
        failures = total = 0
        for round_ in range(self.recipe.max_rounds):
            plans = self.hooks.plans(self.step, round_, selected, groups, self.items)
            if not plans:
                break
            drawn = self._generate(plans, round_)
            failures += sum(rollout.verdict.correct is None for group in drawn for rollout in group)
            total += sum(len(group) for group in drawn)
            if failures > MAX_VERIFIER_FAILURES * max(total, 100):
                raise VerifierError(
                    f"the verifier failed on {failures} of {total} rollouts in step {self.step}; its "
                    "workers may lack memory; run the same command again: it resumes"
                )
            groups = merged(groups, drawn)
        for group in groups:
            judged = [rollout.verdict.correct for rollout in group]
            visit = Visit(self.step, len(judged), sum(bool(correct) for correct in judged))
            self.services.visits.setdefault(group.item_id, []).append(visit)
        return groups

    def _generate(self, plans: Sequence[Plan], round_: int) -> list[RolloutGroup]:
        """One call of the sampler for all groups of a round, and one of the verifier."""
        recipe = self.recipe
        contexts = [self.items[plan.item_id].prompt if plan.context is None else plan.context for plan in plans]
        prompts = [self.policy.encode(text, plan.prefix) for text, plan in zip(contexts, plans, strict=True)]
        requests = [
            Request(ids, plan.n, stream(self.root, "train", self.step, round_, plan.item_id, repeat))
            for ids, plan, repeat in zip(prompts, plans, repeats(plans), strict=True)
        ]
        drawn = self.sampler.generate(
            self.processes.own(requests), temperature=recipe.temperature, top_p=1.0, max_tokens=recipe.max_tokens
        )
        answers = self.processes.together(drawn, len(requests))
        self.meter.prefilled += sum(len(prompt) for prompt in prompts)
        self.meter.generated += int(sum(completions.lengths.sum() for completions in answers))
        drafts: list[Rollout] = []
        texts: list[tuple[str, str]] = []
        for plan, ids, completions in zip(plans, prompts, answers, strict=True):
            own = None if plan.context is None else self.policy.encode(self.items[plan.item_id].prompt, plan.prefix)
            source = "hinted" if plan.context is not None else ("prefixed" if plan.prefix else "policy")
            for index in range(len(completions)):
                tokens = completions.tokens[index, : completions.lengths[index]]
                text = self.policy.decode(tokens)
                texts.append((self.items[plan.item_id].answer, text))
                drafts.append(
                    Rollout(
                        item_id=plan.item_id,
                        index=index,
                        prompt_ids=ids,
                        context_ids=own,
                        token_ids=tokens,
                        logprobs=completions.logprobs[index, : len(tokens)],
                        completion=text,
                        finish="stop" if completions.stopped[index] else "length",
                        verdict=_UNJUDGED,
                        reward=0.0,
                        iteration=self.step,
                        round=round_,
                        policy_version=self.version,
                        source=source,
                    )
                )
        verdicts = self.processes.together(self.verifier.verify_many(self.processes.own(texts)), len(texts))
        self.meter.verifier_calls += len(verdicts)
        self.meter.ungradable += sum(verdict.reason in UNGRADABLE for verdict in verdicts)
        judged = [replace(draft, verdict=verdict) for draft, verdict in zip(drafts, verdicts, strict=True)]
        rewarded = [replace(rollout, reward=self.hooks.reward(rollout)) for rollout in judged]
        groups, start = [], 0
        for plan in plans:
            part = tuple(rewarded[start : start + plan.n])
            groups.append(RolloutGroup(plan.item_id, self.items[plan.item_id].prompt, self.step, part))
            start += plan.n
        return groups

    def _choose(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """The groups to train on; everything that was drawn goes to the ledger first."""
        drawn = [rollout for group in groups for rollout in group]
        usable = [without_failures(group) for group in groups]
        injected = self.hooks.groups("inject", usable)
        kept = [group for group in injected if self._has_signal(group) and self.hooks.keep(group)]
        names = {group.item_id for group in kept}
        self.ledger.record(drawn, [rollout.item_id in names for rollout in drawn])
        return self.hooks.groups("augment", kept)

    def _has_signal(self, group: RolloutGroup) -> bool:
        if len(group) == 0:
            return False
        rewards = group.rewards
        return not self.recipe.drop_zero_signal or float(rewards.max() - rewards.min()) > ZERO_SIGNAL

    # --- updates ----------------------------------------------------------------------------------------------

    def _update(self, groups: Sequence[RolloutGroup]) -> Metrics:
        """`updates_per_batch` optimiser steps over the kept groups; none where nothing was kept."""
        recipe = self.recipe
        parts = np.array_split(np.arange(len(groups)), recipe.updates_per_batch)
        batches = [self._batch([groups[i] for i in part]) for part in parts if len(part)]
        self.processes.require_same([batch.digest() for batch in batches], type(self.method).__name__, self.step)
        references = [self._reference_logprobs(batch) for batch in batches]
        before = [self._own_logprobs(batch) if k else None for k, batch in enumerate(batches)]
        rate = recipe.learning_rate * min(1.0, (self.step + 1) / max(1, recipe.warmup_steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        seen: list[Metrics] = []
        for batch, reference, own in zip(batches, references, before, strict=True):
            self.optimiser.zero_grad(set_to_none=True)
            seen.append(self._backward(batch, reference, own))
            if not self.sharded:  # else the backward passes have done it
                self.processes.sum_gradients(self.trained)
            if self.version == 0 and len(seen) == 1:
                check_sampler(self.policy, self.sampler, seen[0], self.options.precision)
            norm = gathered(torch.nn.utils.clip_grad_norm_(self.trained, recipe.gradient_clip))
            if not bool(torch.isfinite(norm)):
                raise MethodError(
                    f"{type(self.method).__name__} has a gradient that is not finite in step {self.step}; look at "
                    "its policy_loss, auxiliary_loss and advantages."
                )
            self.optimiser.step()
            seen[-1]["gradient_norm"] = float(norm)
        if batches:
            self.version += 1
            self.sampler.weights_changed()
        return _averaged(seen, len(batches))

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
            self.policy.device,
            max_tokens=self.recipe.max_tokens,
            version=self.version,
        )

    def _slices(self, batch: TokenBatch) -> list[TokenBatch]:
        """This process's micro-batches of an update; of several processes each has some."""
        size, most = self.processes.size, self.recipe.micro_batch_tokens
        if size > 1:
            most = min(most, -(-batch.input_ids.numel() // (2 * size)))
        parts = list(batch.micro_batches(most))
        if self.sharded:  # a pass is made by all processes or by none
            parts += [parts[-1].without_weight()] * (-len(parts) % size)
        return self.processes.own(parts)

    def _reference_logprobs(self, batch: TokenBatch) -> list[torch.Tensor | None]:
        """Of each of this process's micro-batches, before any update; forward-only passes are paid for."""
        slices = self._slices(batch)
        if self.recipe.kl == 0:
            return [None] * len(slices)
        self.meter.forward += batch.tokens
        return [self._fixed(self.reference, part) for part in slices]

    def _own_logprobs(self, batch: TokenBatch) -> list[torch.Tensor] | None:
        """As `_reference_logprobs`, of the policy itself: what a foreign engine's are compared with (LOOP 2)."""
        if self.sampler.exact:
            return None
        self.meter.forward += batch.tokens
        return [self._fixed(self.policy, part) for part in self._slices(batch)]

    def _fixed(self, policy: Policy, part: TokenBatch) -> torch.Tensor:
        return fixed_logprobs(policy.model, part, self.recipe.temperature, options=self.options)

    def _backward(
        self,
        batch: TokenBatch,
        references: Sequence[torch.Tensor | None],
        before: Sequence[torch.Tensor] | None = None,
    ) -> Metrics:
        """Accumulate the gradient of one update; the weights already hold its one denominator."""
        sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clipped": 0.0, "sampler_kl": 0.0}
        mismatch, unknown = 0.0, 0
        self.meter.trained += batch.tokens
        for k, (part, reference) in enumerate(zip(self._slices(batch), references, strict=True)):
            logprobs, entropy = token_logprobs(
                self.policy.model,
                part,
                self.recipe.temperature,
                with_entropy=self.recipe.entropy > 0,
                options=self.options,
            )
            known = torch.isfinite(part.behaviour)
            behaviour = old = torch.where(known, part.behaviour, logprobs.detach())
            weights = part.weights
            if not self.sampler.exact:
                old, weights = truncated(part, behaviour, logprobs.detach() if before is None else before[k])
            loss_batch = LossBatch(logprobs, old, reference, entropy, part.advantages, part.mask, part.sources)
            losses = self.hooks.loss("policy_loss", loss_batch)
            extra = self.hooks.loss("auxiliary_loss", loss_batch)
            assert losses is not None
            loss = (weights * (losses if extra is None else losses + extra)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                used = part.weights > 0
                sums["loss"] += loss.item()
                gap = (logprobs - behaviour) * (used & part.comparable)
                mismatch = max(mismatch, float(gap.abs().max()))
                sums["sampler_kl"] += float((part.weights * (gap.exp() - gap - 1)).sum())
                unknown += int((used & ~known).sum())
                ratio = loss_batch.ratio
                outside = (ratio < 1 - self.recipe.clip_low) | (ratio > 1 + self.recipe.clip_high)
                sums["clipped"] += float((part.weights * outside).sum())
                if reference is not None:
                    d = (reference - logprobs) * used
                    sums["kl"] += float((part.weights * (d.exp() - d - 1)).sum())
                if entropy is not None:
                    sums["entropy"] += float((part.weights * entropy).sum())
        told = self.processes.everybody({**sums, "sampler_mismatch": mismatch, "unknown_logprobs": float(unknown)})
        metrics: Metrics = {name: sum(one[name] for one in told) for name in told[0]}
        metrics["sampler_mismatch"] = max(one["sampler_mismatch"] for one in told)
        metrics["unknown_logprobs"] = round(sum(one["unknown_logprobs"] for one in told))
        if self.recipe.kl == 0:
            del metrics["kl"]
        if self.recipe.entropy == 0:
            del metrics["entropy"]
        return metrics

    # --- what is written --------------------------------------------------------------------------------------

    def _metrics(self, groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup]) -> Metrics:
        rollouts = [rollout for group in groups for rollout in group]
        count = max(1, len(rollouts))
        return {
            "step": self.step,
            "rollouts": len(rollouts),
            "groups": len(groups),
            "kept_groups": len(kept),
            "reward": sum(rollout.reward for rollout in rollouts) / count,
            "correct": sum(bool(rollout.verdict.correct) for rollout in rollouts) / count,
            "truncated": sum(rollout.finish == "length" for rollout in rollouts) / count,
            "length": sum(len(rollout.token_ids) for rollout in rollouts) / count,
        }

    def save(self, *, finished: bool = False) -> None:
        """Checkpoint at a step's end. A finished run keeps its weights and no optimiser."""
        state = {
            "schema_version": 1,
            "fingerprint": self.fingerprint,
            "finished": finished,
            "step": self.step,
            "version": self.version,
            "seconds": self.seconds,
            "meter": self.meter.state(),
            "services": self.services.state(),
            "ledger": self.ledger.flush(self.step),
        }
        method_state, writes = self.hooks.call("state_dict"), self.processes.first
        kept = {} if finished else checkpoint.optimiser_tensors(self.policy, self.optimiser, keep=writes)
        weights = whole_weights(self.policy, keep=writes)
        if writes:
            checkpoint.save(self.folder / "checkpoint", self.policy, kept, state, method_state, weights)
        self.processes.wait()

    def resume(self) -> bool:
        """Set the method up, back at the last checkpoint if there is one; returns whether the run was finished.

        Raises RunError where the checkpoint is of another configuration, or not the same for all processes.
        """
        place = checkpoint.find(self.folder / "checkpoint")
        state = None if place is None else checkpoint.read_state(place)
        found = self.processes.everybody(None if state is None else (state["step"], state["finished"]))
        if len(set(found)) > 1:
            raise RunError(
                f"not all processes find the same checkpoint in {self.folder}; see that it is on a disk that all "
                "machines share, and run the same command again"
            )
        if place is None or state is None:
            self.ledger.truncate({"steps": 0, "metrics_bytes": 0})
            self.hooks.call("setup")
            return False
        if state["fingerprint"] != self.fingerprint:
            raise RunError(
                f"{self.folder} holds a run of another configuration; name another folder with --out, or remove it"
            )
        self.ledger.truncate(state["ledger"])
        self.step, self.version, self.seconds = state["step"], state["version"], state["seconds"]
        self.meter.restore(state["meter"])
        self.services.restore(state["services"])
        if state["finished"]:
            return True
        restore_weights(self.policy, place)
        self.sampler.weights_changed()
        checkpoint.restore_optimiser(place, self.policy, self.optimiser)
        self.hooks.call("setup")
        self.hooks.call("load_state_dict", state["method"])
        return False


def _averaged(seen: Sequence[Mapping[str, float | int | None]], updates: int) -> Metrics:
    """Means over a step's updates (None where a term is off); how far sampler and trainer are apart in the first."""
    names = ("loss", "kl", "entropy", "clipped", "gradient_norm", "unknown_logprobs")
    means: Metrics = {
        name: float(np.mean([float(entry[name] or 0.0) for entry in seen])) if seen and name in seen[0] else None
        for name in names
    }
    first = {name: seen[0][name] if seen else None for name in ("sampler_mismatch", "sampler_kl")}
    return {**means, **first, "updates": updates}
