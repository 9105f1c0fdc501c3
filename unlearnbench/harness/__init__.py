"""The stories: evaluate, score, plan, doctor."""
