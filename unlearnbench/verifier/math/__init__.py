"""The mathematics of an answer."""
