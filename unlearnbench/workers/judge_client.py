"""The judge as a training process sees it: a pipe to the process that has the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlearnbench.records import Verdict
from unlearnbench.training.judge import Draw
from unlearnbench.workers.messages import Ask, DrawHeader, Metrics, Resume, Round, Save, StepRecord, VerdictMessage
from unlearnbench.workers.worker import Link


class JudgeClient:
    """Implements `training.judge.Judge` over a worker's link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def verdicts(self, step: int, round: int, draws: Sequence[Draw]) -> list[Verdict]:
        headers = [
            DrawHeader(
                item_id=draw.item_id,
                source=draw.source,
                prompt_tokens=draw.prompt_tokens,
                policy_version=draw.policy_version,
                texts=draw.texts,
            )
            for draw in draws
        ]
        rows = [tokens for draw in draws for tokens in draw.tokens]
        lengths = np.array([len(row) for row in rows], np.int32)
        tokens = np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32)
        stopped = np.array([stopped for draw in draws for stopped in draw.stopped], np.uint8)
        found = self._link.ask(Round(step=step, round=round, draws=headers), lengths, tokens, stopped)
        return [_verdict(message) for message in found]

    def record(self, step: int, rewards: Sequence[float], kept: Sequence[str]) -> None:
        self._link.ask(StepRecord(step=step, rewards=rewards, kept=kept))

    def log(self, metrics: Mapping[str, float | int | None]) -> None:
        self._link.ask(Metrics(metrics=metrics))

    def save(self, steps: int) -> None:
        self._link.ask(Save(steps=steps))

    def resume(self, steps: int) -> None:
        self._link.ask(Resume(steps=steps))

    def ask(self, name: str, item_id: str | None = None, text: str | None = None) -> Any:
        value = self._link.ask(Ask(name=name, item_id=item_id, text=text))
        return _verdict(value) if name == "verdict" else value


def _verdict(message: object) -> Verdict:
    found = VerdictMessage.model_validate(message)
    return Verdict(found.correct, found.answer, found.reason, found.rule)
