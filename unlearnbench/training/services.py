"""`self.run`: everything a method may ask for inside its training process, metered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.errors import MethodError
from unlearnbench.method import PoolItem, Services, Visit
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.policies.samplers.sampler import Completions, Request
from unlearnbench.records import GroupName, Recipe, Rollout, Tokens, Verdict
from unlearnbench.rng import shuffled, stream
from unlearnbench.training.build import Models
from unlearnbench.training.judge import Judge
from unlearnbench.training.meter import Meter
from unlearnbench.training.run_spec import RunSpec
from unlearnbench.verifier import UNGRADABLE


class MeteredServices:
    """Implements `method.Services` for one run. What is privileged is asked of the judge, which notes it."""

    def __init__(
        self,
        pool: dict[str, PoolItem],
        judge: Judge,
        models: Models,
        spec: RunSpec,
        recipe: Recipe,
        meter: Meter,
    ) -> None:
        self.seed = spec.seed
        self.step = 0
        self.items = tuple(pool.values())
        self.visits: dict[str, list[Visit]] = {}
        self._pool = pool
        self._judge = judge
        self._asked_before: dict[tuple[str, str | None], Any] = {}
        self._root = spec.root
        self._recipe = recipe
        self._policies = {"current": models.policy, "reference": models.reference}
        self._sampler = models.sampler
        self._meter = meter
        self._repeats: Counter[tuple[object, ...]] = Counter()

    def item(self, item_id: str) -> PoolItem:
        if item_id not in self._pool:
            raise MethodError(f"The method asked for the item {item_id!r}, which is not in the pool of self.run.items.")
        return self._pool[item_id]

    def shuffled(self, values: Sequence[Any], *names: object) -> list[Any]:
        return shuffled(values, self._root, "method", *names)

    def random(self, *names: object) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=stream(self._root, "method", self.step, *names)))

    def history(self, item_id: str) -> Sequence[Visit]:
        return tuple(self.visits.get(item_id, ()))

    def encode(self, prompt: str) -> Tokens:
        return self._policies["current"].encode(prompt)

    def generate(self, context: str, n: int, *names: object) -> Completions:
        ids = self.encode(context)
        asked = (self.step, context, n, *names)
        repeat = self._repeats[asked]  # the same request twice in a step gets other draws
        self._repeats[asked] += 1
        key = stream(self._root, "generate", *asked, repeat)
        recipe = self._recipe
        drawn = self._sampler.generate(
            [Request(ids, n, key)], temperature=recipe.temperature, top_p=1.0, max_tokens=recipe.max_tokens
        )[0]
        self._meter.prefilled += len(ids)
        self._meter.generated += int(drawn.lengths.sum())
        return drawn

    def logprobs(
        self, context: str, completions: Sequence[Tokens], policy: str = "current"
    ) -> list[NDArray[np.float32]]:
        chosen = self._policy(policy)
        start = self.encode(context)
        if not completions:
            return []
        lengths = [len(tokens) for tokens in completions]
        rows = np.zeros((len(lengths), len(start) + max(lengths)), dtype=np.int64)
        for row, tokens in zip(rows, completions, strict=True):
            row[: len(start) + len(tokens)] = np.concatenate([start, tokens])
        ids = torch.from_numpy(rows).to(chosen.device)
        # The cost counts in forward tokens of the policy that is trained (PROTOCOL 3.10: N of the policy used).
        share = chosen.parameters / self._meter.parameters
        self._meter.forward += round(share * (len(start) * len(lengths) + sum(lengths)))
        with torch.no_grad():
            logits = chosen.model(input_ids=ids, use_cache=False).logits[:, len(start) - 1 : -1].float()
            scores = torch.log_softmax(logits / self._recipe.temperature, dim=-1)
            values = scores.gather(-1, ids[:, len(start) :, None])[..., 0].cpu().numpy()
        return [row[:length] for row, length in zip(values, lengths, strict=True)]

    def written(self, item_id: str, text: str, source: str, reward: float = 1.0) -> Rollout:
        tokens = self._policies["current"].encode_completion(text)
        return Rollout(
            item_id=item_id,
            index=0,
            prompt_ids=self.encode(self.item(item_id).prompt),
            token_ids=tokens,
            logprobs=np.full(len(tokens), np.nan, dtype=np.float32),
            completion=text,
            finish="stop",
            verdict=Verdict(None, None, "no_answer"),
            reward=reward,
            iteration=self.step,
            source=source,
        )

    def verdict(self, item_id: str, text: str) -> Verdict:
        self.item(item_id)
        verdict: Verdict = self._judge.ask("verdict", item_id, text)
        self._meter.verifier_calls += 1
        self._meter.ungradable += verdict.reason in UNGRADABLE
        return verdict

    def answer(self, item_id: str) -> str:
        self.item(item_id)
        return str(self._given("answer", item_id))

    def solution(self, item_id: str) -> str:
        self.item(item_id)
        return str(self._given("solution", item_id))

    def group(self, item_id: str) -> GroupName | None:
        self.item(item_id)
        groups: Mapping[str, GroupName | None] = self._given("labels")
        return groups.get(item_id)

    def similar(self, item_id: str) -> Sequence[PoolItem]:
        return self._related("similar", item_id)

    def sub_problems(self, item_id: str) -> Sequence[PoolItem]:
        return self._related("sub_problems", item_id)

    def _given(self, name: str, item_id: str | None = None) -> Any:
        """What the judge answers, asked once."""
        if (name, item_id) not in self._asked_before:
            self._asked_before[name, item_id] = self._judge.ask(name, item_id)
        return self._asked_before[name, item_id]

    def _policy(self, name: str) -> Policy:
        if name == "teacher" and name not in self._policies:
            ours = self._policies["current"]
            self._policies[name] = load_policy(self._given(name), prompt_format=ours.prompt_format, device=ours.device)
        if name not in self._policies:
            raise MethodError(f"There is no policy {name!r}; ask for current, reference or teacher.")
        return self._policies[name]

    def _related(self, kind: str, item_id: str) -> Sequence[PoolItem]:
        """The problems of one kind that belong to an item; from now on they are in the pool."""
        self.item(item_id)
        found = [PoolItem(problem_id, prompt) for problem_id, prompt in self._given(kind, item_id)]
        for problem in found:
            self._pool.setdefault(problem.item_id, problem)
        return tuple(self._pool[problem.item_id] for problem in found)

    if not TYPE_CHECKING:  # for mypy, what is not there is not there

        def __getattr__(self, name: str) -> Any:
            offered = ", ".join(name for name in vars(Services) if not name.startswith("_"))
            raise AttributeError(f"self.run has no {name!r}; it has {offered}")

    def state(self) -> dict[str, Any]:
        return {"visits": {key: [[v.step, v.n, v.correct] for v in value] for key, value in self.visits.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.visits = {key: [Visit(*entry) for entry in value] for key, value in state["visits"].items()}
