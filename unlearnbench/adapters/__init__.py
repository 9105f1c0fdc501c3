"""Our verifier as the reward of other trainers, one module a trainer."""
