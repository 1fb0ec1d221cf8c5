"""The attention core for NVIDIA GPUs: `core.py`, around the kernels in the other files."""
