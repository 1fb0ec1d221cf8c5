"""Measurements against peers and against this machine; never part of the tests."""

from xlnet_jax.training import tpu_library

if not tpu_library.has_chips():
    tpu_library.stay_offline()
