"""The engine: optimizer, steps, state, checkpoints, the loop. It knows no task by name."""
