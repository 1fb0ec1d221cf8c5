"""Checkpoints of other programs, read and written; the table of names is in `rules`."""
