"""The real judge in this process, asked by the real client: what `eval` does over a pipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MethodError
from unlearnbench.harness.judge import Judge, Terms
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier
from unlearnbench.workers.judge_client import JudgeClient
from unlearnbench.workers.messages import MESSAGES, Event, Request


class LocalLink:
    """A worker's link whose messages go to a judge at once, through JSON as on a pipe."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def report(self, event: Event) -> None: ...

    def ask(self, request: Request, *arrays: NDArray[np.generic]) -> Any:
        message: Any = MESSAGES.validate_python(json.loads(request.model_dump_json()))
        reply = self.judge.answer(message, tuple(array.tobytes() for array in arrays))
        if reply.error is not None:
            raise MethodError(reply.error)
        return json.loads(reply.model_dump_json())["value"]


def judge_of(split: Split, folder: Path, *, max_tokens: int | None = None, most_flops: float | None = None) -> Judge:
    """The judge of seed 1 of a method on a split."""
    base = split.policy_path
    assert isinstance(base, Path)
    limit = max_tokens or split.config.recipe.max_tokens
    terms = Terms("method", "0" * 64, 1, "test", limit, base, most_flops)
    return Judge(split, folder, Verifier(rule=split.config.protocol.verifier_rule), terms)


def local_judge(split: Split, folder: Path, *, max_tokens: int | None = None) -> JudgeClient:
    """The judge as a training process sees it."""
    return JudgeClient(LocalLink(judge_of(split, folder, max_tokens=max_tokens)))  # type: ignore[arg-type]
