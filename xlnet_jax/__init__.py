"""XLNet in JAX."""
