"""Measuring a policy: n fresh rollouts per problem, every one judged, as rows and as integer counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from unlearnbench.errors import VerifierError
from unlearnbench.policies.samplers.sampler import Completions, Request, Sampler
from unlearnbench.records import Sampling
from unlearnbench.rng import stream
from unlearnbench.verifier import Verifier

if TYPE_CHECKING:  # counts must be made from a run's files without torch
    from unlearnbench.policies.policy import Policy

CHUNK_ROLLOUTS = 8192
"""Rollouts that the sampler is asked for at a time. Its batches, and with them rounding, follow from that."""

P = TypeVar("P")

ROWS = {
    "completion": pa.string(),
    "token_ids": pa.list_(pa.int32()),
    "finish": pa.string(),
    "correct": pa.bool_(),
    "answer": pa.string(),
    "reason": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is measured: an item, a twin or a canary, by its id."""

    problem_id: str
    prompt: str
    answer: str


def measure(
    problems: Sequence[Problem],
    n: int,
    *,
    policy: Policy,
    sampler: Sampler,
    verifier: Verifier,
    sampling: Sampling,
    root: str,
    key: str = "item_id",
    distinct: bool = False,
    progress: Callable[[int], None] | None = None,
) -> pa.Table:
    """n rollouts of every problem. `root` names the random streams, `key` the id column (item_id or twin_id).

    One row a rollout, with its `sample` number; with `distinct`, one row a different completion of a problem, with
    its `count`, which says the same in a tenth of the space. Raises VerifierError if the verifier itself fails: in
    an evaluation nothing may be left out (PROTOCOL 3.12).
    """
    parts: list[pa.Table] = []
    for chunk in chunks(problems, n):
        requests = [Request(policy.encode(p.prompt), n, stream(root, p.problem_id)) for p in chunk]
        drawn = sampler.generate(
            requests,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
        )
        for problem, completions in zip(chunk, drawn, strict=True):
            parts.append(_rows(problem, completions, policy, verifier, key, distinct))
        if progress:
            progress(len(chunk) * n)
    return pa.concat_tables(parts)


def chunks(problems: Sequence[P], n: int) -> Iterator[Sequence[P]]:
    """The problems in the parts that are drawn at a time, n rollouts of each."""
    size = max(1, CHUNK_ROLLOUTS // n)
    for start in range(0, len(problems), size):
        yield problems[start : start + size]


def counts_of(rows: pa.Table, phase: str, run: str, key: str = "item_id") -> pa.Table:
    """Counts of measured rows: one row a problem, in the order in which they were measured."""
    ids = rows[key].to_numpy(zero_copy_only=False)
    weights = rows["count"].to_numpy() if "count" in rows.column_names else np.ones(len(ids), dtype=np.int64)
    correct = rows["correct"].to_numpy(zero_copy_only=False).astype(bool)
    names, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    totals = np.bincount(inverse, weights=weights, minlength=len(names)).astype(np.int64)
    hits = np.bincount(inverse, weights=weights * correct, minlength=len(names)).astype(np.int64)
    order = np.argsort(first)
    return pa.table(
        {
            key: pa.array(names[order], pa.string()),
            "phase": pa.array([phase] * len(names), pa.string()),
            "run": pa.array([run] * len(names), pa.string()),
            "n": totals[order],
            "correct": hits[order],
        }
    )


def _rows(
    problem: Problem, completions: Completions, policy: Policy, verifier: Verifier, key: str, distinct: bool
) -> pa.Table:
    """Judge one problem's completions; equal ones are decoded and judged once."""
    unique, inverse, counts = np.unique(completions.tokens, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    token_ids = [row[row >= 0] for row in unique]
    texts = [policy.decode(tokens) for tokens in token_ids]
    verdicts = verifier.verify_many([(problem.answer, text) for text in texts])
    if any(verdict.correct is None for verdict in verdicts):
        raise VerifierError(
            f"the verifier failed twice on a completion of {problem.problem_id}; run the same command again: it resumes"
        )
    ends = np.zeros(len(unique), dtype=bool)
    ends[inverse] = completions.stopped
    rows = np.arange(len(unique)) if distinct else inverse
    columns = {
        "completion": [texts[i] for i in rows],
        "token_ids": [token_ids[i] for i in rows],
        "finish": ["stop" if ends[i] else "length" for i in rows],
        "correct": [verdicts[i].correct for i in rows],
        "answer": [verdicts[i].answer for i in rows],
        "reason": [verdicts[i].reason for i in rows],
    }
    number = ("count", counts.astype(np.int32)) if distinct else ("sample", np.arange(len(rows), dtype=np.int32))
    head = {key: pa.array([problem.problem_id] * len(rows), pa.string()), number[0]: pa.array(number[1])}
    return pa.table(head | {name: pa.array(values, ROWS[name]) for name, values in columns.items()})
