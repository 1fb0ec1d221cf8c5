"""The one file that names mesh axes: where arrays live and how batches are cut over processes.

A mesh has three axes. `data` cuts the batch. `fsdp` cuts the batch as well, and with it parameters
and optimizer state, each parameter being gathered for the moment of its use (ZeRO, stage 3).
`model` cuts attention heads, the inner feed-forward and the vocabulary. Which axis of an array
that means is said by letters, those of the legend in `model/transformer.py`, in the two tables
below. The rest is up to XLA, which adds what communication this needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlnet_jax.model import layout, parameter_axes
from xlnet_jax.model.config import XLNetConfig

T = TypeVar("T")

DATA, FSDP, MODEL = AXES = ("data", "fsdp", "model")

# Axis letter -> the mesh axes that cut it.
PARAMETERS: Mapping[str, str] = {"D": FSDP, "N": MODEL, "F": MODEL, "V": MODEL}
ACTIVATIONS: Mapping[str, str | tuple[str, ...]] = {
    "B": (DATA, FSDP),
    "b": (DATA, FSDP),
    "N": MODEL,
    "F": MODEL,
    "V": MODEL,
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Section `mesh` of a config: how many devices along each axis. One may be -1: the rest.

    Attributes:
        data: the batch is cut.
        fsdp: the batch is cut, and parameters and optimizer state with it.
        model: attention heads, the inner feed-forward and the vocabulary are cut.
        processes: how many processes (hosts) must take part; 0 for any number.
    """

    data: int = -1
    fsdp: int = 1
    model: int = 1
    processes: int = 0

    def __post_init__(self) -> None:
        for name in AXES:
            size = getattr(self, name)
            if size < 1 and size != -1:
                raise ValueError(f"mesh.{name} must be at least 1, or -1 for the rest, got {size}")
        if [self.data, self.fsdp, self.model].count(-1) > 1:
            raise ValueError(f"only one axis of config.mesh may be -1 (the rest), got {self.shown}")
        if self.processes < 0:
            raise ValueError(f"mesh.processes must be 0 or more, got {self.processes}")

    @property
    def shown(self) -> str:
        """The axes, for messages."""
        return ", ".join(f"{name} {getattr(self, name)}" for name in AXES)


def make_mesh(
    config: MeshConfig = MeshConfig(),
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh of all devices, or of the given ones (those of a slice that is not at hand, say).

    Raises ValueError if their number, or that of the processes, is not what the config wants.
    """
    if config.processes and devices is None and jax.process_count() != config.processes:
        raise ValueError(
            f"mesh.processes is {config.processes}, but {jax.process_count()} take part; start the"
            " same command on every host, or set --config.mesh.processes=0 for any number"
        )
    devices = jax.devices() if devices is None else devices
    shape = _shape(config, len(devices))
    in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
    plain = Mesh(np.array(in_order).reshape(shape), AXES)
    if devices[0].platform != "tpu":
        return plain
    try:
        near = mesh_utils.create_device_mesh(shape, in_order, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError, AssertionError):  # no such cut of this topology
        return plain
    mesh = Mesh(near, AXES)
    return mesh if _feeds_blocks(mesh) else plain


def _shape(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
    sizes = [config.data, config.fsdp, config.model]
    fixed = int(np.prod([size for size in sizes if size != -1]))
    rest, remainder = divmod(num_devices, fixed)
    devices = f"{num_devices} {'device' if num_devices == 1 else 'devices'}"
    if -1 in sizes and (remainder or rest == 0):
        raise ValueError(
            f"config.mesh is {config.shown}: {devices} cannot be cut into {fixed}; wanted axes"
            f" whose product divides {num_devices}"
        )
    if -1 not in sizes and num_devices != fixed:
        raise ValueError(
            f"config.mesh is {config.shown}: {fixed} in all, but there are {devices}; wanted a"
            f" product of {num_devices}, or -1 (the rest) for one axis"
        )
    return tuple(rest if size == -1 else size for size in sizes)


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the mesh cuts the batch."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def check_batch_size(
    key: str, size: int, rows_per_group: int, accumulation_steps: int, mesh: Mesh | None = None
) -> None:
    """Raises ValueError if a batch cannot be cut evenly over the mesh and accumulation steps.

    `key` is the config key that says the size; without a mesh all devices cut the batch.
    """
    cuts = jax.device_count() if mesh is None else batch_shards(mesh)
    parts = cuts * accumulation_steps * rows_per_group
    if size % parts:
        factors = [f"{cuts} {'device' if cuts == 1 else 'devices'}"]
        if mesh is not None and mesh.size > cuts:
            factors = [f"{cuts} (mesh.data {mesh.shape[DATA]} × mesh.fsdp {mesh.shape[FSDP]})"]
        if accumulation_steps > 1:
            factors.append(f"{accumulation_steps} train.accumulation_steps")
        if rows_per_group > 1:
            factors.append(f"{rows_per_group} (data.bi_data pairs rows)")
        raise ValueError(f"{key} must be a multiple of {parts} = {' × '.join(factors)}, got {size}")


def check_network(network: XLNetConfig, mesh: Mesh) -> None:
    """Raises ValueError if an axis of the mesh has nothing that it could cut evenly."""
    for axis, key, size in (
        (MODEL, "n_head", network.n_head),
        (MODEL, "d_inner", network.d_inner),
        (FSDP, "d_model", network.d_model),
    ):
        if size % mesh.shape[axis]:
            raise ValueError(
                f"mesh.{axis} is {mesh.shape[axis]}, which does not divide model.{key} = {size};"
                f" set --config.mesh.{axis} to a divisor, and leave the rest to mesh.data = -1"
            )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: counters, sums."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Cut along axis 0: batches."""
    return NamedSharding(mesh, PartitionSpec(ACTIVATIONS["B"]))


def memory_sharding(mesh: Mesh) -> NamedSharding:
    """Cut along axis 1: memory [Y, B, M, D]; a row's memory stays with its stream."""
    return NamedSharding(mesh, PartitionSpec(None, ACTIVATIONS["B"]))


def params_shardings(params: Any, mesh: Mesh) -> Any:
    """Where parameters (arrays or shapes) live: the same tree, of shardings.

    An axis that the mesh does not divide evenly stays whole, and so do vectors of width D, which
    cost more to gather than to keep.

    Raises ValueError for a parameter that `model/parameter_axes.py` does not name.
    """
    if mesh.shape[FSDP] == mesh.shape[MODEL] == 1:
        return jax.tree.map(lambda _: replicated(mesh), params)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _parameter_sharding("/".join(_names(path)), leaf.shape, mesh), params
    )


def _parameter_sharding(path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    letters = parameter_axes.axes_of(path, len(shape))
    if letters.removeprefix("Y") == "D":
        return replicated(mesh)
    axes = [PARAMETERS.get(letter) for letter in letters]
    return NamedSharding(
        mesh,
        PartitionSpec(
            *(
                axis if axis is not None and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, shape, strict=True)
            )
        ),
    )


def optimizer_shardings(opt_state: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Moments live where their parameters do, the rest of an optimizer's state everywhere."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    places = {
        _names(path): (leaf.shape, place)
        for (path, leaf), place in zip(flat, jax.tree.leaves(shardings), strict=True)
    }

    def place_of(path: Any, leaf: Any) -> NamedSharding:
        names = _names(path)
        for start in range(len(names)):
            shape, place = places.get(names[start:], (None, None))
            if place is not None and shape == leaf.shape:
                return place
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place_of, opt_state)


def _names(path: Any) -> tuple[str, ...]:
    return tuple(
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
    )


def activations_on(mesh: Mesh) -> contextlib.AbstractContextManager[None]:
    """While a function is traced in here, the model's activations are cut as the table says."""

    def axes(letters: str) -> PartitionSpec:
        return PartitionSpec(*(ACTIVATIONS.get(letter) for letter in letters))

    def cut(x: jax.Array, letters: str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, axes(letters)))

    def in_parts(function: Callable[..., T], inputs: Any, letters: Any, results: Any) -> T:
        arrays, tree = jax.tree.flatten(inputs)
        return jax.shard_map(
            lambda *arrays: function(*jax.tree.unflatten(tree, arrays)),
            mesh=mesh,
            in_specs=tuple(axes(of_array) for of_array in jax.tree.leaves(letters)),
            out_specs=jax.tree.map(axes, results),
            check_vma=False,
        )(*arrays)

    if mesh.size == 1:
        cpu_cores = (os.cpu_count() or 1) if mesh.devices.item().platform == "cpu" else 0
        return layout.cut_by(layout.Layout(cpu_cores=cpu_cores))
    return layout.cut_by(layout.Layout(cut, in_parts, cuts_parameters=mesh.shape[FSDP] > 1))


def on_mesh(function: Callable[..., T], mesh: Mesh) -> Callable[..., T]:
    """The same function, to be jitted, with the model's activations cut as the table says."""

    @functools.wraps(function)
    def laid_out(*args: Any) -> T:
        with activations_on(mesh):
            return function(*args)

    return laid_out


def local_rows(mesh: Mesh, global_batch_size: int) -> slice:
    """The rows of the global batch that this process feeds to its devices.

    Processes that share the devices of one row (along `model`) feed the same rows.
    """
    cuts = batch_sharding(mesh).addressable_devices_indices_map((global_batch_size,)).values()
    places = [cut[0].indices(global_batch_size) for cut in cuts if cut is not None]
    return slice(min(place[0] for place in places), max(place[1] for place in places))


def _feeds_blocks(mesh: Mesh) -> bool:
    """Whether the batch rows of every process lie side by side."""
    rows = mesh.devices.reshape(batch_shards(mesh), -1)
    for process in {device.process_index for device in mesh.devices.flat}:
        own = [any(device.process_index == process for device in row) for row in rows]
        places = np.flatnonzero(own)
        if places[-1] - places[0] + 1 != len(places):
            return False
    return True


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Local rows of every process -> arrays of the global batch, on the devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def place(tree: Any, shardings: Any) -> Any:
    """Whole numpy arrays, the same on every process -> arrays on the devices."""
    return jax.tree.map(
        lambda array, where: jax.make_array_from_callback(
            np.shape(array), where, lambda index: array[index]
        ),
        tree,
        shardings,
    )


def fetch(tree: Any) -> Any:
    """Arrays, however they are cut over devices and processes, as whole numpy arrays everywhere."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
