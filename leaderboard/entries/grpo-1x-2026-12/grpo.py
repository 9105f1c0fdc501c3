"""GRPO with dynamic sampling: the reference method, and the null control when it runs with fresh seeds.

Shao et al. 2024, "DeepSeekMath" (arXiv 2402.03300); groups without signal are dropped as in DAPO (2503.14476).
Every default of `Method` is this algorithm, so there is nothing to override.
"""

from __future__ import annotations

from unlearnbench.method import Method


class Grpo(Method):
    """The reference GRPO, by the split's recipe."""

    source = "arXiv 2402.03300"
