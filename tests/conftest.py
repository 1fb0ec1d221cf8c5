"""What every test shares: one CPU device, quiet TensorFlow, repeatable hypothesis."""

import os

# Before anything imports jax or tensorflow; a test that wants more devices starts a process.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis

import tests.quick_compiles  # noqa: F401

# No deadline (a first call compiles). In CI the examples are the same on every run.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
