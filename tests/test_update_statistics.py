"""Clip fraction and reference probability by item: counted from a batch by hand, and read from a run's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.logged_grpo import LoggedGrpo
from experiments.update_statistics import by_group, by_quarter
from unlearnbench.method import LossBatch, Method, settings_of
from unlearnbench.records import Recipe
from unlearnbench.training.ledger import read_metrics

pytestmark = pytest.mark.checkout


def _line(step: int, **items: list[float]) -> str:
    return json.dumps({"step": step, "items": items})


def test_quarters_are_sums_over_steps_and_the_last_of_two_lines_counts(tmp_path: Path) -> None:
    lines = [_line(0, a=[9, 9, 9, 9]), "a warning", _line(0, a=[1, 10, 0.5, 1]), _line(1, b=[1, 1, 1, 1])]
    lines += [_line(step, a=[step, 10, 0.25, 1]) for step in range(1, 8)]
    (tmp_path / "log.txt").write_text("\n".join(lines) + "\n")
    sums = by_quarter([tmp_path], ["a"])
    assert sums[:, 0].tolist() == [2, 5, 9, 13] and sums[:, 1].tolist() == [20] * 4
    assert sums[0, 2:].tolist() == [0.75, 2]
    told = by_group([tmp_path], {"few": ["a"], "none": ["c"]})
    assert "| few | clip fraction | 10.00 % | 25.00 % | 45.00 % | 65.00 % | 80 |" in told
    assert "| few | reference probability | 37.5 % | 25.0 % | 25.0 % | 25.0 % | 8 |" in told
    assert "| none | clip fraction | - | - | - | - | 0 |" in told
    assert by_group([tmp_path / "absent"], {"few": ["a"]}) == ""


def test_a_batch_is_counted_by_item_and_its_loss_is_grpos(capsys: pytest.CaptureFixture[str]) -> None:
    method = LoggedGrpo(settings_of(LoggedGrpo, Recipe(kl=0.5, clip_low=0.2, clip_high=0.2), {}))
    method.setup()
    logprobs = torch.log(torch.tensor([[0.5, 0.9], [0.5, 0.5], [0.1, 0.2]])).requires_grad_()
    behaviour = torch.log(torch.tensor([[0.5, 0.3], [0.5, 0.5], [0.1, 0.4]]))  # ratios 1 and 3; 1 (masked); 1 and 1/2
    reference = torch.log(torch.tensor([[0.25, 0.81], [0.5, 0.1], [0.3, 0.3]]))
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    advantages = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
    batch = LossBatch(logprobs, behaviour, reference, None, advantages, mask, ("policy",) * 3, ("a", "a", "b"))
    torch.testing.assert_close(method.policy_loss(batch), Method(method.settings).policy_loss(batch))
    method.on_step_end(3, {})
    row = json.loads(capsys.readouterr().err)
    assert row["step"] == 3
    assert row["items"]["a"] == pytest.approx([1, 3, (0.25 * 0.81) ** 0.5 + 0.5, 2])
    assert row["items"]["b"] == pytest.approx([1, 2, 0, 0])  # no rollout of it is correct


def test_a_logged_run_is_a_run_of_grpo(training: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind in (("plain", Method), ("logged", LoggedGrpo)):
        training(kind, tmp_path / name, steps=2).run()
    plain, logged = (
        read_metrics(next((tmp_path / name).rglob("metrics.jsonl")).parent) for name in ("plain", "logged")
    )
    assert plain == logged and len(plain) == 2
    assert [json.loads(line)["step"] for line in capsys.readouterr().err.splitlines() if line.startswith("{")] == [0, 1]
