"""One round of rollouts: one call of the sampler, one message to the judge, then the method's rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from unlearnbench.method import Plan, PoolItem
from unlearnbench.policies.samplers.sampler import Completions, Request
from unlearnbench.records import Recipe, Rollout, RolloutGroup, Tokens, Verdict
from unlearnbench.rng import stream
from unlearnbench.training.build import Models
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.judge import Draw, Judge
from unlearnbench.training.meter import Meter
from unlearnbench.training.rollout_groups import repeats
from unlearnbench.verifier import UNGRADABLE


class Rollouts:
    """Draws the rollouts that a method plans. Every process holds all of them; each samples its own share."""

    def __init__(
        self,
        hooks: Hooks,
        pool: Mapping[str, PoolItem],
        models: Models,
        judge: Judge,
        root: str,
        meter: Meter,
        processes: Processes,
    ) -> None:
        self.hooks, self.pool, self.models, self.judge = hooks, pool, models, judge
        self.recipe: Recipe = hooks.method.settings
        self.root, self.meter, self.processes = root, meter, processes

    def draw(self, plans: Sequence[Plan], step: int, round_: int, version: int) -> list[RolloutGroup]:
        """One group a plan, verified and rewarded, drawn by the policy's `version`."""
        policy = self.models.policy
        contexts = [self.pool[plan.item_id].prompt if plan.context is None else plan.context for plan in plans]
        prompts = [policy.encode(text, plan.prefix) for text, plan in zip(contexts, plans, strict=True)]
        completions = self._generate(plans, prompts, step, round_)
        draws = [
            self._draw(plan, len(prompt), drawn, version)
            for plan, prompt, drawn in zip(plans, prompts, completions, strict=True)
        ]
        verdicts = iter(self._verdicts(step, round_, draws))
        groups = []
        for plan, prompt, drawn, one in zip(plans, prompts, completions, draws, strict=True):
            own = None if plan.context is None else policy.encode(self.pool[plan.item_id].prompt, plan.prefix)
            rollouts = [
                Rollout(
                    item_id=plan.item_id,
                    index=index,
                    prompt_ids=prompt,
                    context_ids=own,
                    token_ids=tokens,
                    logprobs=drawn.logprobs[index, : len(tokens)],
                    completion=one.texts[index],
                    finish="stop" if drawn.stopped[index] else "length",
                    verdict=next(verdicts),
                    reward=0.0,
                    iteration=step,
                    round=round_,
                    policy_version=version,
                    source=one.source,
                )
                for index, tokens in enumerate(one.tokens)
            ]
            rewarded = tuple(replace(rollout, reward=self.hooks.reward(rollout)) for rollout in rollouts)
            groups.append(RolloutGroup(plan.item_id, self.pool[plan.item_id].prompt, step, rewarded))
        return groups

    def _generate(self, plans: Sequence[Plan], prompts: Sequence[Tokens], step: int, round_: int) -> list[Completions]:
        requests = [
            Request(prompt, plan.n, stream(self.root, "train", step, round_, plan.item_id, repeat))
            for prompt, plan, repeat in zip(prompts, plans, repeats(plans), strict=True)
        ]
        own = self.models.sampler.generate(
            self.processes.own(requests),
            temperature=self.recipe.temperature,
            top_p=1.0,
            max_tokens=self.recipe.max_tokens,
        )
        drawn = self.processes.together(own, len(requests))
        self.meter.prefilled += sum(len(prompt) for prompt in prompts)
        self.meter.generated += int(sum(completions.lengths.sum() for completions in drawn))
        return drawn

    def _draw(self, plan: Plan, prompt_tokens: int, drawn: Completions, version: int) -> Draw:
        tokens = [drawn.tokens[index, :length] for index, length in enumerate(drawn.lengths)]
        return Draw(
            item_id=plan.item_id,
            source="hinted" if plan.context is not None else ("prefixed" if plan.prefix else "policy"),
            prompt_tokens=prompt_tokens,
            policy_version=version,
            tokens=tokens,
            texts=[self.models.policy.decode(row) for row in tokens],
            stopped=[bool(stopped) for stopped in drawn.stopped],
        )

    def _verdicts(self, step: int, round_: int, draws: Sequence[Draw]) -> list[Verdict]:
        """Of all rollouts. The first process speaks for all of them, so the judge sees one order of rounds."""
        verdicts = self.judge.verdicts(step, round_, draws) if self.processes.first else []
        verdicts = self.processes.from_first(verdicts)
        self.meter.verifier_calls += len(verdicts)
        self.meter.ungradable += sum(verdict.reason in UNGRADABLE for verdict in verdicts)
        return verdicts
