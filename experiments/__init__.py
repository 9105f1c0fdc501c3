"""Every method of the package on `micro`, and the paper's experiments, from runs to docs/results/experiments.md."""
