"""Bundles whose costs, ledgers or visits were altered: what the ledgers of a run must agree with."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_bundle import (
    STEPS,
    Members,
    Refused,
    altered,
    in_json,
    in_table,
    parquet,
)

from unlearnbench.errors import DataError
from unlearnbench.leaderboard.verification import rejudge, verify_bundle
from unlearnbench.splits import Split

# --- what training drew and spent -----------------------------------------------------------------------------


def each_cost(members: Members, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every seed's cost, and what result.json says of it."""
    costs = []
    for seed in (1, 2, 3):
        in_json(members, f"seeds/{seed}/cost.json", change)
        costs.append(json.loads(members[f"seeds/{seed}/cost.json"]))

    def sums(result: dict[str, Any]) -> None:
        result["budget"]["used"] = [cost["flops"] for cost in costs]
        for name in ("generated_tokens", "trained_tokens", "forward_tokens", "flops"):
            result["cost"][name] = sum(cost[name] for cost in costs)

    in_json(members, "result.json", sums)


def quarter(cost: dict[str, Any]) -> None:
    for name in ("generated_tokens", "trained_tokens", "forward_tokens", "flops"):
        cost[name] //= 4


def test_a_consistent_quarter_of_the_cost(refused: Refused) -> None:
    def change(members: Members) -> None:
        each_cost(members, quarter)
        in_table(
            members,
            "ledger.parquet",
            lambda rows: [row | {"tokens": row["tokens"] // 4, "flops": row["flops"] // 4} for row in rows],
        )

    assert "the loop ends with the step that reaches the limit" in refused(change)["training"]


def test_the_first_steps_of_a_run_alone(refused: Refused) -> None:
    """Ledger, visits and costs of a run that would have ended early."""

    def change(members: Members) -> None:
        def first(cost: dict[str, Any]) -> None:
            cost["verifier_calls"] //= STEPS
            for name in ("generated_tokens", "trained_tokens", "forward_tokens", "flops"):
                cost[name] //= STEPS

        each_cost(members, first)
        for name in ("ledger.parquet", "visits.parquet"):
            in_table(members, name, lambda rows: [row for row in rows if row["step"] == 0])

    assert "the loop ends with the step that reaches the limit" in refused(change)["training"]


@pytest.mark.parametrize("names", [["ledger.parquet"], ["ledger.parquet", "visits.parquet"]])
def test_an_empty_ledger_beside_what_was_spent(refused: Refused, names: list[str]) -> None:
    def change(members: Members) -> None:
        for name in names:
            table = pq.read_table(io.BytesIO(members[name]))
            members[name] = parquet(table.slice(0, 0))

    assert "ledger.parquet" in refused(change)["training"]


def test_a_ledger_of_steps_without_rollouts(refused: Refused) -> None:
    def change(members: Members) -> None:
        empty = {"source": "", "rollouts": 0, "correct": 0, "tokens": 0}
        in_table(members, "ledger.parquet", lambda rows: [row | empty for row in rows])

    reason = refused(change)["training"]
    assert "verdicts, and ledger.parquet has 0 rollouts" in reason


def test_flops_that_the_tokens_do_not_cost(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/1/cost.json", lambda c: c.update(flops=c["flops"] + 1))

    assert "its tokens cost" in refused(change)["training"]


def test_a_budget_that_was_not_kept(made_bundle: Path, made_split: Split, tmp_path: Path) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/1/cost.json", lambda c: c.update(flops=3 * 10**12))

    found = verify_bundle(altered(made_bundle, tmp_path / "x.zip", change), made_split, workers=1)
    assert any("its budget allows" in reason.reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].update(correct=rows[0]["rollouts"] + 1), "more correct rollouts than rollouts"),
        (lambda rows: rows[0].update(tokens=2**62), "or more in one row"),
        (lambda rows: [rows[0], *rows], "two rows of one seed, step and source"),
        (lambda rows: rows[0].update(source="<script>alert(1)</script>"), "is not one of policy, hinted, prefixed"),
        (lambda rows: rows[0].update(tokens=rows[0]["tokens"] + 1), "drawn tokens"),
        (lambda rows: rows[0].update(tokens=1), "a rollout without a token"),
        (lambda rows: rows[0].update(flops=None), "does not have every step from 0 on"),
        (lambda rows: rows[-1].update(step=7), "does not have every step from 0 on"),
        (lambda rows: rows[0].update(correct=0), "correct of the policy in ledger.parquet"),
        (lambda rows: rows[0].update(seed=9), "rows of seed 9, which is not in the bundle"),
        (lambda rows: rows[0].update(tokens=-1), "a negative number"),
    ],
)
def test_a_ledger_that_contradicts_itself_or_others(refused: Refused, change: Any, words: str) -> None:
    assert words in refused(lambda members: in_table(members, "ledger.parquet", change))["training"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].update(correct=rows[0]["judged"] + 1), "more than judged in a row"),
        (lambda rows: rows[0].update(valid=rows[0]["traced"] + 1), "more than traced in a row"),
        (lambda rows: rows[0].update(correct=rows[0]["rollouts"] - rows[0]["correct"]), "correct of the policy"),
        (lambda rows: rows[0].update(rollouts=2**50, judged=2**50), "or more in one row"),
        (lambda rows: rows[0].update(item_id="mine"), "'mine' is not in the pool"),
        (lambda rows: rows[1:], "rollouts of the policy in ledger.parquet"),
        (lambda rows: [rows[0], *rows], "two rows of one seed, step and item"),
        (lambda rows: rows[0].update(judged=-1), "a negative number"),
    ],
)
def test_visits_that_contradict_themselves_or_the_ledger(refused: Refused, change: Any, words: str) -> None:
    assert words in refused(lambda members: in_table(members, "visits.parquet", change))["training"]


def test_visits_of_other_items_than_the_seed_selects(refused: Refused) -> None:
    def change(members: Members) -> None:
        def swap(rows: list[dict[str, Any]]) -> None:
            here = {row["item_id"] for row in rows if (row["seed"], row["step"]) == (1, 0)}
            row = next(row for row in rows if (row["seed"], row["step"]) == (1, 0))
            row["item_id"] = next(row["item_id"] for row in rows if row["item_id"] not in here)

        in_table(members, "visits.parquet", swap)

    assert "the items visited in step 0 are not those" in refused(change)["training"]


@pytest.mark.parametrize("value", [10**15, 0, -3, "many", True])
def test_a_recipe_of_absurd_numbers_is_refused_at_once(refused: Refused, value: object) -> None:
    def change(members: Members) -> None:
        for seed in (1, 2, 3):
            in_json(members, f"seeds/{seed}/method.json", lambda m: m["settings"].update(prompts_per_step=value))
        in_json(members, "result.json", lambda r: r["method"]["settings"].update(prompts_per_step=value))

    assert "prompts_per_step or group_size is out of range" in refused(change)["training"]


def test_texts_that_keep_the_verifier_busy_are_not_all_judged(
    made_bundle: Path, made_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejudge, "AT_ONCE", 2)
    monkeypatch.setattr(rejudge, "SECONDS", 0.5)
    hard = [rf"\boxed{{\sum_{{n=1}}^{{\infty}} \frac{{\sin(n^{k})}}{{\ln(n+x)}}}}" for k in range(2, 12)]
    with pytest.raises(DataError, match="took the verifier"):
        rejudge.judged([("1", text) for text in hard], "strict", 1)
