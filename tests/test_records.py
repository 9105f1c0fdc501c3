"""Records that cross file boundaries: the schema that ships, what they refuse, and what they keep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import unlearnbench
from unlearnbench.records import GroupScore, Item, Recipe, Result, SplitConfig


def test_the_shipped_schema_of_result_json_is_the_models() -> None:
    shipped = Path(unlearnbench.__file__).with_name("result.schema.json")
    assert json.loads(shipped.read_text()) == Result.model_json_schema()


def test_typos_and_impossible_values_are_refused() -> None:
    with pytest.raises(ValidationError, match="lerning_rate"):
        Recipe.model_validate({"lerning_rate": 1e-4})
    with pytest.raises(ValidationError):
        Recipe(learning_rate=float("nan"))
    with pytest.raises(ValidationError):
        Item(item_id="", prompt="x", answer="1", family="f")
    for name in ("../evil", "", ".hidden", "a/b"):
        with pytest.raises(ValidationError):
            SplitConfig(name=name, base_policy={"path": "policy"})  # type: ignore[arg-type]


def test_records_cannot_be_changed() -> None:
    item = Item(item_id="a", prompt="x", answer="1", family="f")
    with pytest.raises(ValidationError):
        item.answer = "2"  # type: ignore[misc]


def test_an_interval_is_in_order_and_nothing_is_infinite() -> None:
    good = dict.fromkeys(GroupScore.model_fields) | {"items": 1, "with_probe": 0, "pass_at_k": {}}
    GroupScore.model_validate(good | {"conversion_interval": (0.1, 0.2)})
    for interval in ((0.2, 0.1), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValidationError):
            GroupScore.model_validate(good | {"conversion_interval": interval})


@pytest.mark.checkout
def test_the_example_method_weighs_rare_successes_as_its_docstring_says() -> None:
    from unlearnbench.method import Visit
    from unlearnbench.methods import load, locate
    from unlearnbench.records import Rollout, RolloutGroup, Verdict

    path = Path(__file__).parents[1] / "examples" / "my_algo.py"
    assert len(path.read_text().splitlines()) <= 60
    cls = load(locate(str(path)))
    none = np.zeros(0, dtype=np.int32)

    def rollout(index: int, reward: float) -> Rollout:
        verdict = Verdict(reward > 0, "1", "match")
        return Rollout("a", index, none, none, none.astype(np.float32), "", "stop", verdict, reward)

    group = RolloutGroup("a", "p", 0, tuple(rollout(k, float(k == 0)) for k in range(4)))
    method = cls(cls.Settings(bonus=1.0, visits=2))

    class Run:
        def history(self, item_id: str) -> list[Visit]:
            return [Visit(0, 8, 8), Visit(1, 8, 2), Visit(2, 8, 0)]  # the last two count: 2 of 16

    method.run = Run()
    rewards = np.array([1.0, 0, 0, 0])
    plain = (rewards - 0.25) / (rewards.std(ddof=1) + 1e-6)
    expected = plain * np.array([1 + (1 - 2 / 16), 1, 1, 1])
    assert np.allclose(method.advantages(group), expected)
