"""One comparison with the original's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """`run` is None for a case that cannot be run yet; `reason` says why."""

    name: str
    run: Callable[[], Result] | None
    reason: str = ""


def relative_error(got: npt.ArrayLike, wanted: npt.ArrayLike) -> float:
    """max |got - wanted| / max |wanted|, as the goldens' README asks; inf for NaN or a shape."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30)
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
