"""Worker processes and what passes between them."""
