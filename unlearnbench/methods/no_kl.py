"""GRPO without the KL term that holds the policy near its start.

One of the interventions of arXiv 2605.16787 that did not convert unlearnable items; also how DAPO (2503.14476,
section 2.3) and Dr. GRPO (2503.20783) train. The passes of the reference policy are not made, hence not paid.
"""

from __future__ import annotations

from unlearnbench.method import Method


class NoKl(Method):
    """GRPO without its KL term."""

    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """Nothing else changes."""

        kl: float = 0.0
