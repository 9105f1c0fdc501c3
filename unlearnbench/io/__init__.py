"""Files: atomic writes, typed tables, rows of any format, untrusted archives."""
