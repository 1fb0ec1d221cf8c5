"""The text of a compiled program (optimized HLO) as computations of operations."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

_ITEM_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
_ITEM_BITS |= {"f8e4m3fn": 8, "f8e5m2": 8, "f8e4m3": 8, "f8e3m4": 8}

_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: element type, lengths, and the layout's text."""

    kind: str
    lengths: tuple[int, ...]
    layout: str = ""

    @property
    def elements(self) -> int:
        """How many numbers."""
        return math.prod(self.lengths)

    @property
    def in_hbm(self) -> bool:
        """False for arrays that the compiler keeps in a core's own small memories."""
        return not re.search(r"S\([1-9]", self.layout)

    @property
    def bytes(self) -> int:
        """Size in memory, with the padding of the layout's tiles."""
        order, tile = _layout(self.layout)
        lengths = [self.lengths[axis] for axis in order] if order else list(self.lengths[::-1])
        for place, size in enumerate(reversed(tile)):
            if place < len(lengths):
                lengths[place] = -(-lengths[place] // size) * size
        return math.prod(lengths) * _ITEM_BITS.get(self.kind, 32) // 8


@functools.cache
def _layout(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(axes from the innermost out, first tile) of a layout such as 1,0:T(8,128)(2,1)."""
    order, _, rest = text.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", rest)
    return (
        tuple(int(axis) for axis in order.split(",") if axis),
        tuple(int(size) for size in tile.group(1).split(",")) if tile else (),
    )


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of the result; several for a tuple
    operands: tuple[str, ...]
    rest: str  # everything behind the operands
    is_root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that it names."""
        return tuple(_CALLED.findall(self.rest))

    def attribute(self, name: str) -> str | None:
        """The text of an attribute `name=...` up to the next comma at its level."""
        start = re.search(rf"(?<![\w]){name}=", self.rest)
        if not start:
            return None
        depth, end = 0, start.end()
        while end < len(self.rest) and (depth or self.rest[end] not in ", "):
            depth += (self.rest[end] in "{[(") - (self.rest[end] in "}])")
            end += 1
        return self.rest[start.end() : end]

    @property
    def result_bytes(self) -> int:
        """Size of all results."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def cycles(self) -> int:
        """Clock cycles that the TPU compiler expects; 0 where it says nothing."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found.group(1)) if found else 0


def computations_of(text: str) -> tuple[str, dict[str, dict[str, Operation]]]:
    """(name of the entry, computations by name, each with its operations by name in order).

    Raises ValueError if the text is not that of a compiled program.
    """
    computations: dict[str, dict[str, Operation]] = {}
    entry = ""
    current: dict[str, Operation] | None = None
    for line in text.splitlines():
        if current is None or line.startswith(("%", "ENTRY")):
            if header := _HEADER.match(line):
                current = computations.setdefault(header.group(2), {})
                entry = header.group(2) if header.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif operation := _parse(line):
            current[operation.name] = operation
    if not entry:
        raise ValueError("no entry computation: this is not the text of a compiled program")
    return entry, computations


def _parse(line: str) -> Operation | None:
    found = _NAME.match(line)
    if not found:
        return None
    start = found.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    shapes = tuple(
        Shape(kind, tuple(int(n) for n in lengths.split(",") if n), layout or "")
        for kind, lengths, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", line[start:end]))
    )
    opened = line.index("(", end)
    opcode = line[end:opened].strip()
    closed = _closing(line, opened)
    inside = line[opened : closed + 1]
    if opcode in ("parameter", "constant"):
        operands: tuple[str, ...] = ()
        rest = line[opened:]
    else:
        operands = tuple(re.findall(r"%([\w.\-]+)", inside))
        rest = line[closed + 1 :]
    return Operation(found.group(1), opcode, shapes, operands, rest, "ROOT " in line[:start])


def _closing(text: str, opened: int) -> int:
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unclosed bracket in the compiled program: {text[:80]}")
