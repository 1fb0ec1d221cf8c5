"""The mean of several checkpoints, as the original's `avg_checkpoints` makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np


def mean_of(
    paths: Sequence[str], read: Callable[[str], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Element by element mean of the arrays of several checkpoints, read one after another.

    Sums are float64; the mean has the type of the first checkpoint. Of one checkpoint it is that
    checkpoint, bit for bit.

    Raises ValueError if they do not hold the same names and shapes.
    """
    first = read(paths[0])
    if len(paths) == 1:
        return dict(first)
    sums = {name: array.astype(np.float64) for name, array in first.items()}
    for path in paths[1:]:
        arrays = read(path)
        odd = {(n, a.shape) for n, a in arrays.items()} ^ {(n, a.shape) for n, a in sums.items()}
        if odd:
            listed = ", ".join(f"{name} {shape}" for name, shape in sorted(odd))
            raise ValueError(f"{paths[0]} and {path} differ in their variables: {listed}")
        for name, array in arrays.items():
            sums[name] += array
    return {name: (sums[name] / len(paths)).astype(first[name].dtype) for name in first}
