"""Local copies of files in cloud storage, so that they can be memory-mapped."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from etils import epath


def local_copy(
    path: epath.PathLike, size: int | None = None, cache_dir: epath.PathLike | None = None
) -> Path:
    """A local path with the contents of `path`: itself, or a copy made once under `cache_dir`.

    The cache defaults to ~/.cache/xlnet_jax (or below XDG_CACHE_HOME), one folder per remote
    folder. A copy is moved into place when complete; one whose length is not `size` bytes, or
    whose source has changed since, is fetched again.

    Raises FileNotFoundError if the source does not exist, OSError if it cannot be copied.
    """
    source = epath.Path(path)
    if "://" not in os.fspath(source):
        return Path(source)
    folder = hashlib.sha256(os.fspath(source.parent).encode()).hexdigest()[:16]
    target = Path(cache_dir or default_cache()) / folder / source.name
    try:
        changed = source.stat().mtime
    except FileNotFoundError:
        raise FileNotFoundError(f"{source}: no such file") from None
    if target.exists():
        held = target.stat()
        if int(held.st_mtime) == changed and size in (None, held.st_size):
            return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=source.name, suffix=".partial", dir=target.parent)
    try:
        with source.open("rb") as reader, os.fdopen(handle, "wb") as writer:
            shutil.copyfileobj(reader, writer, length=1 << 24)
        os.utime(partial, (changed, changed))
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return target


def default_cache() -> Path:
    """Folder for copies of remote files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xlnet_jax"
