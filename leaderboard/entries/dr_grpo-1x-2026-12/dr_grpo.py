"""Dr. GRPO: GRPO without its two biases, the division by a response's length and by the standard deviation of rewards.

Liu et al. 2025, "Understanding R1-Zero-Like Training: A Critical Perspective" (arXiv 2503.20783), section 3.2: the
advantage is r - mean(r), and token losses are summed and divided by a constant. Here the constant is max_tokens.
Differs from the paper: the split's KL term stays (the paper trains with none; `--set kl=0`), so that what is
compared with `grpo` is these two changes only.
"""

from __future__ import annotations

from typing import Literal

from unlearnbench.method import Method


class DrGrpo(Method):
    """GRPO with neither length nor difficulty bias."""

    source = "arXiv 2503.20783"

    class Settings(Method.Settings):
        """Both removals of section 3.2; the loop's own settings are enough for them."""

        standardise: bool = False
        aggregation: Literal["token_mean", "sequence_mean", "constant"] = "constant"
