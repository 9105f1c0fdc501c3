"""The level 1 problems of a copy of MATH-500, as a pool without labels: what a policy scores on them, and no more.

The problems are other people's (MATH, Hendrycks et al. 2021): they are read where the user has them.
"""

from __future__ import annotations

from pathlib import Path

from recipes.real.policy import PARAMETERS, WEIGHTS
from recipes.real.problems import turn
from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import Item, PolicyRef, Protocol, Samples, Sampling, SplitConfig
from unlearnbench.splits import Split, write_split

LEVEL = 1
MAX_TOKENS = 128
SHOWN = (
    ("What is the value of $3x+4$ when $x=5$?", "$3 \\cdot 5 + 4 = 15 + 4 = 19$. \\boxed{19}"),
    (
        "What is $\\frac{1}{2}$ of $\\frac{3}{5}$?",
        "$\\frac{1 \\cdot 3}{2 \\cdot 5} = \\frac{3}{10}$. \\boxed{\\frac{3}{10}}",
    ),
)
"""Worked questions before each problem, of our own: without them the model boxes nothing."""


def write_competition(folder: Path, source: Path, policy: Path) -> Split:
    """Write the pool. Raises DataError where a row lacks a field or no problem has the level."""
    before = "".join(turn("user", asked) + turn("assistant", solved) for asked, solved in SHOWN)
    items = []
    for row in tables.read_jsonl(source):
        missing = [name for name in ("problem", "answer", "subject", "level", "unique_id") if name not in row]
        if missing:
            raise DataError(f"{source}: a row has no field {missing[0]!r}; give the jsonl file of MATH-500")
        if row["level"] == LEVEL:
            items.append(
                Item(
                    item_id=row["unique_id"],
                    prompt=f"{before}{turn('user', row['problem'])}<|im_start|>assistant\n",
                    answer=row["answer"],
                    solution=row.get("solution", ""),
                    family=row["subject"],
                )
            )
    if not items:
        raise DataError(f"{source} has no problem of level {LEVEL}; give the jsonl file of MATH-500")
    config = SplitConfig(
        name="math500-level1",
        description="The level 1 problems of MATH-500, without labels.",
        base_policy=PolicyRef(path=f"../{policy.name}", revision=WEIGHTS, parameters=PARAMETERS),
        protocol=Protocol(samples=Samples(certify=0), sampling=Sampling(max_tokens=MAX_TOKENS)),
    )
    return write_split(folder, config, items, counts=tables.COUNTS.empty_table())
