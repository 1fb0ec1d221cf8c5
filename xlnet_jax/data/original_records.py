"""The records of the original's `data_utils.py`: random access to batches, and writing.

A batch is `bsz_per_host` consecutive records; record r of every batch continues the text of record
r of the one before. With two-directional data the records of each core are forward rows, then as
many backward rows of the same text; here rows alternate instead (row 2i forward, row 2i + 1
backward).
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from xlnet_jax.data import staging
from xlnet_jax.data.record_infos import RecordInfo, RecordSettings
from xlnet_jax.data.storage import write_atomic
from xlnet_jax.data.tfrecord import RecordFile, write_records

FEATURES = ("input", "target", "seg_id", "is_masked", "label")  # length seq_len; label 1


def alternating_rows(bsz_per_host: int, num_core_per_host: int, *, bi_data: bool) -> np.ndarray:
    """Which record of a batch is our row 0, 1, …: int64 [bsz_per_host]; its argsort leads back.

    Raises ValueError if the cores do not get equal shares (of both directions).
    """
    records = np.arange(bsz_per_host)
    unit = 2 * num_core_per_host if bi_data else num_core_per_host
    if num_core_per_host < 1 or bsz_per_host % unit:
        raise ValueError(
            f"the host batch size is {bsz_per_host}; it must be a multiple of {unit} for "
            f"num_core_per_host {num_core_per_host}"
        )
    if not bi_data:
        return records
    return records.reshape(num_core_per_host, 2, -1).swapaxes(1, 2).ravel()


class RecordBatches:
    """Random access to the batches of one record file, opened at the first read.

    `num_batch` None counts the records; else a file that holds another number is an error.
    """

    def __init__(
        self,
        path: str,
        settings: RecordSettings,
        num_batch: int | None,
        cache_dir: epath.PathLike | None = None,
    ):
        self.path = path
        self._settings = settings
        self._expected = num_batch
        self._cache_dir = cache_dir
        self._file: RecordFile | None = None

    def __len__(self) -> int:
        """Number of batches."""
        if self._expected is None:
            return len(self._opened()) // self._settings.bsz_per_host
        return self._expected

    def raw(self, batch: int, rows: np.ndarray) -> list[bytes]:
        """Some records of a batch as they are."""
        file = self._opened()
        first = batch * self._settings.bsz_per_host
        return [file.read(first + row) for row in rows.tolist()]

    def read(self, batch: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Features of some records of a batch: int64 [len(rows), seq_len], label [len(rows), 1]."""
        return parse(self.raw(batch, rows), self._settings.seq_len, self.path)

    def _opened(self) -> RecordFile:
        if self._file is None:
            file = RecordFile(self.path, staging.local_copy(self.path, cache_dir=self._cache_dir))
            size = self._settings.bsz_per_host
            batches = len(file) // size if self._expected is None else self._expected
            if len(file) != batches * size or not batches:
                raise ValueError(
                    f"{self.path}: {len(file)} records, but its record info says {batches} "
                    f"batches of {size}; make or copy the file again"
                )
            self._file = file
        return self._file


def parse(records: Sequence[bytes], seq_len: int, path: str = "") -> dict[str, np.ndarray]:
    """Features of serialized examples: int64 [N, seq_len], label [N, 1].

    Raises ValueError where a feature is missing or has another length.
    """
    import tensorflow as tf

    spec = {
        name: tf.io.FixedLenFeature([1 if name == "label" else seq_len], tf.int64)
        for name in FEATURES
    }
    try:
        parsed = tf.io.parse_example(tf.constant(list(records), tf.string), spec)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"{path}: no records of {seq_len} tokens (config.data.seq_len): "
            f"{error.message.splitlines()[0]}"
        ) from None
    return {name: array.numpy() for name, array in parsed.items()}


def write_run(
    save_dir: epath.PathLike,
    settings: RecordSettings,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    split: str = "train",
    task: int = 0,
    pass_id: int = 0,
    corpus_info: Mapping[str, Any],
) -> RecordInfo:
    """Writes one run's files as the original does; equal input gives equal bytes.

    `batches` hold the features of `FEATURES` in record order, int [bsz_per_host, …]. `corpus_info`
    has what the settings do not: vocab_size, num_core_per_host, use_eod, sp_path, input_glob. It is
    written by task 0.
    """
    folder = epath.Path(save_dir) / "tfrecords"
    folder.mkdir(parents=True, exist_ok=True)
    name = settings.file_name(f"{split}-{task}-{pass_id}", "tfrecords")
    count = 0

    def records() -> Iterable[bytes]:
        nonlocal count
        for batch in batches:
            yield from serialize(batch)
            count += 1

    write_records(folder / name, records())
    path = str(folder / name)
    contents = {"filenames": [path], "num_batch": count}
    info_name = settings.file_name(f"record_info-{split}-{task}-{pass_id}", "json")
    write_atomic(folder / info_name, [json.dumps(contents).encode()])
    if task == 0:
        everything = {**dataclasses.asdict(settings), **corpus_info}
        corpus_path = epath.Path(save_dir) / "corpus_info.json"
        write_atomic(corpus_path, [json.dumps(everything, sort_keys=True).encode()])
    return RecordInfo(folder, info_name, split, task, pass_id, settings, (path,), count)


def serialize(batch: Mapping[str, np.ndarray]) -> Iterable[bytes]:
    """One serialized example per row of a batch of features, with the features in a fixed order."""
    import tensorflow as tf

    for row in range(len(batch["input"])):
        features = {}
        for name in FEATURES:
            values = tf.train.Int64List(value=batch[name][row].tolist())
            features[name] = tf.train.Feature(int64_list=values)
        example = tf.train.Example(features=tf.train.Features(feature=features))
        yield example.SerializeToString(deterministic=True)
