"""Programs under measurement, each in a process of its own, that take turns."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from xlnet_jax import host_memory

Measurements = Mapping[str, Callable[[], float]]


def positive(text: str) -> int:
    """A flag's value, a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted at least 1, got {value}")
    return value


def add_allocator_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that `set_allocator` reads."""
    parser.add_argument(
        "--same-allocator",
        action="store_true",
        help="the peer too keeps freed memory, which it does not do as it is installed",
    )


def set_allocator(args: argparse.Namespace) -> None:
    """Lets this process keep freed memory as the verbs do, unless it is the peer as installed."""
    if args.serve != "peer":
        host_memory.keep_memory_of_steps()
    elif args.same_allocator:
        host_memory.keep_freed_memory()


def serve(measurements: Measurements) -> None:
    """The child: answers every line of input, the name of a measurement, with its value."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(measurements[line.strip()](), flush=True)


class Child:
    """A program that runs `serve`; see `start`."""

    def __init__(self, module: str, which: str):
        command = [sys.executable, "-m", module, *sys.argv[1:], f"--serve={which}"]
        # Programs that share a GPU take memory as they need it.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def wait_until_ready(self) -> None:
        """Returns once it has warmed up."""
        self._line()

    def ask(self, what: str) -> float:
        """One measurement."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """Ends the program."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a measured program ended with status {self.process.wait()}")
        return line


def start(module: str, names: Sequence[str]) -> dict[str, Child]:
    """Programs MODULE with this process's flags and --serve=NAME; they warm up side by side."""
    children = {name: Child(module, name) for name in names}
    for child in children.values():
        child.wait_until_ready()
    return children


def torch_matrix_rate(dtype: str, device: str, size: int) -> float:
    """FLOP/s of PyTorch's matrix product: the best of a few tries."""
    import time

    import torch

    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
