"""What each operation of a compiled program does, and how often.

XLA's own cost analysis counts the body of a loop once, whatever the number of trips, and gives only
totals. Here every operation is counted as often as it runs: matrix products by their operations,
all by the bytes that they read from and write to HBM, collectives by what they carry.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from xlnet_jax.training.hlo import Operation, Shape, computations_of

# Operations that move nothing by themselves.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while",
    "conditional", "call", "partition-id", "replica-id", "opt-barrier", "domain", "iota",
    "copy-done", "all-reduce-done", "all-gather-done", "collective-permute-done", "async-done",
    "async-update", "send-done", "recv-done", "slice-done", "add-dependency",
}  # fmt: skip
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
)  # fmt: skip


def collective_kind(operation: Operation) -> str | None:
    """Which kind of communication an operation is (or starts), if any."""
    kind = operation.opcode.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one operation does each time it runs, and how often it does in the whole program."""

    operation: Operation
    flops: float
    bytes: float
    times: int


class Program:
    """A compiled module."""

    def __init__(self, text: str):
        self.entry, self.computations = computations_of(text)

    def costs(self) -> Iterator[Cost]:
        """Every operation that does something, with loops followed."""
        yield from self._walk(self.entry, 1)

    def _walk(self, name: str, times: int) -> Iterator[Cost]:
        computation = self.computations[name]
        for operation in computation.values():
            if operation.opcode == "while":
                trips = self.trip_count(operation)
                yield from self._walk(_required(operation, "body"), times * trips)
            elif operation.opcode in ("call", "async-start"):
                for inner in operation.called:
                    yield from self._walk(inner, times)
            elif operation.opcode == "conditional":
                for inner in _branches(operation):
                    yield from self._walk(inner, times)
            elif operation.opcode not in _FREE:
                yield Cost(
                    operation, self.flops(operation, name), self.bytes(operation, name), times
                )

    def trip_count(self, loop: Operation) -> int:
        """How often the body of a loop runs; 1 if that is not a constant of the program."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known.group(1))
        condition = self.computations[_required(loop, "condition")]
        # The bound in `counter < bound`; loops of `lax.scan` start at 0 and count by 1.
        numbers = [
            int(found.group(1))
            for operation in condition.values()
            if operation.opcode == "constant" and operation.shapes[0].kind in ("s32", "u32", "s64")
            if (found := re.match(r"\((-?\d+)\)", operation.rest))
        ]
        return numbers[0] if len(numbers) == 1 and numbers[0] > 0 else 1

    def flops(self, operation: Operation, within: str) -> float:
        """Operations of matrix products (two a multiply-add) of one run of `operation`."""
        if operation.opcode == "fusion":
            return sum(
                self.flops(inner, name)
                for name in operation.called
                for inner in self.computations[name].values()
            )
        if operation.opcode == "dot":
            return self._dot_flops(operation, within)
        if operation.opcode == "convolution":
            return self._convolution_flops(operation, within)
        return 0.0

    def _shape(self, name: str, within: str) -> Shape:
        return self.computations[within][name].shapes[0]

    def _dot_flops(self, operation: Operation, within: str) -> float:
        left = self._shape(operation.operands[0], within)
        axes = re.findall(r"\d+", operation.attribute("lhs_contracting_dims") or "")
        summed = math.prod(left.lengths[int(axis)] for axis in axes)
        return 2.0 * operation.shapes[0].elements * summed

    def _convolution_flops(self, operation: Operation, within: str) -> float:
        """Counts only pairs of input and kernel that meet inside the input.

        On TPU a batched product is a convolution over its batch, of which most pairs are padding.
        """
        left, right = (self._shape(name, within) for name in operation.operands[:2])
        labels = operation.attribute("dim_labels") or ""
        found = re.match(r"(\w+)_(\w+)->(\w+)", labels)
        if not found:
            return 0.0
        in_labels, kernel_labels, out_labels = found.groups()
        window = _window(operation.attribute("window") or "")
        pairs = 1
        spatial = sorted(label for label in in_labels if label.isdigit())
        for label in spatial:
            place = int(label)
            pairs *= _meeting_pairs(
                left.lengths[in_labels.index(label)],
                right.lengths[kernel_labels.index(label)],
                operation.shapes[0].lengths[out_labels.index(label)],
                **{key: values[place] for key, values in window.items() if values},
            )
        batch = left.lengths[in_labels.index("b")]
        batch_groups = int(operation.attribute("batch_group_count") or 1)
        features = right.lengths[kernel_labels.index("i")]
        outputs = right.lengths[kernel_labels.index("o")]
        return 2.0 * features * outputs * (batch // batch_groups) * pairs

    def bytes(self, operation: Operation, within: str) -> float:
        """Bytes that one run of `operation` reads from and writes to HBM."""
        computation = self.computations[within]
        if operation.attribute("custom_call_target") == '"AllocateBuffer"':
            return 0.0
        if operation.opcode in ("dynamic-slice", "slice", "gather"):
            return 2.0 * _hbm(operation.shapes)
        if operation.opcode in ("dynamic-update-slice", "scatter"):
            update = operation.operands[-1 if operation.opcode == "scatter" else 1]
            return 2.0 * _hbm(computation[update].shapes)
        if operation.opcode == "fusion":
            return self._fusion_bytes(operation, computation)
        total = _hbm(operation.shapes)
        for name in operation.operands:
            total += _hbm(computation[name].shapes) if name in computation else 0
        return float(total)

    def _fusion_bytes(self, operation: Operation, computation: dict[str, Operation]) -> float:
        inner = self.computations[operation.called[0]]
        in_place: dict[str, int] = {}
        total = 0.0
        for number, name in enumerate(operation.operands):
            size = _hbm(computation[name].shapes) if name in computation else 0
            if size:
                part = self._part_read(inner, number, in_place)
                total += size if part is None else min(size, part)
        for shape, root in self._results(operation, inner):
            total += in_place.get(root, shape.bytes) if shape.in_hbm else 0
        return total

    def _results(
        self, operation: Operation, inner: dict[str, Operation]
    ) -> Iterator[tuple[Shape, str]]:
        """Each result of a fusion with the operation inside that makes it."""
        root = next(op for op in inner.values() if op.is_root)
        names = root.operands if root.opcode == "tuple" else (root.name,)
        for shape, name in zip(operation.shapes, names, strict=False):
            while inner[name].opcode == "bitcast":
                name = inner[name].operands[0]
            yield shape, name

    def _part_read(
        self, inner: dict[str, Operation], number: int, in_place: dict[str, int]
    ) -> int | None:
        """Bytes read of parameter `number` if only slices of it are used, or None for all of it.

        A parameter that is updated in place is not read; what is written goes into `in_place`.
        """
        start = f"({number})"
        names = {
            op.name
            for op in inner.values()
            if op.opcode == "parameter" and op.rest.startswith(start)
        }
        total = 0
        written: set[str] = set()
        for op in inner.values():
            if not names & set(op.operands):
                continue
            untouched = names & set(op.operands) - written
            if op.is_root and untouched and op.opcode in ("tuple", "bitcast"):
                return None
            if op.opcode == "tuple" and op.is_root:
                continue
            if op.opcode == "bitcast":
                names.add(op.name)
                written |= {op.name} if op.operands[0] in written else set()
            elif op.opcode in ("dynamic-slice", "slice", "gather"):
                total += sum(shape.bytes for shape in op.shapes)
            elif op.opcode == "dynamic-update-slice" and op.operands[0] in names:
                in_place[op.name] = sum(shape.bytes for shape in inner[op.operands[1]].shapes)
                names.add(op.name)
                written.add(op.name)
            elif op.opcode == "fusion":
                for place, name in enumerate(op.operands):
                    if name in names:
                        part = self._part_read(self.computations[op.called[0]], place, {})
                        if part is None:
                            return None
                        total += part
            else:
                return None
        return total


def _required(operation: Operation, name: str) -> str:
    value = operation.attribute(name)
    if value is None:
        raise ValueError(f"{operation.opcode} {operation.name} names no {name}")
    return value.lstrip("%")


def _branches(operation: Operation) -> list[str]:
    text = operation.attribute("branch_computations") or ",".join(
        operation.attribute(f"{kind}_computation") or "" for kind in ("true", "false")
    )
    return re.findall(r"%?([\w.\-]+)", text.strip("{}"))


def _hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes if shape.in_hbm)


def _window(text: str) -> dict[str, list[int]]:
    """size=2x3 stride=1x2 pad=0_0x1_1 lhs_dilate=… rhs_dilate=… of a convolution."""
    parts = dict(part.split("=", 1) for part in text.strip("{}").split() if "=" in part)

    def numbers(key: str) -> list[int]:
        return [int(n) for n in parts[key].split("x")] if key in parts else []

    pads = parts.get("pad", "")
    return {
        "stride": numbers("stride"),
        "pad": [int(p.split("_")[0]) for p in pads.split("x")] if pads else [],
        "input_dilation": numbers("lhs_dilate"),
        "kernel_dilation": numbers("rhs_dilate"),
    }


@functools.cache
def _meeting_pairs(
    size: int,
    kernel: int,
    outputs: int,
    *,
    stride: int = 1,
    pad: int = 0,
    input_dilation: int = 1,
    kernel_dilation: int = 1,
) -> int:
    """Pairs (output, kernel) whose input lies inside and is no gap of a dilation."""
    pairs = 0
    for k in range(kernel):
        for out in range(outputs):
            place = out * stride - pad + k * kernel_dilation
            pairs += place % input_dilation == 0 and 0 <= place // input_dilation < size
    return pairs
