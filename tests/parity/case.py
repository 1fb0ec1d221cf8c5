"""One comparison with the original's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """max |got - wanted| / max |wanted|, as the goldens' README asks; NaN or a shape is infinite."""
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
    name, (error, tolerance) = max(
        results.items(), key=lambda item: item[1][0] / item[1][1] if item[1][1] else item[1][0] * 1e9
    )
    return Result(error, tolerance, f"{len(results)} arrays, worst {name}{'; ' + note if note else ''}")
