"""Labels for a policy and a pool; a split's files.

In: a policy and a pool of problems, or counts, or released ids. Out: a labelled split (`curate`, `build`), its checks
(`validate`, audit/), generated problems (augment/). `curate` is the labelling protocol on one page.
"""
