"""What every test shares: one CPU device, checked shapes, quiet TensorFlow, repeated examples."""

import os
from pathlib import Path

# Before anything imports jax or tensorflow; a test that wants more devices starts a process.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else announced by tests that load it alone
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import jaxtyping

import tests.quick_compiles  # noqa: F401

# Every call of the model's functions is checked against the axes that their signatures name.
_ROOT = Path(__file__).parents[1]
_MODEL = [path.relative_to(_ROOT) for path in _ROOT.glob("xlnet_jax/model/**/*.py")]
_SHAPED = [path for path in _MODEL if "from jaxtyping" in (_ROOT / path).read_text()]
jaxtyping.install_import_hook(
    [".".join(path.with_suffix("").parts) for path in _SHAPED], "beartype.beartype"
)

# No deadline (a first call compiles). In CI the examples are the same on every run.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("local"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
