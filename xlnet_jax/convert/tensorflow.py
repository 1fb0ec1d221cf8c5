"""Checkpoints of the original code (TensorFlow 1 format)."""

from __future__ import annotations

import numpy as np
from etils import epath


def read_checkpoint(path: str) -> dict[str, np.ndarray]:
    """All variables of a checkpoint by name; `path` is the prefix before `.index`.

    Raises FileNotFoundError if there is no index file.
    """
    import tensorflow as tf

    if not epath.Path(f"{path}.index").exists():
        raise FileNotFoundError(f"no TensorFlow checkpoint at {path}: {path}.index does not exist")
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
