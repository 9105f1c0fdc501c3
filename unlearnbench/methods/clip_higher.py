"""Clip-higher alone: an unlikely token may grow more before the clip stops it. One of the paper's failed remedies.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787), section 4, tests whether clipping holds unlearnable items
back by raising the upper clip from 0.2 to 0.28, and finds that it does not; the clip itself is DAPO's (2503.14476, eq.
10): min(r A, clip(r, 0.8, 1.28) A). Nothing else of DAPO is changed here. What differs: the released command for this
experiment leaves the KL weight at the script's default of 1e-3, ten times that of the baseline's command; here it stays
the split's, so that the clip is the only change.
"""

from __future__ import annotations

from unlearnbench.method import Method


class ClipHigher(Method):
    """GRPO with an upper clip of 0.28."""

    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """As in the paper and its released script."""

        clip_low: float = 0.2
        clip_high: float = 0.28
