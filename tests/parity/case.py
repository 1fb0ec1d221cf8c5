"""One comparison with the original's numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Result:
    """`error` is relative to the largest value, or a count of differing items (tolerance 0)."""

    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.tolerance)  # False for NaN


@dataclass(frozen=True)
class Case:
    """`run` is None for what the runner doesn't know; `reason` says why."""

    name: str
    run: Callable[[], Result] | None
    reason: str = ""


def unreadable(name: str, reason: str) -> Case:
    """A case of a known kind that cannot be run: it fails."""
    return Case(name, lambda: Result(float("inf"), 0.0, reason))


def listed(name: str, cases: Callable[[], Iterable[Case]]) -> Iterator[Case]:
    """The cases; where listing them breaks off, one named `name` that fails with the error."""
    try:
        yield from cases()
    except Exception as error:
        yield unreadable(name, f"{type(error).__name__}: {error}")


def unlisted(name: str, archive: Path, cases: Collection[str]) -> Iterator[Case]:
    """What an archive of arrays <case>/<array> holds beside the cases that meta.json lists."""
    if not archive.exists():
        return
    with np.load(archive) as arrays:
        found = dict.fromkeys(key.partition("/")[0] for key in arrays)
    for case in found:
        if case not in cases:
            yield Case(f"{name}/{case}", None, f"in {archive.name}, but not in meta.json")


def relative_error(got: npt.ArrayLike, wanted: npt.ArrayLike, scale: float = 0.0) -> float:
    """max |got - wanted| / max |wanted|, as the goldens' README asks; inf for NaN or a shape.

    `scale` stands for max |wanted| if given.
    """
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    error = np.abs(got - wanted).max() / (scale or max(np.abs(wanted).max(), 1e-30))
    return float(error) if np.isfinite(error) else float("inf")


def worst(results: dict[str, tuple[float, float]], note: str = "") -> Result:
    """The result of several comparisons name -> (error, tolerance): the one nearest its limit."""
    if not results:
        return Result(float("inf"), 0.0, "nothing was compared")

    def badness(name: str) -> float:
        error, tolerance = results[name]
        return error / tolerance if tolerance else error * 1e9

    name = max(results, key=badness)
    text = f"{len(results)} arrays, worst {name}"
    return Result(*results[name], f"{text}; {note}" if note else text)
