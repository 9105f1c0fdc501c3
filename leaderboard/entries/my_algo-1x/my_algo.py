"""An advantage weighted towards rare successes: a success counts more the fewer of its group succeeded.

The idea: GRPO standardises within a group, so a lone success among eight gets 2.5 times its share, but the update is
averaged over all groups of a batch, where frequent successes of half-learned items outvote it. Here a success gets
an extra weight of 1 + bonus * (1 - p), with p the item's success rate over its last visits.
"""

import numpy as np

import unlearnbench as ub


class RareSuccess(ub.Method):
    """GRPO whose advantages grow with the rarity of an item's successes."""

    track = "verifier"
    source = "this project (example)"

    class Settings(ub.Method.Settings):
        """`--set bonus=2` strengthens the idea; `--set bonus=0` is GRPO."""

        bonus: float = 1.0
        visits: int = 3

    def advantages(self, rollouts):
        """Advantages (n,): the reference's, scaled up where the item's recent success rate is low."""
        past = self.run.history(rollouts.item_id)[-self.settings.visits :]
        drawn = sum(visit.n for visit in past) or 1
        rate = sum(visit.correct for visit in past) / drawn
        scale = np.where(rollouts.rewards > rollouts.rewards.mean(), 1 + self.settings.bonus * (1 - rate), 1.0)
        return super().advantages(rollouts) * scale
