"""One program on many hosts: who takes part, that all run the same, and that all stop together.

On a Cloud TPU slice of several hosts each process finds its place in the slice's metadata; anywhere
else the flags --coordinator, --num_processes and --process_id say it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import traverse_util

from xlnet_jax.training import roll_call, tpu_library
from xlnet_jax.training.roll_call import Place

PORT = 8476  # of process 0, open between the hosts of a run; no other port needs to be
_JAX_SILENCE = 50  # seconds; JAX's own watch, which ends a process the hard way, comes last
_PACKAGES = (
    "flax", "jax", "jaxlib", "libtpu", "numpy", "optax", "orbax-checkpoint", "sentencepiece",
    "tensorflow", "tensorflow-cpu", "xlnet-jax",
)  # fmt: skip


def find_place(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Place | None:
    """Where this process stands: from the flags, else from a TPU slice; None if it is alone.

    Raises ValueError if flags are missing or do not fit each other.
    """
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    if missing := [name for name, value in flags.items() if value is None]:
        if len(missing) < len(flags):
            given = [name for name in flags if name not in missing]
            raise ValueError(f"{', '.join(given)} needs {' and '.join(missing)} too")
        return _tpu_place() if _has_tpu() else None
    assert coordinator is not None
    assert num_processes is not None
    assert process_id is not None
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id} must be at least 0 and below --num_processes"
            f"={num_processes}"
        )
    host, colon, port = coordinator.rpartition(":") if ":" in coordinator else (coordinator, "", "")
    if not host or (colon and not port.isdecimal()):
        raise ValueError(f"--coordinator={coordinator}: wanted HOST or HOST:PORT")
    return Place(host, int(port or PORT), num_processes, process_id)


def _has_tpu() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS", "tpu").split(",")
    installed = importlib.util.find_spec("libtpu") is not None
    return "tpu" in platforms and tpu_library.has_chips() and installed


def _tpu_place() -> Place | None:
    """From Kubernetes' variables or the metadata server; None on a slice of one host."""
    if "TPU_WORKER_HOSTNAMES" in os.environ:
        hosts = tuple(os.environ["TPU_WORKER_HOSTNAMES"].split(","))
        worker = int(os.environ.get("TPU_WORKER_ID", "0"))
    else:
        try:
            # One "HOST" or "NAME:ID:HOST" a worker, in the order of their numbers.
            hosts = tuple(
                w.split(":")[-1] for w in _metadata("worker-network-endpoints").split(",")
            )
            worker = int(_metadata("agent-worker-number"))
        except (OSError, ValueError):
            return None  # no slice of Cloud TPU
    return Place(hosts[0], PORT, len(hosts), worker, hosts) if len(hosts) > 1 else None


def _metadata(key: str) -> str:
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{server}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def session(
    place: Place | None,
    config: Mapping[str, Any],
    *,
    workdir: str,
    timeout: float,
    exit_status: Callable[[BaseException], int],
) -> Iterator[None]:
    """All processes go in together and come out together.

    Inside, JAX sees the devices of all. If one fails, all end, each with a message. `exit_status`
    says with which status an exception ends this process.

    Raises ValueError if config or versions differ between hosts, or `mesh.processes` is another
    number; TimeoutError that names who has not come within `timeout` seconds.
    """
    _check_count(config, place)
    if place is None:
        yield
        return
    watch = roll_call.meet(place, _claim(place, config, workdir), timeout)
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            cluster_detection_method="deactivate",
            initialization_timeout=round(timeout),
            heartbeat_timeout_seconds=_JAX_SILENCE,
            shutdown_timeout_seconds=_JAX_SILENCE,
        )
        yield
        watch.finish()
    except BaseException as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            time.sleep(roll_call.GRACE)  # if another process is the cause, the watch ends this one
        watch.fail(_one_line(error))
        _leave_at_exit(exit_status(error))
        raise
    jax.distributed.shutdown()


def keep_sigterm() -> None:
    """SIGTERM does again what it did before JAX took it for a notice to save and stop."""
    if callable(handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, handler)


def _check_count(config: Mapping[str, Any], place: Place | None) -> None:
    wanted = config.get("mesh", {}).get("processes", 0)
    there = place.num_processes if place else 1
    if wanted and wanted != there:
        raise ValueError(
            f"config.mesh.processes is {wanted}, but {there} take part (--num_processes, or the"
            " hosts of the TPU slice); start as many, or set --config.mesh.processes=0 for any"
            " number"
        )


def _claim(place: Place, config: Mapping[str, Any], workdir: str) -> dict[str, str]:
    """What must be the same on all hosts."""
    claim = {"--num_processes": str(place.num_processes), "--workdir": workdir}
    claim["python"] = ".".join(platform.python_version_tuple()[:2])
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            claim[f"package {name}"] = importlib.metadata.version(name)
    flat = traverse_util.flatten_dict({"config": dict(config)}, sep=".")
    return claim | {key: json.dumps(value) for key, value in flat.items()}


def _one_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0][:300]
    kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    return f"{kind}{text}" if text else type(error).__name__


def _leave_at_exit(status: int) -> None:
    """Skips JAX's own farewell, which waits for processes that are no more."""

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    atexit.register(leave)
