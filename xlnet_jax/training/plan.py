"""What a run will need and cost on a named slice, from the compiled train step alone.

The step is compiled for the slice's own devices, with none at hand, and read: memory from the
compiler's account, the rest by `hlo_costs`. A time is an estimate: every operation lasts as long as
its products at the device's peak or its bytes at the bandwidth of HBM, whichever is longer, and
communication is added to that as if nothing overlapped. Real steps take longer; how much is not
known here. `compiler_seconds` is the TPU compiler's own, more cautious count for the same step.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax

from xlnet_jax.training import hlo_costs, sharding, topologies
from xlnet_jax.training.plan_inputs import Planned, plan_inputs
from xlnet_jax.training.program import make_program
from xlnet_jax.training.topologies import Device

_GIB = 2.0**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's HBM.

    Attributes:
        arguments: parameters, optimizer state, memory, batch.
        temporaries: all that lives within a step.
        program: the code.
        limit: what there is.
    """

    arguments: float
    temporaries: float
    program: float
    limit: float

    @property
    def needed(self) -> float:
        """All together."""
        return self.arguments + self.temporaries + self.program

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.needed <= self.limit


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device does in one step.

    Attributes:
        flops: operations of matrix products.
        bytes: read from and written to HBM.
        flops_once, bytes_once: the same with every loop's body counted once, as XLA counts.
        collectives: kind -> bytes of results.
        compute_seconds, memory_seconds: sums over the operations that the one or the other bounds.
        collective_seconds: of communication.
        compiler_seconds: by the compiler's own count of cycles; 0 if it says nothing.
    """

    flops: float
    bytes: float
    flops_once: float
    bytes_once: float
    collectives: Mapping[str, float]
    compute_seconds: float
    memory_seconds: float
    collective_seconds: float
    compiler_seconds: float

    @property
    def seconds(self) -> float:
        """The estimate of a step's time."""
        return self.compute_seconds + self.memory_seconds + self.collective_seconds

    @property
    def bound(self) -> str:
        """Which limit takes most of the time."""
        parts = {
            "compute": self.compute_seconds,
            "hbm_bandwidth": self.memory_seconds,
            "interconnect": self.collective_seconds,
        }
        return max(parts, key=lambda name: parts[name])


@dataclasses.dataclass(frozen=True)
class Plan:
    """One compiled step on one slice; `work` is None if it does not fit."""

    planned: Planned
    topology: str
    device: Device
    mesh: Mapping[str, int]
    memory: Memory
    work: Work | None
    compile_seconds: float

    @property
    def rows(self) -> int:
        """Batch rows of one device at a time."""
        train, mesh = self.planned.settings.train, self.mesh
        return train.batch_size // (mesh["data"] * mesh["fsdp"] * train.accumulation_steps)

    def report(self) -> dict[str, Any]:
        """Plain values, for JSON; what follows from a step's time is None if it does not fit."""
        settings, work, memory = self.planned.settings, self.work, self.memory
        devices = math.prod(self.mesh.values())
        batch = settings.train.batch_size
        useful = batch * self.planned.useful_flops
        seconds = work.seconds if work else None
        hours = seconds * self.planned.steps / 3600 if seconds and self.planned.steps else None
        return {
            "hbm_gib_per_core": memory.needed / _GIB,
            "hbm_limit_gib": memory.limit / _GIB,
            "flops_per_core": work.flops if work else None,
            "bytes_per_core": work.bytes if work else None,
            "collective_bytes_per_core": sum(work.collectives.values()) if work else None,
            "step_seconds": seconds,
            "sequences_per_second": batch / seconds if seconds else None,
            "mfu": useful / (seconds * devices * self.device.flops) if seconds else None,
            "run_hours": hours,
            "chip_hours": hours * devices / self.device.per_chip if hours else None,
            "bound": work.bound if work else "hbm_capacity",
            "detail": self._detail(devices),
        }

    def _detail(self, devices: int) -> dict[str, Any]:
        settings, work, memory = self.planned.settings, self.work, self.memory
        detail: dict[str, Any] = {
            "topology": self.topology,
            "device": self.device.kind,
            "devices": devices,
            "mesh": dict(self.mesh),
            "batch_size": settings.train.batch_size,
            "rows_per_core": self.rows,
            "accumulation_steps": settings.train.accumulation_steps,
            "remat": settings.run.remat,
            "dtype": settings.run.dtype,
            "arguments_gib": memory.arguments / _GIB,
            "temporaries_gib": memory.temporaries / _GIB,
            "program_gib": memory.program / _GIB,
            "exceeds_by_gib": max(0.0, memory.needed - memory.limit) / _GIB,
            "useful_flops_per_sequence": self.planned.useful_flops,
            "run_steps": self.planned.steps,
            "compile_seconds": self.compile_seconds,
        }
        if work:
            detail |= dataclasses.asdict(work)
        return detail


def make_plan(
    config: Mapping[str, Any],
    topology: str,
    *,
    vocab_size: int | None = None,
    length: int | None = None,
    rows: int | None = None,
) -> Plan:
    """Compiles the train step of a config for a slice.

    `vocab_size` counts if the config leaves it open; `length` replaces the config's; `rows`, those
    of a device at a time, replaces the config's batch size.

    Raises ValueError for wrong input.
    """
    devices = topologies.devices_of(topology)
    mesh = sharding.make_mesh(sharding.MeshConfig(**{**config["mesh"], "processes": 0}), devices)
    if rows is not None:
        parts = sharding.batch_shards(mesh) * config["train"]["accumulation_steps"]
        config = {**config, "train": {**config["train"], "batch_size": rows * parts}}
    planned = plan_inputs(config, vocab_size, length)
    train = planned.settings.train
    sharding.check_batch_size(
        "train.batch_size",
        train.batch_size,
        planned.task.rows_per_group,
        train.accumulation_steps,
        mesh,
    )
    device = topologies.figures_of(topology, devices)
    program = make_program(planned.settings, planned.task, mesh)
    arguments = sum(map(_local_bytes, jax.tree.leaves(program.state)))
    cuts = sharding.batch_shards(mesh)
    arguments += sum(x.size * x.dtype.itemsize // cuts for x in planned.batch.values())
    start = time.perf_counter()
    try:
        compiled = program.lower(planned.batch).compile()
    except jax.errors.JaxRuntimeError as error:
        needed, limit = read_exhaustion(str(error), arguments)
        memory = Memory(arguments, needed - arguments, 0.0, limit)
        work = None
    else:
        found = compiled.memory_analysis()
        outputs = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
        memory = Memory(
            found.argument_size_in_bytes,
            found.temp_size_in_bytes + outputs,
            found.generated_code_size_in_bytes,
            device.hbm_limit,
        )
        work = measure(compiled.as_text(), device, mesh.size)
    seconds = time.perf_counter() - start
    return Plan(planned, topology, device, dict(mesh.shape), memory, work, seconds)


def _local_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
    return math.prod(shape) * leaf.dtype.itemsize


def read_exhaustion(message: str, arguments: float) -> tuple[float, float]:
    """(bytes needed, bytes there are) from the compiler's complaint about memory.

    It comes in two forms: all together, or temporaries that by themselves are too many.

    Raises ValueError with the compiler's first line if it complains of something else.
    """
    number = r"([\d.]+)([KMGT]?)"
    if found := re.search(rf"Used {number}i?B? of {number}i?B? hbm", message):
        return _size(*found.groups()[:2]), _size(*found.groups()[2:])
    pattern = rf"temporaries \({number}\) exceeds available HBM \({number}\)"
    if found := re.search(pattern, message):
        return _size(*found.groups()[:2]) + arguments, _size(*found.groups()[2:])
    if found := re.search(rf"\({number}\) exceeds available HBM \({number}\)", message):
        return max(arguments, _size(*found.groups()[:2])), _size(*found.groups()[2:])
    raise ValueError(f"the compiler says: {message.splitlines()[0] if message else 'nothing'}")


def _size(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]


def measure(text: str, device: Device, devices: int) -> Work:
    """Adds up a compiled program."""
    flops = bytes_ = flops_once = bytes_once = compute = memory = cycles = 0.0
    collectives: Counter[str] = Counter()
    seconds = 0.0
    for cost in hlo_costs.Program(text).costs():
        if kind := hlo_costs.collective_kind(cost.operation):
            size = cost.operation.result_bytes
            collectives[kind] += size * cost.times
            seconds += collective_seconds(kind, size, device, devices) * cost.times
            continue
        flops, flops_once = flops + cost.flops * cost.times, flops_once + cost.flops
        bytes_, bytes_once = bytes_ + cost.bytes * cost.times, bytes_once + cost.bytes
        cycles += cost.operation.cycles * cost.times
        product, traffic = cost.flops / device.flops, cost.bytes / device.hbm_bandwidth
        if product > traffic:
            compute += product * cost.times
        else:
            memory += traffic * cost.times
    return Work(
        flops, bytes_, flops_once, bytes_once, dict(collectives), compute, memory, seconds,
        cycles / device.clock if device.clock else 0.0,
    )  # fmt: skip


def collective_seconds(kind: str, result_bytes: float, device: Device, devices: int) -> float:
    """Time of one collective among all devices along rings that use all links of a device.

    An upper bound where only some take part, and for what the compiler overlaps with other work.
    """
    share = (devices - 1) / devices
    moved = {
        "all-reduce": 2 * share,
        "all-gather": share,
        "reduce-scatter": devices * share,  # its result is one part
        "all-to-all": share,
    }.get(kind, 1.0)
    return moved * result_bytes / device.link_bandwidth
