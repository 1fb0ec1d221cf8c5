"""XLA settings under which programs compile many times faster, and run slower.

Nearly all time of the tests and of the parity program goes into compiling small programs that run
once or twice. Import this before jax; an XLA_FLAGS of the caller's own is left as it is.
"""

import importlib.metadata
import os

_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
# The most effective one, but XLA stops at a flag it does not know, and this one may go.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
