"""Calls a method's hooks: checks what comes back, and turns what goes wrong into a sentence with the user's line."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.errors import MethodError, UnlearnBenchError, out_of_memory, peer_lost
from unlearnbench.method import LossBatch, Method, Plan, PoolItem
from unlearnbench.records import Rollout, RolloutGroup


class Hooks:
    """The hooks of one method, each called through `call`."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.name = type(method).__name__

    def call(self, hook: str, *arguments: Any) -> Any:
        """Raises MethodError, naming hook, file and line, for whatever the method's own code raises."""
        try:
            return getattr(self.method, hook)(*arguments)
        except (UnlearnBenchError, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as problem:
            if out_of_memory(problem) or peer_lost(problem):
                raise
            raise MethodError(
                f"{self.name}.{hook} raised {type(problem).__name__}: {problem} ({_where(problem)}); mend it and run "
                "the same command again."
            ) from problem

    def selected(self, step: int, pool: Mapping[str, PoolItem]) -> list[str]:
        ids = self.call("select_items", step)
        if not isinstance(ids, Iterable):
            self._refuse("select_items", repr(ids), "return ids of self.run.items")
        ids = list(ids)
        for item_id in ids:
            if item_id not in pool:
                self._refuse(
                    "select_items", f"{item_id!r}, which is no item of the pool", "return ids of self.run.items"
                )
        return ids

    def plans(
        self,
        step: int,
        round_: int,
        selected: Sequence[str],
        groups: Sequence[RolloutGroup],
        pool: Mapping[str, PoolItem],
    ) -> list[Plan]:
        plans = self.call("plan_rollouts", step, round_, selected, groups)
        if not isinstance(plans, Iterable):
            self._refuse("plan_rollouts", repr(plans), "return a list of Plan(item_id, n), or [] to end the step")
        plans = list(plans)
        for plan in plans:
            good = isinstance(plan, Plan) and isinstance(plan.n, int | np.integer)
            if not good or plan.item_id not in pool or plan.n < 1:
                self._refuse("plan_rollouts", repr(plan), "return Plan(item_id, n) with an id of the pool and n >= 1")
        return plans

    def reward(self, rollout: Rollout) -> float:
        value = self.call("reward", rollout)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            self._refuse("reward", repr(value), "return one finite number")
        return number

    def keep(self, group: RolloutGroup) -> bool:
        value = self.call("keep", group)
        if not isinstance(value, bool | np.bool_):
            self._refuse("keep", repr(value), "return True or False")
        return bool(value)

    def groups(self, hook: str, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        value = self.call(hook, groups)
        if not isinstance(value, Sequence) or not all(isinstance(group, RolloutGroup) for group in value):
            self._refuse(hook, type(value).__name__, "return a list of RolloutGroup")
        for rollout in (rollout for group in value for rollout in group):
            for name in ("mask", "logprobs"):
                row = getattr(rollout, name)
                if row is not None and len(row) != len(rollout.token_ids):
                    got = f"a rollout with {len(row)} values in {name} for {len(rollout.token_ids)} tokens"
                    self._refuse(hook, got, "give one value a token")
        return list(value)

    def advantages(self, group: RolloutGroup) -> list[NDArray[np.float64]]:
        """Advantages of each rollout's tokens; one number a rollout is spread over its tokens."""
        value = self.call("advantages", group)
        if isinstance(value, list | tuple):
            value = [row.detach().cpu().numpy() if isinstance(row, Tensor) else row for row in value]
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        lengths = [int(length) for length in group.lengths]
        remedy = "return one finite number a rollout, (n,), or one a token, (n, tokens)"
        try:
            rows = [np.asarray(row, dtype=np.float64) for row in value]
        except (TypeError, ValueError):
            self._refuse("advantages", repr(value)[:80], remedy)
        if len(rows) != len(group):
            self._refuse("advantages", f"{len(rows)} rows for {len(group)} rollouts", remedy)
        spread: list[NDArray[np.float64]] = []
        for row, length in zip(rows, lengths, strict=True):
            if row.ndim > 1 or (row.ndim == 1 and len(row) < length):
                self._refuse("advantages", f"a row of shape {row.shape} for {length} tokens", remedy)
            full = np.full(length, row) if row.ndim == 0 else row[:length]
            if not np.isfinite(full).all():
                self._refuse("advantages", "NaN or infinity", remedy)
            spread.append(full)
        return spread

    def loss(self, hook: str, batch: LossBatch) -> Tensor | None:
        value = self.call(hook, batch)
        if value is None and hook == "auxiliary_loss":
            return None
        shape = tuple(batch.logprobs.shape)
        remedy = f"return one loss a token, a tensor of shape {shape}"
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            self._refuse(hook, f"{got}", remedy)
        if not bool(torch.isfinite(value[batch.mask > 0]).all()):
            self._refuse(hook, "NaN or infinity", remedy)
        if hook == "policy_loss" and not value.requires_grad:
            self._refuse(hook, "a loss without a gradient", "compute it from batch.logprobs or batch.ratio")
        # What stands in the padding must not reach the sum, not even as 0 * NaN.
        cleaned: Tensor = value.masked_fill(batch.mask == 0, 0.0)
        return cleaned

    def _refuse(self, hook: str, got: str, remedy: str) -> Any:
        code = getattr(getattr(type(self.method), hook), "__code__", None)
        place = f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
        raise MethodError(f"{self.name}.{hook} returned {got}; {remedy}{place}.")


def _where(problem: BaseException) -> str:
    """File and line of the innermost frame of the user's own code, else of the innermost frame."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = str(Path(__file__).parents[1])
    own = [f for f in frames if not f.filename.startswith(ours) and "site-packages" not in f.filename] or list(frames)
    return f"{own[-1].filename}, line {own[-1].lineno}"
