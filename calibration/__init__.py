"""Is the score calibrated? Simulations with known truth, in full (`make calibrate`)."""
