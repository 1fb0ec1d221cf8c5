"""Model inputs of any length, and batches of like lengths."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

_BATCHES_SORTED_TOGETHER = 64  # more is faster and less random
_ORDER = 0x4F52  # keeps these draws apart from all others


@dataclasses.dataclass(frozen=True)
class Features:
    """Model inputs of one split.

    Attributes:
        sequences: name -> one array [..., L] a feature, L its own length, the same for all names;
            "tokens" is always there.
        values: name -> [num_features, ...], what has no length of its own.
        fill: padding of each sequence.
        side: where padding goes.
    """

    sequences: Mapping[str, Sequence[np.ndarray]]
    values: Mapping[str, np.ndarray]
    fill: Mapping[str, int]
    side: Literal["left", "right"]

    def __len__(self) -> int:
        return len(self.sequences["tokens"])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each feature, int64 [num_features]."""
        return np.array([tokens.shape[-1] for tokens in self.sequences["tokens"]], np.int64)

    def sha256(self) -> str:
        """Of everything in it."""
        digest = hashlib.sha256()
        for name in sorted(self.sequences):
            for array in self.sequences[name]:
                digest.update(np.ascontiguousarray(array).tobytes())
        for name in sorted(self.values):
            digest.update(np.ascontiguousarray(self.values[name]).tobytes())
        return digest.hexdigest()

    def batch(self, index: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Features `index` (-1: a row that fills up, weight 0), padded to `length`.

        Beside the sequences [B, ..., length] and values: "padding", "weight" and "index".
        """
        batch: dict[str, np.ndarray] = {}
        chosen = np.maximum(index, 0)
        # A row that fills up may copy a feature that is longer than this batch.
        own = [min(self.sequences["tokens"][i].shape[-1], length) for i in chosen]
        starts = [length - n if self.side == "left" else 0 for n in own]
        for name, arrays in self.sequences.items():
            lead = arrays[chosen[0]].shape[:-1]
            padded = np.full((len(index), *lead, length), self.fill[name], arrays[0].dtype)
            for row, (i, start, n) in enumerate(zip(chosen, starts, own, strict=True)):
                padded[row, ..., start : start + n] = arrays[i][..., :n]
            wide = np.bool_ if padded.dtype == np.bool_ else np.int32
            batch[name] = padded.astype(wide)
        padding = np.ones((len(index), *lead, length), bool)
        for row, (start, n) in enumerate(zip(starts, own, strict=True)):
            padding[row, ..., start : start + n] = False
        batch["padding"] = padding
        batch |= {name: values[chosen] for name, values in self.values.items()}
        batch["weight"] = (index >= 0).astype(np.float32)
        batch["index"] = index.astype(np.int32)
        return batch


def bucket_lengths(lengths: np.ndarray, max_length: int, pad_to_multiple: int) -> np.ndarray:
    """Length that each feature is padded to: the next multiple, or the maximum if that is 0."""
    if pad_to_multiple == 0:
        return np.full(lengths.shape, max_length, np.int64)
    return np.minimum(-(-lengths // pad_to_multiple) * pad_to_multiple, max_length)


def training_order(
    padded: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[tuple[np.ndarray, int]]:
    """(features, length) of each batch of an epoch; every feature once, the last rows filled up.

    Features are shuffled, then sorted by length within stretches of some dozens of batches, and
    the batches are shuffled again.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, _ORDER])))
    order = random.permutation(len(padded))
    stretch = _BATCHES_SORTED_TOGETHER * batch_size
    batches = []
    for first in range(0, len(order), stretch):
        part = order[first : first + stretch]
        batches += _cut(part[np.argsort(padded[part], kind="stable")], padded, batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def evaluation_order(padded: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, int]]:
    """(features, length) of each batch: by length, every feature once, the last rows filled up."""
    return _cut(np.argsort(padded, kind="stable"), padded, batch_size)


def _cut(order: np.ndarray, padded: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, int]]:
    batches = []
    for first in range(0, len(order), batch_size):
        index = order[first : first + batch_size]
        filled = np.full(batch_size, -1, np.int64)
        filled[: len(index)] = index
        batches.append((filled, int(padded[index].max())))
    return batches
