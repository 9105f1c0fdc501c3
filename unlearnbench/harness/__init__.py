"""The stories: evaluate, score, plan, doctor.

In: what a command was given: a method, a split, seeds, a budget, or rollouts from elsewhere. Out: a run's folder with
its result.json, or a plan of what a run costs. `evaluate` is the benchmark on one page; `judge` holds the answers
while a method trains; `run_config` is everything that determines a run's numbers.
"""
