"""Calls a method's hooks: checks what comes back, and turns what goes wrong into a sentence with the user's line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.errors import (
    MethodError,
    RunError,
    UnlearnBenchError,
    first_line,
    out_of_memory,
    peer_lost,
    raised_at,
)
from unlearnbench.method import LossBatch, Method, Plan, PoolItem, overridden
from unlearnbench.records import Rollout, RolloutGroup


class Hooks:
    """The hooks of one method, each called through `call`."""

    def __init__(self, method: Method) -> None:
        """Raises MethodError for a hook that takes other arguments than the loop gives."""
        self.method = method
        self.name = type(method).__name__
        for hook in overridden(type(method)):
            self._require_signature(hook)
        self._files = _files(type(method))

    def call(self, hook: str, *arguments: Any) -> Any:
        """Raises MethodError, naming hook, file and line, for whatever the method's own code raises."""
        return self._guarded(hook, getattr(self.method, hook), *arguments)

    def _listed(self, hook: str, value: Any, remedy: str) -> list[Any]:
        """What a hook returned as a list; a generator runs the method's code only now."""
        if not isinstance(value, Iterable):
            self._refuse(hook, repr(value), remedy)
        found: list[Any] = self._guarded(hook, list, value)
        return found

    def _guarded(self, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (RunError, KeyboardInterrupt):  # such as a full disk, which is no fault of the method
            raise
        except UnlearnBenchError as problem:  # of a service, or of a function of the package that the method called
            place = raised_at(problem, self._files)
            if place is None or place in str(problem):
                raise
            raise type(problem)(f"{str(problem).rstrip('.')} ({place}).") from problem
        except (Exception, SystemExit) as problem:
            if out_of_memory(problem) or peer_lost(problem):
                raise
            place = raised_at(problem, self._files) or self._defined(hook)
            raise MethodError(
                f"{self.name}.{hook} raised {type(problem).__name__}: {first_line(problem)} ({place}); fix this and "
                "run the same command again."
            ) from problem

    def selected(self, step: int, pool: Mapping[str, PoolItem]) -> list[str]:
        ids = self._listed("select_items", self.call("select_items", step), "return ids of self.run.items")
        for item_id in ids:
            if item_id not in pool:
                self._refuse(
                    "select_items", f"{item_id!r}, which is not an item of the pool", "return ids of self.run.items"
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
        planned = self.call("plan_rollouts", step, round_, selected, groups)
        plans = self._listed("plan_rollouts", planned, "return a list of Plan(item_id, n), or [] to end the step")
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
                    self._refuse(hook, got, "give one value per token")
            if rollout.teacher_ids is not None and not len(rollout.teacher_ids):
                self._refuse(hook, "a rollout with empty teacher_ids", "set them to self.run.encode(context), or None")
        return list(value)

    def advantages(self, group: RolloutGroup) -> list[NDArray[np.float64]]:
        """Advantages of each rollout's tokens; one number per rollout is spread over its tokens."""
        value = self.call("advantages", group)
        if isinstance(value, list | tuple):
            value = [_array(row) for row in value]
        value = _array(value)
        lengths = [int(length) for length in group.lengths]
        remedy = "return one finite number per rollout, (n,), or one per token, (n, tokens)"
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
        remedy = f"return one loss per token, a tensor of shape {shape}"
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            self._refuse(hook, f"{got}", remedy)
        if not bool(torch.isfinite(value[batch.mask > 0]).all()):
            self._refuse(hook, "NaN or infinity", remedy)
        if hook == "policy_loss" and not value.requires_grad:
            self._refuse(hook, "a loss without a gradient", "compute it from batch.logprobs or batch.ratio")
        # Values in the padding must not reach the sum, not even as 0 * NaN.
        cleaned: Tensor = value.masked_fill(batch.mask == 0, 0.0)
        return cleaned

    def _require_signature(self, hook: str) -> None:
        """Raise MethodError where an overridden hook cannot be called as the loop calls it."""
        function = getattr(self.method, hook)
        wanted = list(inspect.signature(getattr(Method, hook)).parameters.values())[1:]
        try:
            takes = inspect.signature(function)
        except (TypeError, ValueError):  # a callable without a readable signature
            return
        try:
            takes.bind(*wanted)
            fits = hook != "reward" or "completions" not in takes.parameters  # what TRL gives its reward functions
        except TypeError:
            fits = False
        if not fits:
            names = ", ".join(["self", *(parameter.name for parameter in wanted)])
            one = " is called with one rollout at a time and returns one number, and" if hook == "reward" else ""
            raise MethodError(
                f"{self.name}.{hook}{takes} ({self._defined(hook)}):{one} is to be written as def {hook}({names})."
            )

    def _refuse(self, hook: str, got: str, remedy: str) -> NoReturn:
        raise MethodError(f"{self.name}.{hook} returned {got}; {remedy} ({self._defined(hook)}).")

    def _defined(self, hook: str) -> str:
        """Where a hook's code begins; of one that no code of Python can be seen of, its class."""
        code = getattr(getattr(type(self.method), hook), "__code__", None)
        return f"{code.co_filename}, line {code.co_firstlineno}" if code else self.name


def _array(value: Any) -> Any:
    """A tensor as an array, in float32 where numpy does not know its type (bfloat16); anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _files(cls: type[Any]) -> frozenset[str]:
    """The files that a method's class, and those that it is made from, are written in."""
    own = [value for one in cls.__mro__ if one not in Method.__mro__ for value in vars(one).values()]
    return frozenset(value.__code__.co_filename for value in own if hasattr(value, "__code__"))
