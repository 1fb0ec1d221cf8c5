"""The network: jax, flax and numpy, pure functions of parameters and arrays."""
