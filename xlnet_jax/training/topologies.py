"""TPU slices by their Cloud names, and what one device of each kind can do.

Cloud names count cores for v2, v3, v4 and v5p, chips for v5e and v6e. A device, as JAX counts, is a
core of v2 and v3 and a chip of the others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax

from xlnet_jax.training import tpu_library
from xlnet_jax.training.reporting import PEAK_FLOPS

_GIB = 2.0**30


class Device(NamedTuple):
    """Published figures of one device.

    Attributes:
        kind: as in `reporting.PEAK_FLOPS`.
        flops: bfloat16 peak, FLOP/s.
        hbm_bandwidth: bytes/s.
        hbm_limit: bytes that a program may use, as the compiler says.
        link_bandwidth: bytes/s in one direction, all links to other chips together.
        clock: Hz, of the compiler's cycle counts; 0 if unknown.
        per_chip: devices on one chip.
    """

    kind: str
    flops: float
    hbm_bandwidth: float
    hbm_limit: float
    link_bandwidth: float
    clock: float
    per_chip: int


def _tpu(
    kind: str, bandwidth: float, limit: float, links: float, clock: float, per_chip: int = 1
) -> Device:
    """GB/s, GiB, Gbit/s of a chip in both directions together, GHz."""
    one_way = links * 1e9 / 8 / 2 / per_chip
    return Device(
        kind, PEAK_FLOPS[kind], bandwidth * 1e9, limit * _GIB, one_way, clock * 1e9, per_chip
    )


# Bandwidths are those of Google's pages on each version, the limits those of the compiler.
DEVICES = {
    "v2": _tpu("TPU v2", 350, 7.48, 4 * 496, 0.70, per_chip=2),
    "v3": _tpu("TPU v3", 450, 15.48, 4 * 656, 0.94, per_chip=2),
    "v4": _tpu("TPU v4", 1228, 30.75, 2400, 1.05),
    "v5e": _tpu("TPU v5 lite", 819, 15.75, 1600, 1.5),
    "v5p": _tpu("TPU v5", 2765, 95.74, 4800, 1.75),
    "v6e": _tpu("TPU v6 lite", 1640, 31.25, 3584, 1.5),
}

_FLAT = {8: "2x2", 32: "4x4", 128: "8x8", 256: "8x16", 512: "16x16", 1024: "16x32", 2048: "32x32"}
_CHIPS = {
    1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16",
}  # fmt: skip
_SOLID = {
    8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8",
    1024: "8x8x8", 2048: "8x8x16",
}  # fmt: skip
TOPOLOGIES: dict[str, str] = {
    f"{version}-{size}": f"{version}:{shape}"
    for version, shapes in (
        ("v2", {size: shape for size, shape in _FLAT.items() if size <= 512}),
        ("v3", _FLAT),
        ("v4", _SOLID),
        ("v5e", _CHIPS),
        ("v5p", _SOLID),
        ("v6e", _CHIPS),
    )
    for size, shape in shapes.items()
}
# No GPUs: their programs make products in calls that `hlo_costs` cannot look into.
LOCAL = ("cpu",)


def check_name(name: str) -> None:
    """Raises ValueError, with the known names, for a slice that is none."""
    if name not in TOPOLOGIES and name not in LOCAL:
        by_version: dict[str, list[str]] = {}
        for known in TOPOLOGIES:
            version, _, size = known.partition("-")
            by_version.setdefault(version, []).append(size)
        listed = "; ".join(f"{version}-{{{', '.join(s)}}}" for version, s in by_version.items())
        raise ValueError(
            f"--topology={name}: unknown slice, wanted one of {listed}; or cpu (this machine)."
            " Cloud names count cores for v2, v3, v4 and v5p, chips for v5e and v6e"
        )


def devices_of(name: str) -> Sequence[jax.Device]:
    """The devices of a slice (without having one), or those of this machine.

    Raises ValueError for an unknown name, and where the compiler for TPU is missing or there is no
    such device here.
    """
    check_name(name)
    if name in LOCAL:
        try:
            return jax.devices(name)
        except RuntimeError as error:
            raise ValueError(f"--topology={name}: no such device on this machine") from error
    tpu_library.stay_offline()
    from jax.experimental import topologies

    options: dict[str, object] = {}
    if name.startswith("v4-"):
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device
    if name.endswith("-1"):
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(
            topology_name=TOPOLOGIES[name], platform="tpu", **options
        ).devices
    except RuntimeError as error:
        if "TPU support not installed" in str(error):
            raise ValueError(
                f"--topology={name} needs the TPU compiler, which is not installed; install it"
                " with: pip install 'xlnet-jax[tpu]' (it runs on any x86-64 Linux machine)"
            ) from error
        raise


def figures_of(name: str, devices: Sequence[jax.Device]) -> Device:
    """Published figures of a slice's devices; of this machine, measured ones."""
    if name not in LOCAL:
        return DEVICES[name.partition("-")[0]]
    return _measured(devices[0])


def _measured(device: jax.Device) -> Device:
    """What one local device reaches: a product, a copy; memory as the system says."""
    import time

    import jax.numpy as jnp

    from xlnet_jax.training import reporting

    copy = jax.jit(lambda x: x + 1.0)
    x = jax.device_put(jnp.zeros(1 << 24, jnp.float32), device)
    copy(x).block_until_ready()
    start = time.perf_counter()
    for _ in range(5):
        x = copy(x)
    x.block_until_ready()
    bandwidth = 5 * 2 * x.nbytes / (time.perf_counter() - start)
    count = len(jax.devices(device.platform))
    flops = reporting.peak_flops("float32")[0] / jax.device_count()
    # Devices of one host share its memory.
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count
    bandwidth /= count
    return Device(device.device_kind, flops, bandwidth, limit, bandwidth, 0.0, 1)
