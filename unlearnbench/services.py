"""`self.run`: everything a method may ask of its training process, metered, with a note of what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.budget import Meter
from unlearnbench.draws import shuffled, stream
from unlearnbench.errors import MethodError
from unlearnbench.method import PoolItem, Visit
from unlearnbench.policy import Policy
from unlearnbench.records import TRACKS, Item, Recipe, Tokens, Track
from unlearnbench.samplers import Completions, Request, Sampler


class MeteredServices:
    """Implements `method.Services` for one run. Privileged fields are only reached through it (PROTOCOL 3.8)."""

    def __init__(
        self,
        items: Sequence[Item],
        *,
        root: str,
        seed: int,
        recipe: Recipe,
        policy: Policy,
        reference: Policy,
        sampler: Sampler,
        meter: Meter,
    ) -> None:
        self.seed = seed
        self.step = 0
        self.items = tuple(PoolItem(item.item_id, item.prompt) for item in items)
        self.reads: set[Track] = set()
        self.visits: dict[str, list[Visit]] = {}
        self._items = {item.item_id: item for item in items}
        self._pool = {item.item_id: item for item in self.items}
        self._root = root
        self._recipe = recipe
        self._policies = {"current": policy, "reference": reference}
        self._sampler = sampler
        self._meter = meter
        self._asked: Counter[tuple[object, ...]] = Counter()

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
        repeat = self._asked[asked]  # the same request twice in a step gets other draws
        self._asked[asked] += 1
        key = stream(self._root, "generate", *asked, repeat)
        recipe = self._recipe
        drawn = self._sampler.generate(
            [Request(ids, n, key)], temperature=recipe.temperature, top_p=1.0, max_tokens=recipe.max_tokens
        )[0]
        self._meter.prefilled += len(ids)
        self._meter.generated += int(drawn.lengths.sum())
        return drawn

    def logprobs(self, context: str, token_ids: Tokens, policy: str = "current") -> NDArray[np.float32]:
        chosen = self._policies[policy]
        start = self.encode(context)
        ids = torch.from_numpy(np.concatenate([start, token_ids]).astype(np.int64))[None].to(chosen.device)
        self._meter.forward += ids.shape[1]
        with torch.no_grad():
            logits = chosen.model(input_ids=ids, use_cache=False).logits[0, len(start) - 1 : -1].float()
        scores = torch.log_softmax(logits / self._recipe.temperature, dim=-1)
        values: NDArray[np.float32] = scores.gather(-1, ids[0, len(start) :, None])[:, 0].cpu().numpy()
        return values

    def answer(self, item_id: str) -> str:
        self.item(item_id)
        self.reads.add("answer")
        return self._items[item_id].answer

    def solution(self, item_id: str) -> str:
        self.item(item_id)
        self.reads.add("solution")
        return self._items[item_id].solution

    def track(self, declared: Track) -> Track:
        """The highest of what the method declares and what it has read."""
        return max({declared, "verifier", *self.reads}, key=TRACKS.index)

    def state(self) -> dict[str, Any]:
        visits = {key: [[v.step, v.n, v.correct] for v in value] for key, value in self.visits.items()}
        return {"visits": visits, "reads": sorted(self.reads)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.visits = {key: [Visit(*entry) for entry in value] for key, value in state["visits"].items()}
        self.reads = set(state["reads"])
