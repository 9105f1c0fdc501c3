"""Whether a split's labels hold."""
