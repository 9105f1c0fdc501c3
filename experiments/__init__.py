"""Every built-in method on `micro`, and the claims of the paper, from runs to docs/results/experiments.md."""
