"""Parameters in Orbax folders: those of `convert`, and the checkpoints of a work directory.

A folder of `convert` holds `params` (and `optimizer`), the files of `model_files`, and
`convert.json`: its head and a checksum of every array. It appears whole or not at all.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from flax import traverse_util

from xlnet_jax.data.storage import absolute, attempt, read_object

INFO_NAME = "convert.json"
PARAMS, OPTIMIZER = "params", "optimizer"
CHECKPOINTS = "checkpoints"  # of a work directory
FORMAT = 1

_PER_BLOCK = 1 << 22  # words mixed at a time


class Checkpoint(NamedTuple):
    """Arrays by path ("params/lm_bias"), and what was said beside them."""

    arrays: dict[str, np.ndarray]
    info: Mapping[str, Any]


def fingerprint(array: np.ndarray) -> int:
    """The checksum of `training.state.fingerprints`, of an array on the host."""
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    words = np.ascontiguousarray(array).reshape(-1).view(unsigned)
    total = np.uint32(0)
    with np.errstate(over="ignore"):
        for start in range(0, words.size, _PER_BLOCK):
            block = words[start : start + _PER_BLOCK].astype(np.uint32)
            index = np.arange(start, start + block.size, dtype=np.uint64).astype(np.uint32)
            mixed = block + index * np.uint32(0x9E3779B9)
            mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
            mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
            total += np.sum(mixed ^ (mixed >> np.uint32(16)), dtype=np.uint32)
    return int(total)


def write(folder: epath.Path, arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> None:
    """Writes arrays, by paths that start with the name of an item, and `info` last of all."""
    import orbax.checkpoint as ocp

    items = traverse_util.unflatten_dict(dict(arrays), sep="/")
    with ocp.StandardCheckpointer() as checkpointer:
        for name, tree in items.items():
            checkpointer.save(folder / name, tree)
            checkpointer.wait_until_finished()
    checksums = {path: fingerprint(array) for path, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **info, "checksums": checksums}, indent=2) + "\n"
    (folder / INFO_NAME).write_text(text)


def read(folder: epath.Path, *, optimizer: bool = False) -> Checkpoint:
    """What `write` wrote, verified; the optimizer's state only if asked for.

    Raises ValueError if it is damaged, of another format, or has no optimizer state.
    """
    path = folder / INFO_NAME
    if not path.exists():
        raise FileNotFoundError(f"{os.fspath(path)} is missing: the folder is not complete")
    info = read_object(path)
    if info.get("format") != FORMAT:
        raise ValueError(
            f"{os.fspath(path)}: format {info.get('format')}, this program reads format {FORMAT}"
        )
    checksums = info.get("checksums", {})
    wanted = [OPTIMIZER] if optimizer else [PARAMS]
    if not any(key.startswith(f"{wanted[0]}/") for key in checksums):
        raise ValueError(
            f"{os.fspath(folder)} has no {wanted[0]} state; convert with --with_optimizer"
        )
    arrays = _read_items(folder, wanted)
    _verify(folder, arrays, {k: v for k, v in checksums.items() if k.startswith(wanted[0])})
    return Checkpoint(arrays, info)


def steps_of(workdir: epath.Path) -> list[int]:
    """Steps of the complete checkpoints of a work directory, ascending."""
    folder = workdir / CHECKPOINTS
    if not folder.is_dir():
        return []
    return sorted(int(child.name) for child in folder.iterdir() if child.name.isdecimal())


def read_checkpoint(workdir: epath.Path, step: int, *, optimizer: bool = False) -> Checkpoint:
    """One checkpoint of a work directory, verified: `params`, or `rest` if `optimizer`.

    `info` is what the run stored beside it: its config and data.

    Raises ValueError if it is damaged.
    """
    folder = workdir / CHECKPOINTS / str(step)
    try:
        info = json.loads((folder / "info" / "metadata").read_text())
        checksums = info["checksums"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{os.fspath(folder)} is not readable: {error}") from error
    item = "rest" if optimizer else PARAMS
    arrays = _read_items(folder, [item])
    by_path = {_path_of(key): value for key, value in checksums.items()}
    _verify(folder, arrays, {k: v for k, v in by_path.items() if k.startswith(f"{item}/")})
    return Checkpoint(arrays, info["stored"])


def _path_of(key: str) -> str:
    """A path as JAX prints it ("['params']['lm_bias']") with slashes ("params/lm_bias")."""
    return "/".join(_parts_of(key))


def _parts_of(key: str) -> Iterator[str]:
    for quoted, index, attribute in re.findall(r"\['([^']*)'\]|\[(\d+)\]|\.(\w+)", key):
        yield quoted or index or attribute


def _read_items(folder: epath.Path, names: list[str]) -> dict[str, np.ndarray]:
    """All arrays of Orbax items, on the host."""
    import jax

    arrays: dict[str, np.ndarray] = {}
    for name in names:
        item = absolute(folder) / name
        restored, problem = attempt(os.fspath(item), functools.partial(_restore, item))
        if problem:
            raise ValueError(f"{os.fspath(item)} cannot be read: {problem}")
        leaves = jax.tree_util.tree_leaves_with_path(restored)
        for path, leaf in leaves:
            arrays[f"{name}/{_path_of(jax.tree_util.keystr(path))}"] = np.asarray(leaf)
    return arrays


def _restore(item: epath.Path) -> Any:
    import jax
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(item).tree
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=on_host))


def _verify(
    folder: epath.Path, arrays: Mapping[str, np.ndarray], checksums: Mapping[str, int]
) -> None:
    if missing := sorted(checksums.keys() ^ arrays.keys()):
        raise ValueError(f"{os.fspath(folder)} is damaged: missing or unknown {', '.join(missing)}")
    wrong = [path for path, array in arrays.items() if fingerprint(array) != checksums[path]]
    if wrong:
        raise ValueError(f"{os.fspath(folder)} is damaged, checksums differ: {', '.join(wrong)}")
