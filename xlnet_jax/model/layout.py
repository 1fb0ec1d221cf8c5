"""Names for the axes of arrays, so that whoever lays them out over devices can cut them.

Without `cut_by` around it, nothing is cut.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Array, Float

T = TypeVar("T")


def _whole(x: Array, letters: str) -> Array:
    return x


def _at_once(function: Callable[..., T], inputs: Any, letters: Any, result_letters: Any) -> T:
    return function(*inputs)


class Layout(NamedTuple):
    """How arrays are laid out.

    Attributes:
        cut: (array, letters of its axes) -> the same array, its parts told where to live.
        in_parts: see the function of this name.
        cuts_parameters: parameters are kept in parts and brought together where they are used.
        cpu_cores: see the function of this name.
    """

    cut: Callable[[Array, str], Array] = _whole
    in_parts: Callable[..., Any] = _at_once
    cuts_parameters: bool = False
    cpu_cores: int = 0


_UNCUT = Layout()
_layout: contextvars.ContextVar[Layout] = contextvars.ContextVar("layout", default=_UNCUT)


@contextlib.contextmanager
def cut_by(layout: Layout) -> Iterator[None]:
    """What is traced inside is laid out so."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def named(x: Float[Array, "..."], letters: str) -> Float[Array, "..."]:
    """x, an activation or a parameter about to be used, whose axes have these letters.

    The legend of letters is in `transformer.py`.
    """
    return _layout.get().cut(x, letters)


def in_parts(function: Callable[..., T], inputs: Any, letters: Any, result_letters: Any) -> T:
    """function(*inputs), where each device sees its own part of the arrays alone.

    For a function that treats all indices of the cut axes alike, and uses operations for which a
    compiler would bring the parts together. Letters come in trees like those of the arrays.
    """
    return _layout.get().in_parts(function, inputs, letters, result_letters)


def cuts_parameters() -> bool:
    """Whether a layer should be run under `keep_all_but_cuts`."""
    return _layout.get().cuts_parameters


def cpu_cores() -> int:
    """How many cores work on one operation; 0 but on one CPU, uncut."""
    return _layout.get().cpu_cores


def keep_all_but_cuts(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy for `jax.checkpoint`: the backward pass names its arrays again, and keeps the rest.

    So what is kept of a parameter is this device's part of it.
    """
    return primitive.name != "sharding_constraint"
