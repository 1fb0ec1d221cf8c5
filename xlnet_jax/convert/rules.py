"""Checkpoints read and written by the `table` of names, strict on both sides.

Every variable that no row names, every missing one and every wrong shape is a problem; all are
listed together. Only what a pattern names is let through, and said.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from xlnet_jax.convert.table import Format, Head, Rule, rules_for, shape_of
from xlnet_jax.model.config import XLNetConfig

Arrays = dict[str, np.ndarray]


class Allowed(NamedTuple):
    """Patterns (`*` and `?`) of what may be missing or unused, as names on either side."""

    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def may_miss(self, *names: str) -> bool:
        """Whether one of the names is let through though it is not there."""
        return _any_match(names, self.missing)

    def may_ignore(self, name: str) -> bool:
        """Whether the name is let through though nothing uses it."""
        return _any_match([name], self.unused)


class Matched(NamedTuple):
    """What came over, and what was let through by a pattern.

    Attributes:
        arrays: by name on the side that was wanted.
        missing: parameters that are not there.
        unused: names of the given side that went nowhere.
    """

    arrays: Arrays
    missing: list[str]
    unused: list[str]

    def notes(self) -> tuple[str, ...]:
        """A line for each list that is not empty."""
        lines = []
        if self.missing:
            lines.append(f"missing, as allowed: {', '.join(self.missing)}")
        if self.unused:
            lines.append(f"not used, as allowed: {', '.join(self.unused)}")
        return tuple(lines)


STRICT = Allowed()


def to_params(
    tensors: Mapping[str, np.ndarray],
    config: XLNetConfig,
    format: Format,
    *,
    head: Head | None = None,
    wanted: Mapping[str, tuple[int | None, ...]] | None = None,
    allowed: Allowed = STRICT,
) -> Matched:
    """Parameters by path ("xlnet/word_embedding", ...) from variables of the other side.

    `wanted` says which parameters there must be and their shapes; without it the trunk must be
    there, and the whole of every part of which anything is there.

    Raises ValueError with one line for each variable that is left over, missing, or misshapen.
    """
    rows = {row.parameter: row for row in rules_for(config, head) if row.name(format)}
    if wanted is None:
        found = (row for row in rows.values() if tensors.keys() & _names(row, config, format))
        parts = {"trunk"} | {row.part for row in found}
        wanted = {p: shape_of(r.axes, config) for p, r in rows.items() if r.part in parts}
    problems: list[str] = []
    matched = Matched({}, [], [])
    used: set[str] = set()
    for path, shape in wanted.items():
        if path not in rows:
            problems.append(f"parameter {path}: no rule names its variable")
            continue
        names = _names(rows[path], config, format)
        used.update(names)
        absent = [name for name in names if name not in tensors]
        if absent and allowed.may_miss(path, *absent):
            matched.missing.append(path)
        elif absent:
            problems.append(f"parameter {path}: missing variables {absent}")
        else:
            value = _read(rows[path], [np.asarray(tensors[name]) for name in names], format)
            if isinstance(value, str):
                problems.append(f"parameter {path}: {value}")
            elif not _fits(value.shape, shape):
                got = f"got {value.shape} from {names}"
                problems.append(f"parameter {path}: wanted shape {_shown(shape)}, {got}")
            else:
                matched.arrays[path] = value
    for name in sorted(tensors.keys() - used):
        if allowed.may_ignore(name):
            matched.unused.append(name)
        else:
            problems.append(f"variable {name}: not used")
    _raise(problems)
    return matched


def from_params(
    params: Mapping[str, np.ndarray],
    config: XLNetConfig,
    format: Format,
    *,
    head: Head | None = None,
    allowed: Allowed = STRICT,
) -> Matched:
    """The inverse of `to_params`; parameters that the other side has no place for are problems."""
    rows = {row.parameter: row for row in rules_for(config, head)}
    problems: list[str] = []
    matched = Matched({}, [], [])
    for path in params:
        row = rows.get(path)
        if row is None or not row.name(format):
            if allowed.may_ignore(path):
                matched.unused.append(path)
            else:
                problems.append(f"parameter {path}: {_OTHERS[format]} has no variable for it")
            continue
        value = np.asarray(params[path])
        if not _fits(value.shape, shape_of(row.axes, config)):
            shape = _shown(shape_of(row.axes, config))
            problems.append(f"parameter {path}: wanted shape {shape}, got {value.shape}")
            continue
        names = _names(row, config, format)
        matched.arrays.update(zip(names, _write(row, value, len(names), format), strict=True))
    present = {rows[path].part for path in params if path in rows} | {"trunk"}
    for path, row in rows.items():
        if row.part in present and path not in params and row.name(format):
            if allowed.may_miss(path, *_names(row, config, format)):
                matched.missing.append(path)
            else:
                problems.append(f"parameter {path}: missing")
    _raise(problems)
    return matched


_M, _V = r"/(adam_m|Adam)$", r"/(adam_v|Adam_1)$"
_COUNTERS = r"^(beta[12]_power|global_step)$"


def is_optimizer_slot(name: str) -> bool:
    """Whether a checkpoint variable belongs to the optimizer or counts steps."""
    return bool(re.search(f"{_M}|{_V}|{_COUNTERS}", name))


def slots_of(
    variables: Mapping[str, np.ndarray], moment: Literal["m", "v"]
) -> dict[str, np.ndarray]:
    """Adam's first or second moments by variable, in either naming of the original."""
    ending = re.compile(_M if moment == "m" else _V)
    return {ending.sub("", k): value for k, value in variables.items() if ending.search(k)}


_OTHERS = {"tensorflow": "the original", "pytorch": "PyTorch's XLNet"}


def _names(row: Rule, config: XLNetConfig, format: Format) -> list[str]:
    template = row.name(format)
    if "{layer}" not in template:
        return [template]
    return [template.replace("{layer}", str(layer)) for layer in range(config.n_layer)]


def _is_transposed(row: Rule, format: Format) -> bool:
    """PyTorch keeps [out, in] of its linear maps, and [in, ...] of those of attention."""
    is_kernel = row.parameter.rpartition("/")[2].startswith("kernel")
    return format == "pytorch" and is_kernel and row.pytorch.endswith(".weight")


def _read(row: Rule, arrays: list[np.ndarray], format: Format) -> np.ndarray | str:
    """The parameter, or what is wrong with its variables."""
    if row.part == "mask" and arrays[0].shape[:-1] == (1, 1):
        return arrays[0].reshape(-1)
    if _is_transposed(row, format):
        arrays = [array.T for array in arrays]
    if len({array.shape for array in arrays}) > 1:
        return f"shapes differ from layer to layer: {[array.shape for array in arrays]}"
    if "{layer}" not in row.name(format):
        return arrays[0]
    if row.axes.startswith("Y"):
        return np.stack(arrays)
    if all(np.array_equal(array, arrays[0]) for array in arrays):
        return arrays[0]
    return "values differ from layer to layer, but untie_r is false"


def _write(row: Rule, value: np.ndarray, count: int, format: Format) -> list[np.ndarray]:
    """The `count` variables of a parameter."""
    if row.part == "mask":
        return [value.reshape(1, 1, -1)]
    if "{layer}" not in row.name(format):
        layers = [value]
    else:
        layers = list(value) if row.axes.startswith("Y") else [value] * count
    return [layer.T for layer in layers] if _is_transposed(row, format) else layers


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        size in (None, got) for got, size in zip(shape, wanted, strict=True)
    )


def _shown(shape: Sequence[int | None]) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def _any_match(names: Iterable[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError(
            "checkpoint and model do not match (--allow_missing=PATTERN and --allow_unused=PATTERN"
            " let through what may differ):\n  " + "\n  ".join(problems)
        )
