"""The board as static pages."""
