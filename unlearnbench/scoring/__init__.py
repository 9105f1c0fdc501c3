"""Labels, counts, intervals and the score.

In: tables of counts, `correct` of `n` rollouts by item, phase and run. Out: the group of each item (`labels`), the
score of a run (`score`, which reads like result.json), comparisons of runs (comparisons/), and what chance explains
(inference/). Everything follows from integers: no text, no policy, no torch.
"""
