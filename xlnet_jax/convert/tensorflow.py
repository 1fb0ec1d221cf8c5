"""Checkpoints of the original code (TensorFlow 1 format): read and written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from etils import epath

STATE_NAME = "checkpoint"  # TensorFlow's file that says which checkpoint is the newest

_ENDING = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def find_checkpoint(path: str | os.PathLike[str]) -> str:
    """The prefix of a checkpoint: the given one, or the only or newest one of a folder.

    Raises FileNotFoundError if there is no index file, ValueError if a folder holds several and
    does not say which is the newest.
    """
    given = _ENDING.sub("", os.fspath(path))
    if not epath.Path(given).is_dir():
        _check_index(given)
        return given
    found = checkpoints_in(given)
    if not found:
        raise FileNotFoundError(f"no TensorFlow checkpoint in {given}: no file ends in .index")
    if len(found) > 1 and not (epath.Path(given) / STATE_NAME).exists():
        names = ", ".join(os.path.basename(prefix) for prefix in found)
        raise ValueError(f"{given} holds several checkpoints: {names}; give the path of one")
    return found[-1]


def checkpoints_in(folder: str | os.PathLike[str]) -> list[str]:
    """Prefixes of all checkpoints of a folder, the newest last.

    In the order of the file `checkpoint`, if there is one; else by step number.
    """
    place = epath.Path(folder)
    prefixes = {os.fspath(p).removesuffix(".index") for p in place.glob("*.index")}
    if (place / STATE_NAME).exists():
        listed = re.findall(
            r'^all_model_checkpoint_paths: "(.*)"$', (place / STATE_NAME).read_text(), re.MULTILINE
        )
        inside = [os.fspath(place / os.path.basename(name)) for name in listed]
        if known := [prefix for prefix in inside if prefix in prefixes]:
            return known
    return sorted(prefixes, key=_step_and_name)


def _step_and_name(prefix: str) -> tuple[int, str]:
    step = re.search(r"-(\d+)$", prefix)
    return (int(step[1]) if step else -1, prefix)


def read_checkpoint(
    path: str, keep: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Variables of a checkpoint by name; `path` is the prefix before `.index`.

    Raises FileNotFoundError if there is no index file, ValueError if a file is cut off.
    """
    _check_index(path)
    with _errors_of(path):
        import tensorflow as tf

        reader = tf.train.load_checkpoint(path)
        names = sorted(filter(keep, reader.get_variable_to_shape_map()))
        return {name: reader.get_tensor(name) for name in names}


def variable_names(path: str) -> list[str]:
    """Names of all variables of a checkpoint."""
    _check_index(path)
    with _errors_of(path):
        import tensorflow as tf

        return sorted(tf.train.load_checkpoint(path).get_variable_to_shape_map())


def write_checkpoint(path: str | os.PathLike[str], variables: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint that TensorFlow 1's `Saver` restores, and the file `checkpoint`.

    It has no `.meta` file: the original builds its graph itself.
    """
    import tensorflow as tf

    prefix = os.fspath(path)
    names = sorted(variables)
    with tf.device("CPU:0"):
        tensors = [tf.constant(variables[name]) for name in names]
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
        )
    folder, name = os.path.split(prefix)
    (epath.Path(folder) / STATE_NAME).write_text(
        f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
    )


def _check_index(path: str) -> None:
    if epath.Path(f"{path}.index").exists():
        return
    folder, name = os.path.split(path)
    place = epath.Path(folder or ".")
    near = [os.path.basename(p) for p in checkpoints_in(place)] if place.is_dir() else []
    there = f"; in {os.fspath(place)} there are: {', '.join(near)}" if near else ""
    raise FileNotFoundError(
        f"no TensorFlow checkpoint at {path}: {name}.index does not exist{there}"
    )


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turns what TensorFlow raises into one line."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise ValueError(f"TensorFlow checkpoint {path} cannot be read: {reason}") from error
