"""What all processes of a run decide alike, though they may see different things."""

from __future__ import annotations

import secrets
import time
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

_MOST_BYTES = 1024  # of a line that is sent around
_MOST_NUMBERS = 4096
_PATIENCE = 20.0  # seconds; network file systems take a moment


def of_process_0(numbers: list[int]) -> list[int]:
    """The numbers that process 0 has, at most a few thousand of them."""
    if jax.process_count() == 1:
        return numbers
    padded = np.full(_MOST_NUMBERS, -1, np.int32)
    padded[: len(numbers)] = numbers[:_MOST_NUMBERS]
    everywhere = multihost_utils.broadcast_one_to_all(padded)
    return [int(number) for number in everywhere if number >= 0]


def first_problem(result: Any) -> str:
    """The line of the first process whose `result` is a line of text; "" if none is."""
    own = result if isinstance(result, str) else ""
    if jax.process_count() == 1:
        return own
    data = own.encode()[:_MOST_BYTES]
    padded = np.zeros(_MOST_BYTES, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    lines = multihost_utils.process_allgather(padded)
    for process, line in enumerate(np.asarray(lines)):
        if line.any():
            text = line.tobytes().rstrip(b"\0").decode(errors="ignore")
            return f"{text} (on process {process})"
    return ""


def check_shared(folder: str) -> None:
    """Raises ValueError on a process for which `folder` is another one than for process 0."""
    if jax.process_count() == 1:
        return
    token = str(multihost_utils.broadcast_one_to_all(np.int32(secrets.randbits(31))))
    path = epath.Path(folder) / ".seen_by_all"
    if jax.process_index() == 0:
        path.write_text(token)
    multihost_utils.sync_global_devices("written for all to see")
    deadline = time.monotonic() + _PATIENCE
    while not (path.exists() and path.read_text() == token):
        if time.monotonic() > deadline:
            raise ValueError(
                f"--workdir={folder} is not the folder that process 0 sees under that name; give"
                " one that all hosts share (gs:// or a shared file system)"
            )
        time.sleep(0.2)
    multihost_utils.sync_global_devices("seen by all")
    if jax.process_index() == 0:
        path.unlink()
