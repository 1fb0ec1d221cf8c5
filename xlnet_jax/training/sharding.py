"""The one file that names mesh axes: where arrays live and how batches are cut over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh() -> Mesh:
    """A mesh of all devices along the batch."""
    return Mesh(np.array(jax.devices()), (DATA,))


def check_batch_size(key: str, size: int, rows_per_group: int, accumulation_steps: int) -> None:
    """Raises ValueError if a batch cannot be cut evenly over devices and accumulation steps.

    `key` is the config key that says the size.
    """
    devices = jax.device_count()
    parts = devices * accumulation_steps * rows_per_group
    if size % parts:
        factors = [f"{devices} {'device' if devices == 1 else 'devices'}"]
        if accumulation_steps > 1:
            factors.append(f"{accumulation_steps} train.accumulation_steps")
        if rows_per_group > 1:
            factors.append(f"{rows_per_group} (data.bi_data pairs rows)")
        raise ValueError(f"{key} must be a multiple of {parts} = {' × '.join(factors)}, got {size}")


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: parameters, optimizer state, counters."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Cut along axis 0: batches."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def memory_sharding(mesh: Mesh) -> NamedSharding:
    """Cut along axis 1: memory [Y, B, M, D]; a row's memory stays with its stream."""
    return NamedSharding(mesh, PartitionSpec(None, DATA))


def local_rows(mesh: Mesh, global_batch_size: int) -> slice:
    """The rows of the global batch that this process feeds to its devices."""
    per_process = global_batch_size // mesh.devices.size * len(mesh.local_devices)
    first = jax.process_index() * per_process
    return slice(first, first + per_process)


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Local rows of every process -> arrays of the global batch, on the devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def fetch(array: jax.Array) -> np.ndarray:
    """The whole of an array as numpy, on every process."""
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
