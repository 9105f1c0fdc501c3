"""What `import unlearnbench as ub` offers for a script or a notebook: each command as a function.

In: names, folders, classes, numbers, as Python has them. Out: records and objects. The work is done in the other rooms.
"""
