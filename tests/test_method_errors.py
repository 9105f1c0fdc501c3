"""A method that breaks the contract: one sentence that names its file and line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearnbench import Method
from unlearnbench.errors import MethodError, RunError, UnlearnBenchError
from unlearnbench.method import Plan, overridden, strays
from unlearnbench.methods import load, locate


def _plan(method: Any, n: Any) -> Any:
    return Plan(method.run.items[0].item_id, n)


BAD: dict[str, tuple[str, Any, str]] = {
    "raises": ("advantages", lambda self, rollouts: 1 / 0, r"advantages raised ZeroDivisionError.*line \d+"),
    "unknown": (
        "keep",
        lambda self, group: self.run.answers,
        "self.run has no .answers.; it has seed, step",
    ),
    "shape": ("advantages", lambda self, rollouts: [0.0], "1 rows for 8 rollouts"),
    "nan": ("advantages", lambda self, rollouts: [float("nan")] * len(rollouts), "NaN or infinity"),
    "short": ("advantages", lambda self, rollouts: np.zeros((len(rollouts), 1)), "a row of shape"),
    "none": ("advantages", lambda self, rollouts: None, "returned None"),
    "loss shape": ("policy_loss", lambda self, batch: batch.logprobs.sum(), "one loss per token"),
    "loss nan": ("policy_loss", lambda self, batch: batch.logprobs * float("nan"), "NaN or infinity"),
    "reward": ("reward", lambda self, rollout: "good", "one finite number"),
    "keep": ("keep", lambda self, group: "yes", "True or False"),
    "items": ("select_items", lambda self, step: ["nothing"], "not an item of the pool"),
    "plans": ("plan_rollouts", lambda self, *arguments: [3], r"return Plan\(item_id, n\)"),
    "inject": ("inject", lambda self, groups: None, "list of RolloutGroup"),
    "idle": ("select_items", lambda self, step: [], "spent nothing in step 0"),
    "no plans": ("plan_rollouts", lambda self, *arguments: None, r"plan_rollouts returned None"),
    "no items": ("select_items", lambda self, step: None, "select_items returned None"),
    "float plan": ("plan_rollouts", lambda self, *arguments: [_plan(self, 4.0)], r"return Plan\(item_id, n\)"),
    "exit": ("keep", lambda self, group: sys.exit(0), "keep raised SystemExit"),
    "no gradient": ("policy_loss", lambda self, batch: batch.advantages, "a loss without a gradient"),
    "keys": ("state_dict", lambda self: {"d": {0: 1.5}}, "has the key 0 at /d"),
    "state": ("state_dict", lambda self: {"x": object()}, "holds a object at /x"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_method_that_breaks_the_contract_is_told_so_in_one_sentence(name: str, training: Any, tmp_path: Path) -> None:
    hook, body, message = BAD[name]
    cls = type("Broken", (Method,), {hook: body})
    run = training(cls, tmp_path, steps=3)
    with pytest.raises((MethodError, RunError), match=message) as caught:
        run.run()
    assert "\n" not in str(caught.value)


BLAMED = """
import json
from unlearnbench import Method

class Mine(Method):
    def advantages(self, rollouts):
        return {body}
"""
BODIES = {
    "its own line": ("1 / 0", 7),
    "a library's fault, at its call": ("json.loads('{')", 7),
    "numpy's fault, at its call": ("__import__('numpy').zeros((2, 2)) @ __import__('numpy').zeros(3)", 7),
    "a service's refusal": ("self.run.item('nobody')", 7),
    "a name that is not there": ("self.run.answers", 7),
    "a function of this package, at its call": ("__import__('unlearnbench').load_split('nowhere')", 7),
    "what it returned": ("None", 6),
}


@pytest.mark.parametrize("case", BODIES)
def test_the_line_that_is_named_is_the_users_own(case: str, training: Any, tmp_path: Path) -> None:
    body, line = BODIES[case]
    file = tmp_path / "mine.py"
    file.write_text(BLAMED.format(body=body))
    run = training(load(locate(str(file))), tmp_path / "run", steps=1)
    with pytest.raises(UnlearnBenchError) as caught:
        run.run()
    assert f"({file}, line {line})" in str(caught.value)
    assert "hooks.py" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def select_items(self, step):\n        yield self.run.items[0].item_id\n        yield 1 / 0", 5),
        ("def plan_rollouts(self, *_):\n        yield 1 / 0", 4),
    ],
)
def test_a_generator_is_blamed_on_its_file(source: str, line: int, training: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"from unlearnbench import Method\nclass Mine(Method):\n    {source}\n")
    run = training(load(locate(str(file))), tmp_path / "run", steps=1)
    with pytest.raises(MethodError, match=rf"raised \w+: .*\({file}, line {line}\); fix this"):
        run.run()


def test_a_hook_with_other_arguments_is_refused_by_its_file_and_line(training: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from unlearnbench import Method\nclass Mine(Method):\n    def advantages(self): return 0\n")
    with pytest.raises(MethodError, match=rf"advantages\(\) \({file}, line 3\): is to be written as def advantages"):
        training(load(locate(str(file))), tmp_path / "run", steps=1)


def test_a_file_that_does_not_run_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for source, line in (("x = 1\n1 / 0\n", 2), ("x = 1\n\ndef f(:\n", 3)):
        file.write_text(source)
        with pytest.raises(MethodError, match=rf"{file} does not run \(\w+: .*, {file}, line {line}\); fix this"):
            load(locate(str(file)))


def test_overridden_hooks_and_strays_are_named() -> None:
    class Own(Method):
        def advantages(self, rollouts: Any) -> Any:
            return rollouts.rewards

        def keep_group(self, rollouts: Any) -> bool:
            return True

    assert overridden(Own) == ["advantages"]
    assert strays(Own) == {"keep_group": "keep"}
