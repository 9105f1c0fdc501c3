"""Pages, plots and sentences."""
