"""Pools from the tasks of reasoning-gym: golds computed again, worked examples, items and their probes."""
