"""The one file that names mesh axes: where arrays live and how batches are cut over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"


def make_mesh(global_batch_size: int, rows_per_group: int, accumulation_steps: int) -> Mesh:
    """A mesh of all devices along the batch.

    Raises ValueError if the batch cannot be cut evenly over devices and accumulation steps.
    """
    devices = jax.devices()
    parts = len(devices) * accumulation_steps * rows_per_group
    if global_batch_size % parts:
        pairs = f" × {rows_per_group} (data.bi_data pairs rows)" if rows_per_group > 1 else ""
        raise ValueError(
            f"train.batch_size must be a multiple of {parts} = {len(devices)} devices ×"
            f" {accumulation_steps} train.accumulation_steps{pairs}, got {global_batch_size}"
        )
    return Mesh(np.array(devices), (DATA,))


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
