"""Gradient similarity.

In: a policy, the items of a split, and rollouts. Out: similarity.json, cosines and a page. `gradients` computes an
item's vector, `similarity` compares them, `stages` is the order of the work, `of_run` adds it to a finished run.
"""
