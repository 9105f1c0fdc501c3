"""Labels, counts, intervals and the score."""
