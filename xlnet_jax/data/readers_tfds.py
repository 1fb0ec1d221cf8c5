"""Labelled text from TFDS data sets by name. Loads TensorFlow, so only when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xlnet_jax.data.readers import Columns, Label, TextExample

_KEYS = "config.data.text_a, text_b, label"


def open_builder(
    name: str,
    data_dir: str = "",
    *,
    name_key: str = "config.data.name",
    dir_key: str = "config.data.tfds_data_dir",
) -> Any:
    """The TFDS builder of `name`, whose data must be prepared; nothing is downloaded.

    Raises ValueError, with the keys or flags given, for a name TFDS does not know, or data that are
    not there.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(f"TFDS has no data set {name!r} ({name_key})") from None
    if not builder.info.splits:
        raise ValueError(
            f"TFDS data set {name!r} is not prepared in {builder.data_path}: run "
            f"`tfds build {name}` first, or point {dir_key} at it"
        )
    return builder


def class_names(builder: Any, column: str) -> tuple[str, ...]:
    """Names of the classes of a label column; () if the data set does not know them."""
    features = builder.info.features
    names = getattr(features[column], "names", None) if column in features else None
    return tuple(names or ())


def read_tfds(
    builder: Any,
    split: str,
    columns: Columns,
    *,
    read_label: Callable[[Any], Label] = str,
) -> Iterator[TextExample]:
    """The examples of a split (TFDS' own slices such as "train[:10%]" too), in their fixed order.

    Classes come as their names; a label of -1 is none, as in the test splits of GLUE.

    Raises ValueError naming the data set and what it has.
    """
    import tensorflow_datasets as tfds

    name = f"tfds:{builder.info.full_name}"
    features = builder.info.features
    wanted = [*columns.text_a, *columns.text_b, columns.label, columns.guid]
    for column in wanted:
        if column is not None and column not in features:
            raise ValueError(
                f"{name} has no feature {column!r}, it has {', '.join(sorted(features))} ({_KEYS})"
            )
    if split.partition("[")[0] not in builder.info.splits:
        raise ValueError(f"{name} has no split {split!r}, it has {', '.join(builder.info.splits)}")
    names = class_names(builder, str(columns.label)) if columns.label is not None else ()
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    number = -1
    for number, example in enumerate(examples.as_numpy_iterator()):
        text_a = _text(example, columns.text_a, name)
        text_b = _text(example, columns.text_b, name) if columns.text_b else None
        guid = f"{split}-{number}" if columns.guid is None else _plain(example[columns.guid])
        label: Label | None = None
        if columns.label is not None:
            value = _plain(example[columns.label])
            if not (isinstance(value, int) and value < 0 and names):
                label = read_label(names[value] if names else value)
        yield TextExample(str(guid), text_a, text_b, label, f"{name}:{split}", number)
    if number < 0:
        raise ValueError(f"{name} split {split!r} holds no examples")


def _text(example: dict[str, Any], columns: tuple[int | str, ...], name: str) -> str:
    values = [_plain(example[str(column)]) for column in columns]
    for column, value in zip(columns, values, strict=True):
        if not isinstance(value, str):
            raise ValueError(f"{name}: feature {column!r} is not text ({_KEYS})")
    return " ".join(values)


def _plain(value: Any) -> Any:
    """Text for bytes, Python numbers for numpy's."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
