"""Whether a split's labels are right."""
