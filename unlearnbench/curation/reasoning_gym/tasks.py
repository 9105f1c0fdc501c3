"""Which tasks of reasoning-gym 0.1.25 make items, and who judges their answers.

The table of all tasks in docs/results/reasoning-gym.md is measured; what stands here is what follows from it. Our
verifier judges wherever one answer is right; the task's own scorer, in the verifier's worker process, where many are
or where the answer's form is none that the verifier reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Judge = Literal["math", "reasoning_gym"]

SCORED = (
    "bitwise_arithmetic",
    "countdown",
    "cryptarithm",
    "group_anagrams",
    "intermediate_integration",
    "jugs",
    "kakurasu",
    "knight_swap",
    "knights_knaves",
    "n_queens",
    "palindrome_generation",
    "path_star",
    "polynomial_multiplication",
    "quantum_lock",
    "shortest_path",
    "simple_integration",
    "sokoban",
    "survo",
    "tower_of_hanoi",
    "word_ladder",
)
"""Tasks with many right answers, or answers in a form of their own."""

UNUSABLE: Mapping[str, str] = {
    "boxnet": "no golds",
    "composite": "a mixture of other tasks; name those",
    "family_relationships": "some in-laws are named wrongly",
    "graph_color": "no golds",
    "propositional_logic": "no golds",
    "puzzle24": "its scorer does not look at which numbers are used",
    "rubiks_cube": "no golds",
    "rush_hour": "no golds",
    "time_intervals": "some problems depend on the day they are generated",
}
"""Tasks that make no items, and why."""


def judge_of(task: str) -> Judge:
    """Who judges answers to a task."""
    return "reasoning_gym" if task in SCORED else "math"
