"""Bundles, entries, ranks."""
