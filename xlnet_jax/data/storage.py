"""Files that appear whole or not at all."""

import contextlib
import gc
import json
import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from etils import epath

T = TypeVar("T")
# What Python and Orbax raise of wrong content. TensorStore raises ValueError for all it meets, with
# the name of an Abseil status at the start of the text: DATA_LOSS, OUT_OF_RANGE, NOT_FOUND or none
# at all where files are damaged or missing, and these where a disk or a service gave no answer.
_DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError,
    FileNotFoundError, IsADirectoryError, NotADirectoryError,
)  # fmt: skip
_NO_ANSWER = (
    "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE", "UNKNOWN",
)  # fmt: skip
TEMPORARY = ".unfinished-"  # a name with this prefix is never read, and swept at the next start


def is_local(path: epath.Path) -> bool:
    """Whether a path is on a disk of this machine rather than in a bucket."""
    return "://" not in os.fspath(path)


def absolute(path: str | os.PathLike[str]) -> epath.Path:
    """The path from the root, as Orbax wants paths; a place in a bucket as it is."""
    place = epath.Path(path)
    return epath.Path(os.path.abspath(place)) if is_local(place) else place


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of a file; raises FileNotFoundError if there is none.

    On a disk not by `epath`, whose `stat` fails for files of a user whom the system has no name
    for, as in many containers.
    """
    place = epath.Path(path)
    return os.path.getsize(place) if is_local(place) else int(place.stat().length)


def read_object(path: epath.Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises FileNotFoundError if there is no file, ValueError naming it if it holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{os.fspath(path)}: wanted a JSON object, got {type(values).__name__}")
    return values


def write_atomic(path: epath.Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file that readers see complete or not at all, even after a power cut.

    On a local disk: temporary name, fsync, rename. On a bucket an object appears when its upload
    is complete. Raises OSError that names the file.
    """
    path = epath.Path(path)
    if not is_local(path):
        try:
            with path.open("wb") as file:
                for chunk in chunks:
                    file.write(bytes(chunk))
        except BaseException:  # closing the file has uploaded what there was of it
            path.unlink(missing_ok=True)
            raise
        return
    final = os.fspath(path)
    folder, name = os.path.split(final)
    temporary = os.path.join(folder, f"{TEMPORARY}{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
        _sync_folder(folder or ".")
    except OSError as error:
        raise OSError(error.errno, f"cannot write ({error.strerror})", final) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: epath.Path, flag: str) -> None:
    """Makes a folder and proves that it can be written; `flag` is named if it can't."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"{TEMPORARY}probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write there ({reason}; {flag})", str(path)) from error


def sweep_unfinished(path: epath.Path) -> int:
    """Removes what killed writers left in a folder; returns how many files."""
    left = [entry for entry in path.iterdir() if entry.name.startswith(TEMPORARY)]
    for entry in left:
        entry.unlink(missing_ok=True)
    return len(left)


@contextlib.contextmanager
def only_writer(path: epath.Path) -> Iterator[None]:
    """Holds a folder for one writing process; a second one gets a ValueError (local disks only)."""
    if not is_local(path):
        yield
        return
    import fcntl

    with open(os.path.join(os.fspath(path), ".writer.lock"), "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is writing to {os.fspath(path)}") from error
        yield


def attempt(what: str, read: Callable[[], T]) -> tuple[T | None, str]:
    """What `read` gives, and ""; or None and, in one line, how the files of `what` are damaged.

    For reading checkpoints: Orbax drops its other reads where one fails, and what Python and Orbax
    log of that helps nobody.

    Raises OSError, also one line, for what need not mean damage: no answer, no permission.
    """
    problem, no_answer = "", False
    with _quiet_reads():
        try:
            return read(), ""
        except Exception as error:  # noqa: BLE001, Orbax and TensorStore raise of many kinds
            cause = _cause(error)
            text = str(cause).strip().split("\n")[0]
            problem = f"{type(cause).__name__}: {text[:300]}"
            no_answer = not isinstance(cause, _DAMAGE) or text.startswith(_NO_ANSWER)
        # Waits for the dropped reads, each of which complains to an event loop that is gone.
        time.sleep(0.5)
        gc.collect()
    if no_answer:
        raise OSError(
            f"{what} cannot be read, and need not be damaged: {problem}. Fix the cause, then run"
            " the same command again; or move it away to do without it"
        )
    return None, problem


def _cause(error: BaseException) -> BaseException:
    """What Orbax hides in a plain Exception of its own, which begins with a whole specification."""
    while type(error) is Exception and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet_reads() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    previous = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        dropped_read = "coroutine" in type(unraisable.object).__name__
        if not dropped_read and "Event loop is closed" not in str(unraisable.exc_value):
            previous(unraisable)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        sys.unraisablehook = hook
        try:
            yield
        finally:
            sys.unraisablehook = previous
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
