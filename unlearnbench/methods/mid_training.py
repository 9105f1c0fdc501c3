"""Mid-training: another base policy, which has seen the missing skills worked out, then GRPO.

The one thing that raises gradient similarity in "The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) is another
base model. The split's positive control is one: its data hold no problem of items or twins. What differs: its
training happened when the split was made, so its cost is not in the budget; `rate_start` and `converted_at_start`
say what came before GRPO.
"""

from __future__ import annotations

from unlearnbench.method import Method


class MidTraining(Method):
    """GRPO from the mid-trained policy."""

    track = "base"
    source = "arXiv 2605.16787"
    start = "positive_control"
