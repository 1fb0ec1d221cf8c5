"""TFDS text data sets by name, one example a document. Loads TensorFlow, so only when asked."""

from collections.abc import Iterator
from typing import Any

from xlnet_jax.data.readers_tfds import open_builder
from xlnet_jax.data.text_blocks import BLOCK_BYTES, Block, Stretch, TextOptions, document_lines


def _builder(name: str, data_dir: str) -> Any:
    return open_builder(name, data_dir, name_key="--tfds", dir_key="--tfds_data_dir")


def parse_name(text: str) -> tuple[str, str]:
    """Splits NAME[/CONFIG][:VERSION][:SPLIT] into the builder's name and the split.

    Versions are numbers (wiki40b/en:1.3.0:train); the split is train if none is given.
    """
    parts = text.split(":")
    split = parts.pop() if len(parts) > 1 and not parts[-1][:1].isdigit() else "train"
    return ":".join(parts), split


def find_examples(name: str, options: TextOptions) -> tuple[Stretch, float]:
    """The whole split as one stretch of examples, and the mean bytes of an example.

    Raises ValueError naming the flag for an unknown data set, split or text field, or for data
    that are not there yet.
    """
    builder_name, split = parse_name(name)
    builder = _builder(builder_name, options.tfds_data_dir)
    splits = builder.info.splits
    if split not in splits:
        raise ValueError(
            f"TFDS data set {builder_name!r} has no split {split!r}: wanted one of "
            f"{', '.join(splits)} (--tfds=NAME:SPLIT)"
        )
    features = builder.info.features
    if options.text_field not in features:
        raise ValueError(
            f"TFDS data set {builder_name!r} has no feature {options.text_field!r}: wanted one of "
            f"{', '.join(sorted(features))} (--text_field)"
        )
    info = splits[split]
    if not info.num_examples:
        raise ValueError(f"TFDS split {name!r} has no examples (--tfds)")
    return (
        Stretch(f"tfds:{builder_name}:{split}", 0, info.num_examples, "tfds"),
        max(1.0, info.num_bytes / info.num_examples),
    )


def read_blocks(stretch: Stretch, options: TextOptions) -> Iterator[Block]:
    """The texts of a range of examples, always in the same order."""
    import tensorflow_datasets as tfds

    builder_name, split = parse_name(stretch.path.removeprefix("tfds:"))
    builder = _builder(builder_name, options.tfds_data_dir)
    examples = builder.as_dataset(
        split=f"{split}[{stretch.begin}:{stretch.end}]",
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    lines: list[str] = []
    offset, consumed, size = stretch.begin, 0, 0
    for example in examples.as_numpy_iterator():
        raw = bytes(example[options.text_field])
        try:
            text = raw.decode("utf-8", "strict" if options.invalid_utf8 == "error" else "replace")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{stretch.path}: example {offset + consumed}: invalid UTF-8 at byte "
                f"{error.start}: give --invalid_utf8=replace"
            ) from None
        if (
            len(raw) > options.max_line_bytes
            and max(len(line.encode()) for line in text.split("\n")) > options.max_line_bytes
        ):
            raise ValueError(
                f"{stretch.path}: example {offset + consumed}: a line is longer than "
                f"{options.max_line_bytes} bytes (--max_line_bytes)"
            )
        lines += document_lines(text)
        consumed += 1
        size += len(raw)
        if size >= BLOCK_BYTES:
            yield Block(lines, offset, consumed, size)
            lines, offset, consumed, size = [], offset + consumed, 0, 0
    if consumed:
        yield Block(lines, offset, consumed, size)
