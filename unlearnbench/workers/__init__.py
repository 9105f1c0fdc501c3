"""Worker processes and what passes between them.

In: jobs (`jobs`), as records. Out: events, rollouts and checkpoints, as records and arrays (`messages`, `channel`).
An executor runs chains of jobs on this machine or on a Ray cluster; a method's code runs behind the walls of
`isolation`.
"""
