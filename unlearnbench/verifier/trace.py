r"""How far a rollout's worked trace agrees with the reference solution, step by step from the beginning.

A step is what a reader takes in at once: a boxed answer, a number, a word or a sign; white space separates steps and is
none. In `2+5+>\boxed{7}` there are six: 2, +, 5, +, > and the box. A step is valid if it and all steps before it are
those of the reference solution, so this can be asked only on splits whose problems have one trace
(`protocol.valid_trace` is `solution` in split.yaml), where a rollout with another trace has another method or none.
"""

from __future__ import annotations

import re

_STEP = re.compile(r"\\boxed\s*\{[^{}]*\}|\d+|[^\W\d_]+|\S")


def trace_steps(text: str) -> list[str]:
    """The steps of a worked solution, in their order."""
    return _STEP.findall(text)


def valid_steps(text: str, solution: str) -> tuple[int, int]:
    """How many steps at the beginning of a text are those of the solution, and how many steps the solution has.

    A text that goes on after the whole solution has one valid step fewer: its last step is not where it should end.
    """
    wanted, found = trace_steps(solution), trace_steps(text)
    valid = 0
    for ours, theirs in zip(found, wanted, strict=False):
        if ours != theirs:
            break
        valid += 1
    return valid - (valid == len(wanted) and len(found) > len(wanted)), len(wanted)
