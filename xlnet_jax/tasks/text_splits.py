"""Splits of labelled text as a config names them: published data sets, own files, TFDS."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from xlnet_jax.data import readers_published
from xlnet_jax.data.readers import Columns, Label, TextExample, has_column, read_examples
from xlnet_jax.data.readers import read_folders as read_label_folders
from xlnet_jax.data.readers_published import read_number
from xlnet_jax.data.readers_rows import Oddities, Row, form_of, read_rows
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.text_config import TFDS, TextDataConfig
from xlnet_jax.tasks.text_features import Ragged, chunks, encode, join_texts


class TextSplit(NamedTuple):
    """One split, ready for the network.

    Attributes:
        tokens, segments: unpadded, in the layout of `text_features`.
        labels: int32 [N] classes, float32 [N] numbers, or bool [N, C]; None if not known.
        guids: names of the examples; those of training data are not kept.
        notes: what was dropped or cut, in lines.
    """

    tokens: Ragged
    segments: Ragged
    labels: np.ndarray | None
    guids: list[str]
    notes: list[str]


def evaluation_splits(config: TextDataConfig) -> tuple[str, ...]:
    """The labelled splits to evaluate on."""
    if not config.is_published:
        return ("dev",) if config.dev else ()
    published = readers_published.find(config.name)
    return tuple(split for split in published.files if split.startswith("dev"))


def open_split(config: TextDataConfig, split: str, oddities: Oddities) -> Iterator[TextExample]:
    """The examples of "train", "dev", "test", or another split of a published data set.

    Raises ValueError or OSError for wrong input; ValueError for a split that is not given.
    """
    if config.is_tfds:
        return _open_tfds(config, config.own(split), split)
    if not config.is_published:
        return _open_own(config, config.file(split), split, oddities)
    # A published data set may have further ones, as MNLI does.
    if own := config.own(split) if split in config.SPLITS else "":
        return _open_own(config, own, split, oddities)
    published = readers_published.find(config.name)
    return published.read(config.name, config.folder, split, oddities)


def _open_own(
    config: TextDataConfig, path: str, split: str, oddities: Oddities
) -> Iterator[TextExample]:
    """A file by the columns that the config names.

    In the place of a published file it may also have that file's own columns.
    """
    if path == "-":
        return _open_stdin(config, split, oddities)
    form = config.form
    if form == "auto":
        form = "folders" if epath.Path(path).is_dir() else form_of(path)
    if form == "folders":
        known = readers_published.find(config.name) if config.is_published else config
        return read_label_folders(
            path, known.labels or None, encoding=config.encoding, clean_text=_cleaner(config)
        )
    if form == "lines":
        rows = read_rows(path, "tsv", encoding=config.encoding, keep_empty=True)
        return _open_lines(config, rows, path, split)
    columns = config.columns
    has = functools.partial(has_column, path, form, columns, encoding=config.encoding)
    if config.is_published and not has(config.text_a):
        published = readers_published.find(config.name)
        return published.read(config.name, config.folder, split, oddities, path=path)
    if split == "test" and columns.label is not None and not has(columns.label):
        columns = dataclasses.replace(columns, label=None)
    return _read(config, path, split, oddities, columns, form)


def _open_stdin(config: TextDataConfig, split: str, oddities: Oddities) -> Iterator[TextExample]:
    """A text a line; or, if the first line is a header with the column of the text, a tsv."""
    form = "tsv" if config.form in ("auto", "lines", "folders") else config.form
    columns = dataclasses.replace(config.columns, label=None, guid=None)
    rows: Iterator[Row] = read_rows("-", form, encoding=config.encoding, keep_empty=True)
    if form == "tsv":
        head: list[Row] = []
        for row in rows:
            head.append(row)
            if row.values:
                break
        rows = itertools.chain(head, rows)
        if not (head and config.header and config.text_a in head[-1].values):
            return _open_lines(config, rows, "-", split)
    rows = (row for row in rows if row.values)
    return _read(config, "-", split, oddities, columns, form, rows)


def _open_lines(
    config: TextDataConfig, rows: Iterator[Row], path: str, split: str
) -> Iterator[TextExample]:
    """A text a line, or two with a tab in between; a missing one is empty, as an empty line is."""
    published = readers_published.find(config.name) if config.is_published else None
    is_pair = bool(config.text_b) or (published is not None and bool(published.columns.text_b))
    clean = _cleaner(config)
    number = -1
    for number, row in enumerate(rows):
        first, second = "\t".join(row.values), None
        if is_pair:
            first, _, second = first.partition("\t")
            second = clean(second)
        yield TextExample(f"{split}-{number}", clean(first), second, None, path, row.line)
    if number < 0:
        raise ValueError(f"{path} holds no examples")


def _read(
    config: TextDataConfig, path: str, split: str, oddities: Oddities, columns: Columns, form: str,
    rows: Iterator[Row] | None = None,
) -> Iterator[TextExample]:  # fmt: skip
    return read_examples(
        path,
        split,
        columns,
        form=form,
        oddities=oddities,
        encoding=config.encoding,
        read_label=label_reader(config.resolved_kind, config.label_separator),
        clean_text=_cleaner(config),
        rows=rows,
    )


def _cleaner(config: TextDataConfig) -> Callable[[str], str]:
    """What a published data set does to its texts is done to others in their place, too."""
    return readers_published.find(config.name).clean_text if config.is_published else str


def _open_tfds(config: TextDataConfig, split: str, key: str) -> Iterator[TextExample]:
    if not split:
        raise ValueError(f"config.data.{key} is empty; give a split of {config.name}")
    from xlnet_jax.data import readers_tfds

    builder = readers_tfds.open_builder(config.name.removeprefix(TFDS), config.tfds_data_dir)
    read_label = label_reader(config.resolved_kind, config.label_separator)
    return readers_tfds.read_tfds(builder, split, config.columns, read_label=read_label)


def label_reader(kind: str, separator: str = ",") -> Callable[[Any], Label]:
    """What makes a label of a field: text, a number (also JSON's), or a JSON list of texts."""
    if kind == "regression":
        return read_number
    return functools.partial(_several, separator=separator) if kind == "multi_label" else _one


def _one(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise ValueError(f"the label is {value!r}, wanted text or a number (config.data.label)")
    return str(value)


def _several(value: Any, separator: str) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_one(item) for item in value)
    return tuple(part.strip() for part in _one(value).split(separator) if part.strip())


def find_labels(config: TextDataConfig) -> tuple[str, ...]:
    """Names of the classes: of the data set, of the config, or all that the training data have.

    Those found are sorted, by value first if all are whole numbers. () for regression.
    """
    kind = config.resolved_kind
    if kind == "regression":
        return ()
    if config.is_published:
        return readers_published.find(config.name).labels
    if config.labels:
        return tuple(config.labels)
    if config.is_tfds:
        from xlnet_jax.data import readers_tfds

        builder = readers_tfds.open_builder(config.name.removeprefix(TFDS), config.tfds_data_dir)
        if names := readers_tfds.class_names(builder, config.label):
            return names
    found: set[str] = set()
    try:
        for example in open_split(config, "train", Oddities()):
            label = () if example.label is None else example.label
            found.update(label if isinstance(label, tuple) else (str(label),))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.data.train: {error}") from error
    if len(found) < 2:
        raise ValueError(
            f"config.data.train={config.train} has the labels {sorted(found)}, wanted at least two"
            " (config.data.label)"
        )
    numbers = all(label.removeprefix("-").isdecimal() for label in found)
    return tuple(sorted(found, key=lambda label: (int(label) if numbers else 0, label)))


def make_split(
    examples: Iterator[TextExample],
    tokenizer: Tokenizer,
    *,
    labels: Sequence[str],
    max_length: int,
    oddities: Oddities,
    keep_names: bool = True,
) -> TextSplit:
    """Tokenizes a split chunk by chunk; the texts themselves are not kept.

    Raises ValueError naming file and line of a label that is not among `labels` (() stands for
    numbers), or of an example without a label in a split with labels.
    """
    tokens: list[Ragged] = []
    segments: list[Ragged] = []
    found: list[np.ndarray] = []
    guids: list[str] = []
    numbers = {label: number for number, label in enumerate(labels)}
    count = unlabelled = cut = 0
    first = ""
    for chunk in chunks(examples):
        first = first or chunk[0].file
        a = encode(tokenizer, [example.text_a for example in chunk])
        b = None
        if any(example.text_b for example in chunk):
            b = encode(tokenizer, [example.text_b or "" for example in chunk])
        ids = tokenizer.special
        parts = join_texts(a, b, max_length=max_length, sep=ids.sep, cls=ids.cls)
        whole = a.lengths + 2 if b is None else a.lengths + b.lengths + 2 + (b.lengths > 0)
        cut += int((whole > max_length).sum())
        tokens.append(parts[0])
        segments.append(parts[1])
        count += len(chunk)
        guids += [example.guid for example in chunk if keep_names]
        known = [example for example in chunk if example.label is not None]
        unlabelled += len(chunk) - len(known)
        found.append(_label_array(known, numbers))
    if unlabelled not in (0, count):
        raise ValueError(f"{first}: {unlabelled} of {count} examples have no label")
    notes = oddities.lines()
    if cut:
        notes.append(
            f"{first}: {cut:,} of {count:,} texts cut to {max_length} tokens"
            " (config.data.max_seq_length)"
        )
    known_labels = np.concatenate(found) if found and not unlabelled else None
    return TextSplit(
        Ragged.concatenate(tokens), Ragged.concatenate(segments), known_labels, guids, notes
    )


def _label_array(examples: Sequence[TextExample], numbers: dict[str, int]) -> np.ndarray:
    if not numbers:
        return np.array([example.label for example in examples], np.float32)
    if examples and isinstance(examples[0].label, tuple):
        hot = np.zeros((len(examples), len(numbers)), bool)
        for row, example in enumerate(examples):
            assert isinstance(example.label, tuple)
            hot[row, [_number(label, example, numbers) for label in example.label]] = True
        return hot
    return np.array([_number(e.label, e, numbers) for e in examples], np.int32)


def _number(label: Any, example: TextExample, numbers: dict[str, int]) -> int:
    if label not in numbers:
        known = ", ".join(repr(name) for name in list(numbers)[:20])
        raise ValueError(
            f"{example.place}: unknown label {label!r}, wanted one of {known}"
            " (config.data.labels, or config.data.label if that is another column)"
        )
    return numbers[label]
