"""Finished runs side by side: what differs between them, item by item, and the null control against itself."""
