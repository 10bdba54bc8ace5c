"""Foreign logs, from a cell to the log."""
