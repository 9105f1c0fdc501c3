"""What chance explains: intervals, p-values, variance components, power, and simulated experiments."""
