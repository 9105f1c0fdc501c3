"""Gradient similarity."""
