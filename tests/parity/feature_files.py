"""What the comparisons of feature files share: record files, tokenizers, counting differences."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from tests.parity.case import Result
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tfrecord import RecordFile
from xlnet_jax.data.tokenizer import Tokenizer


@functools.cache
def tokenizer(root: Path, model: str, uncased: bool) -> Tokenizer:
    path = root / "tokenization" / model / "spiece.model"
    return Tokenizer(path, Normalization("reference", lower=uncased))


def parsed_records(path: Path) -> list[dict[str, list[Any]]]:
    """Every record of a file: feature -> its list of values."""
    import tensorflow as tf

    records = []
    for record in RecordFile(path):
        features = tf.train.Example.FromString(record).features.feature
        records.append(
            {
                name: list(getattr(value, value.WhichOneof("kind")).value)
                for name, value in features.items()
            }
        )
    return records


def made_of(file: str) -> tuple[str, str, int] | None:
    """Data set, part and number of passes that the name of a record file says."""
    found = re.fullmatch(r"([\w-]+?)_([a-z]+)(?:_(\d+)_passes)?\.tf_record", file)
    return (found[1], found[2], int(found[3] or 1)) if found else None


def example_counts(got: list[Any], wanted: list[Any], *, any_order: bool = False) -> Result:
    """How many entries differ; with `any_order` both are sorted first."""
    if not wanted:
        return Result(float("inf"), 0, "nothing was compared")
    texts = [[json.dumps(entry, sort_keys=True) for entry in side] for side in (got, wanted)]
    if any_order:
        texts = [sorted(side) for side in texts]
    wrong = [i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]]
    missing = abs(len(got) - len(wanted))
    note = f"{len(wanted)} entries" + (f", {missing} too few or too many" if missing else "")
    return Result(len(wrong) + missing, 0, note + (f"; wrong: {wrong[:5]}" if wrong else ""))
