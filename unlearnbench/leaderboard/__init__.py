"""The leaderboard: bundles, the entries made of them, editions, ranks and the site.

In: bundles, which `submit` writes from a finished run (bundles/). Out: a verification that measures their weights again
(verification/), entries (`entries`), re-trained entries of sealed editions (`close_edition`, `retrain_edition`), ranks
(`ranking`, `board`), rules and static pages (site/). Nothing here imports torch.
"""
