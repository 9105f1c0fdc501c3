"""The method that does nothing: what the base policy scores by itself."""

from __future__ import annotations

from unlearnbench.method import Loop, Method


class NoTraining(Method):
    """Control: leaves the policy as it is."""

    source = "this project"

    def train(self, loop: Loop) -> None:
        """Spend nothing."""
