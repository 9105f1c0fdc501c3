"""Is the score calibrated? Simulations with known truth (`make calibrate`), for docs/reference/statistics.md."""
