"""Flags that vocab and corpus share: which text, how its lines are read, how it is cleaned."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlnet_jax.data.normalization import Normalization
    from xlnet_jax.data.text_blocks import TextOptions

# The flags that make up the nested settings; tests hold them equal to the dataclasses' fields.
TEXT_FLAGS = (
    "text_format",
    "text_field",
    "max_line_bytes",
    "skip_empty_files",
    "invalid_utf8",
    "tfds_data_dir",
)
NORMALIZATION_FLAGS = ("normalization", "lower", "keep_accents", "collapse_whitespace")


def add_input(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where the text is and how it is read."""
    group = parser.add_argument_group("input (one of --input and --tfds)")
    group.add_argument(
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="text files, globs in quotes, or folders: plain text (a sentence a line, a blank line"
        " ends a document), .gz, or .jsonl; local paths or gs://",
    )
    group.add_argument(
        "--tfds",
        default="",
        metavar="NAME[/CONFIG][:SPLIT]",
        help="a text data set of TensorFlow Datasets that is on disk already",
    )
    group.add_argument(
        "--text_format",
        default="auto",
        choices=["auto", "text", "jsonl", "ids"],
        help="how to read the files; auto goes by the file name; ids are lines of token numbers"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--text_field",
        default="text",
        metavar="NAME",
        help="field of a .jsonl record, or feature of a TFDS example, that holds the text",
    )
    group.add_argument(
        "--max_line_bytes",
        type=int,
        default=10_000_000,
        metavar="BYTES",
        help="a longer line is an error",
    )
    group.add_argument(
        "--skip_empty_files",
        action="store_true",
        help="pass over files without a byte; without this flag one is an error",
    )
    group.add_argument(
        "--invalid_utf8",
        default="error",
        choices=["error", "replace"],
        help="bytes that are not UTF-8: stop and name file and offset, or read U+FFFD instead"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--tfds_data_dir",
        default="",
        metavar="DIR",
        help="where TFDS data sets lie (default: that of TFDS)",
    )


def add_normalization(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the clean-up that goes before SentencePiece."""
    group = parser.add_argument_group("text clean-up")
    group.add_argument(
        "--normalization",
        default="nfc",
        choices=["reference", "nfc", "nfkc", "none"],
        help="nfc and nfkc are Unicode forms and drop nothing; reference is the original's: quotes"
        " unified, NFKD, accents dropped; it damages Japanese, Korean, Hindi and Thai, so it is"
        " for the released vocabularies only (default: %(default)s)",
    )
    group.add_argument(
        "--lower", action=argparse.BooleanOptionalAction, default=False, help="lower-case the text"
    )
    group.add_argument(
        "--keep_accents",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep combining marks (default: yes, but no with --normalization=reference)",
    )
    group.add_argument(
        "--collapse_whitespace",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make every run of white space one blank and strip the ends",
    )


def add_progress(group: argparse._ArgumentGroup) -> None:
    """Adds --progress."""
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show a progress bar on standard error",
    )


def text_options(values: Mapping[str, Any]) -> "TextOptions":
    """The reading settings from parsed flags."""
    from xlnet_jax.data.text_blocks import TextOptions

    return TextOptions(**{name: values[name] for name in TEXT_FLAGS})


def normalization(values: Mapping[str, Any]) -> "Normalization":
    """The clean-up settings from parsed flags."""
    from xlnet_jax.data.normalization import Normalization

    form, *others = NORMALIZATION_FLAGS
    return Normalization(form=values[form], **{name: values[name] for name in others})
