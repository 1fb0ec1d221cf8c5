"""Config files: what to train, with which numbers."""
