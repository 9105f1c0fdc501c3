"""A bundle as a file: written from a finished run, opened without trusting it, and found at its address.

In: a run's folder (`writing`), or a zip file from anybody (`opening`, `tables`) at a path or address (`address`). Out:
a `Bundle`, every member of which has the right form. Whether it is true is checked in `leaderboard.verification`.
"""
