"""What training drew and spent according to a bundle: ledger, visits and costs must agree with each other.

The judge wrote these files; what they say cannot be shown from weights. It can be shown to contradict itself, and the
visits of a method that leaves the choice of items to the reference follow from its seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.harness.run_config import QUICK, most_flops
from unlearnbench.io.untrusted import texts_of
from unlearnbench.leaderboard.bundles.bundle import Bundle, Seed
from unlearnbench.records import DRAWN
from unlearnbench.rng import in_epochs, shuffled
from unlearnbench.scoring.fates import VISITS
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split
from unlearnbench.training.meter import flops
from unlearnbench.workers.jobs import stream_root

MOST_NUMBER = 2**38
"""Rollouts or tokens that a row may have: as many such rows as a table may have still add up in 64 bits."""
MOST_SELECTED = 50_000_000
"""Items that all seeds select, one by one; honest runs select some ten thousand per seed."""
MOST_EPOCHS = 100
"""Passes over the pool in one step."""


def contradictions(bundle: Bundle, tables: Mapping[str, pa.Table], split: Split) -> Iterator[str]:
    """What cannot be, one sentence each."""
    ledger, visits = tables["ledger.parquet"], tables["visits.parquet"]
    malformed = [*_malformed_ledger(bundle, ledger), *_malformed_visits(bundle, visits, split)]
    yield from malformed
    if malformed:
        return
    for number, seed in bundle.seeds.items():
        own = _Steps.of(ledger, visits, number)
        for told in (*_costs(seed, own, split), *_loop(seed, own, split), *_visits(own)):
            yield f"seed {number}: {told}"
        most = most_flops(split, seed.config.budget)
        if bundle.result.comparable and most is not None and seed.cost.flops > most:
            yield f"seed {number}: {seed.cost.flops:,} FLOPs were spent, and its budget allows {most:,.0f}"
    yield from _selections(bundle, ledger, visits, split)


def _malformed_ledger(bundle: Bundle, table: pa.Table) -> Iterator[str]:
    where = "ledger.parquet"
    if strange := set(texts_of(pa.chunked_array([table["source"].combine_chunks()]))) - {"", *DRAWN}:
        yield f"{where}, field 'source': {sorted(strange)[0]!r:.60} is not one of {', '.join(DRAWN)}"
    if strange := set(pc.unique(table["seed"]).to_pylist()) - set(bundle.seeds):
        yield f"{where} has rows of seed {sorted(strange)[0]}, which is not in the bundle"
    yield from _impossible(where, table, ("step", "rollouts", "correct", "tokens", "flops"))
    if pc.any(pc.greater(table["correct"], table["rollouts"])).as_py():
        yield f"{where}, field 'correct': more correct rollouts than rollouts in a row"
    if pc.any(pc.less(table["tokens"], table["rollouts"])).as_py():
        yield f"{where}, field 'tokens': a rollout without a token"
    if table.group_by(["seed", "step", "source"]).aggregate([]).num_rows != table.num_rows:
        yield f"{where} has two rows of one seed, step and source"


def _malformed_visits(bundle: Bundle, table: pa.Table, split: Split) -> Iterator[str]:
    where = "visits.parquet"
    if strange := set(pc.unique(table["seed"]).to_pylist()) - set(bundle.seeds):
        yield f"{where} has rows of seed {sorted(strange)[0]}, which is not in the bundle"
    pool = {*(item.item_id for item in split.items), *(canary.item_id for canary in split.canaries)}
    related = any({"similar", "sub_problems"} & set(seed.asked) for seed in bundle.seeds.values())
    ids = pc.unique(table["item_id"]).to_pylist()
    if not related and (strange := set(ids) - pool):
        yield f"{where}, field 'item_id': {sorted(strange)[0]!r:.60} is not in the pool"
    counts = [name for name in VISITS if name not in ("seed", "item_id")]
    yield from _impossible(where, table, counts)
    for less, more in (("judged", "rollouts"), ("correct", "judged"), ("traced", "correct"), ("valid", "traced")):
        if pc.any(pc.greater(table[less], table[more])).as_py():
            yield f"{where}, field {less!r}: more than {more} in a row"
    if table.group_by(["seed", "step", "item_id"]).aggregate([]).num_rows != table.num_rows:
        yield f"{where} has two rows of one seed, step and item"


def _impossible(where: str, table: pa.Table, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if pc.any(pc.less(table[name], 0)).as_py():
            yield f"{where}, field {name!r}: a negative number"
        if name != "flops" and table.num_rows and pc.max(table[name]).as_py() >= MOST_NUMBER:
            yield f"{where}, field {name!r}: {MOST_NUMBER:,} or more in one row"


@dataclass(frozen=True)
class _Steps:
    """One seed's ledger and visits by step, arrays of shape (steps,). `spent` is -1 where a step logged no cost."""

    step: Counts
    rollouts: Counts
    tokens: Counts
    spent: Counts
    policy: Counts
    """Rollouts that the policy drew in the items' own prompts, by the ledger, and how many were correct."""
    policy_correct: Counts
    visited: Counts
    """The same by the visits."""
    visited_correct: Counts

    @classmethod
    def of(cls, ledger: pa.Table, visits: pa.Table, seed: int) -> _Steps:
        ledger, visits = (table.filter(pc.equal(table["seed"], seed)) for table in (ledger, visits))
        mine = np.array([source == DRAWN[0] for source in texts_of(ledger["source"])], bool)
        of_ledger, of_visits = ledger["step"].to_numpy(), visits["step"].to_numpy()
        step = np.unique(np.concatenate([of_ledger, of_visits]))
        place, at = np.searchsorted(step, of_ledger), np.searchsorted(step, of_visits)

        def summed(places: Counts, values: Counts) -> Counts:
            total = np.zeros(len(step), np.int64)
            np.add.at(total, places, values)
            return total

        rollouts, correct, tokens = (ledger[name].to_numpy() for name in ("rollouts", "correct", "tokens"))
        spent = np.full(len(step), -1, np.int64)
        spent[place] = ledger["flops"].fill_null(-1).to_numpy()
        return cls(
            step,
            summed(place, rollouts),
            summed(place, tokens),
            spent,
            summed(place, np.where(mine, rollouts, 0)),
            summed(place, np.where(mine, correct, 0)),
            summed(at, visits["rollouts"].to_numpy()),
            summed(at, visits["correct"].to_numpy()),
        )


def _costs(seed: Seed, own: _Steps, split: Split) -> Iterator[str]:
    """Costs against what was drawn."""
    cost, parameters = seed.cost, split.config.base_policy.parameters
    drawn, rollouts = int(own.tokens.sum()), int(own.rollouts.sum())
    if parameters is not None:
        told = flops(parameters, cost.generated_tokens + cost.forward_tokens, cost.trained_tokens)
        if cost.flops != told:
            yield f"cost.json says {cost.flops:,} FLOPs, and its tokens cost {told:,}"
    if drawn > cost.generated_tokens:
        yield f"ledger.parquet has {drawn:,} drawn tokens, and cost.json {cost.generated_tokens:,} generated ones"
    asked = cost.verifier_calls - rollouts
    if asked < 0 or (asked and "verdict" not in seed.asked):
        yield f"cost.json says {cost.verifier_calls:,} verdicts, and ledger.parquet has {rollouts:,} rollouts"
    if cost.ungradable > cost.verifier_calls:
        yield "cost.json says more ungradable rollouts than verdicts"
    longest = max(
        value
        for value in (
            split.config.recipe.max_tokens,
            split.config.protocol.sampling.max_tokens,
            seed.method.settings.get("max_tokens"),
        )
        if type(value) is int
    )
    if np.any(own.tokens > own.rollouts * float(longest)):
        yield f"ledger.parquet has a step of more than {longest:,} tokens per rollout"
    spent = own.spent[own.spent >= 0]
    if len(spent) and (np.any(np.diff(spent) < 0) or spent[-1] > cost.flops):
        yield "the FLOPs of ledger.parquet fall, or end above those of cost.json"
    elif parameters is not None and len(spent) == len(own.step):
        least = np.cumsum(2 * parameters * own.tokens.astype(float))
        if np.any(spent < least):
            yield "the FLOPs of ledger.parquet are fewer than those of the tokens that were drawn until then"
    if cost.trained_tokens and not len(spent):
        yield f"cost.json says {cost.trained_tokens:,} trained tokens, and ledger.parquet has no step with a cost"


def _loop(seed: Seed, own: _Steps, split: Split) -> Iterator[str]:
    """Costs and steps of a run that the reference loop made, which ends with the step that reaches its limit."""
    if "train" in seed.method.hooks:
        return
    cost, config = seed.cost, seed.config
    if not np.array_equal(own.step, np.arange(len(own.step))) or np.any(own.spent < 0):
        yield "ledger.parquet does not have every step from 0 on with its cost, as the loop writes them"
        return
    last = int(own.spent[-1]) if len(own.spent) else 0
    if last != cost.flops:
        yield f"ledger.parquet ends at {last:,} FLOPs, and cost.json says {cost.flops:,}"
        return
    budget = split.config.budget
    if config.quick or budget is None:
        steps = QUICK["steps"] if config.quick else split.config.recipe.steps
        if len(own.step) != steps:
            yield f"ledger.parquet has {len(own.step)} steps, and the run was to make {steps}"
        return
    limit = round(budget.flops_1x * config.budget)
    if cost.flops < limit or (len(own.spent) > 1 and own.spent[-2] >= limit):
        yield (
            f"{cost.flops:,} FLOPs were spent in {len(own.step)} steps; the loop ends with the step that reaches the "
            f"limit of {limit:,}"
        )


def _visits(own: _Steps) -> Iterator[str]:
    """Visits against the ledger."""
    for name, stated, counted in (
        ("rollouts", own.policy, own.visited),
        ("correct", own.policy_correct, own.visited_correct),
    ):
        if (odd := np.flatnonzero(stated != counted)).size:
            at = int(odd[0])
            yield (
                f"step {own.step[at]} has {stated[at]:,} {name} of the policy in ledger.parquet, and {counted[at]:,} "
                "in visits.parquet"
            )


def _selections(bundle: Bundle, ledger: pa.Table, visits: pa.Table, split: Split) -> Iterator[str]:
    """Visits against the items that each seed's random numbers select, where the method does not select its own."""
    if set(bundle.first.method.hooks) & {"select_items", "plan_rollouts", "train"}:
        return
    pool = sorted([*(item.item_id for item in split.items), *(canary.item_id for canary in split.canaries)])
    done = 0
    for number, seed in bundle.seeds.items():
        count, size = (seed.method.settings.get(name) for name in ("prompts_per_step", "group_size"))
        if type(count) is not int or type(size) is not int or not 0 < count <= MOST_EPOCHS * len(pool):
            yield f"seed {number}: method.json, field 'settings': prompts_per_step or group_size is out of range"
            return
        own = visits.filter(pc.equal(visits["seed"], number)).sort_by("step")
        steps, starts = np.unique(own["step"].to_numpy(), return_index=True)
        ids, rollouts = texts_of(own["item_id"]), own["rollouts"].to_pylist()
        done += len(steps) * count
        if done > MOST_SELECTED:
            yield f"visits.parquet: more than {MOST_SELECTED:,} items were selected"
            return
        root = stream_root(split, seed.config.purpose, number)
        ends = np.append(starts, len(ids))[1:]
        for step, start, end in zip(steps.tolist(), starts.tolist(), ends.tolist(), strict=True):
            chosen = Counter(in_epochs(pool, step, count, partial(_order, root)))
            wanted = {name: times * size for name, times in chosen.items()}
            if wanted != dict(zip(ids[start:end], rollouts[start:end], strict=True)):
                yield (
                    f"seed {number}: the items visited in step {step} are not those that its random numbers select: it "
                    "is another seed, or another recipe"
                )
                return


def _order(root: str, values: Sequence[str], epoch: int) -> Sequence[str]:
    """The order of an epoch, as `MeteredServices.shuffled` gives it to `Method.select_items`."""
    return shuffled(values, root, "method", "epoch", epoch)
