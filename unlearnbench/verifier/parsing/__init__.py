"""Text to answer: characters, spelling, brackets, numbers with units, names, sets and lists, read into `math.nodes`."""
