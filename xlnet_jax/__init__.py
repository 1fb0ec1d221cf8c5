"""XLNet in JAX: the public face, everything here is fetched on first use.

`import xlnet_jax` by itself loads neither JAX nor TensorFlow, so that `xlnet-jax --help` and a
look at the version are immediate.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# TensorFlow's start-up chatter, hidden before anything of ours loads it; what the user set stays.
# (Its oneDNN products, announced at every start on some processors, are of no use to pipelines.)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Public name -> the module that defines it.
_PUBLIC = {
    "XLNet": "xlnet_jax.encoding.encoder",
    "XLNetConfig": "xlnet_jax.model.config",
    "load_pretrained": "xlnet_jax.convert.pretrained",
}

__all__ = ["XLNet", "XLNetConfig", "__version__", "load_pretrained"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xlnet_jax' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
