"""Files: atomic writes, typed tables, rows of any format, archives from strangers."""
