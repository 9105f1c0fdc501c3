"""Labels for a policy and a pool; a split's files."""
