"""Examples of text with labels: from tsv, csv and jsonl files with any columns, and from folders.

Every reader is a generator, so a split of any size passes through without being held in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from xlnet_jax.data.readers_rows import Oddities, Row, read_rows

Label = str | float | tuple[str, ...]


class TextExample(NamedTuple):
    """One text or two, and what is known about them.

    Attributes:
        guid: name of the example; unique in its split unless the data's own ids are not.
        text_a: the text.
        text_b: the second text, or None.
        label: a class, a number, or several classes; None if the split has no labels.
        file: where it was read.
        line: the line of the file, counted from 1 (in a folder 0; in a TFDS split the example).
    """

    guid: str
    text_a: str
    text_b: str | None
    label: Label | None
    file: str
    line: int

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where the parts of an example stand in a row.

    A column is a number, counted from 0 (from the end if negative), or a name in the header or the
    JSON object.

    Attributes:
        text_a: columns of the first text, joined by blanks.
        text_b: those of the second text; () for none.
        label: column of the label, or None.
        guid: column of the example's own name, or None for "SPLIT-ROW".
        header: the first row holds names, not an example.
    """

    text_a: tuple[int | str, ...]
    text_b: tuple[int | str, ...] = ()
    label: int | str | None = None
    guid: int | str | None = None
    header: bool = True


def read_examples(
    path: epath.PathLike,
    split: str,
    columns: Columns,
    *,
    form: str,
    oddities: Oddities,
    encoding: str = "utf-8",
    read_label: Callable[[Any], Label] = str,
    clean_text: Callable[[str], str] = str,
    keep: Callable[[Row], bool] | None = None,
    unnamed_rows: bool = False,
    rows: Iterator[Row] | None = None,
) -> Iterator[TextExample]:
    """The examples of one file in order; rows with too few columns are counted in `oddities`.

    `form` is one of `readers_rows.FORMS`. `keep` leaves out rows that are not meant. Row numbers in
    names count all but empty rows, the header being row 0; with `unnamed_rows` the name is the row
    number alone, and empty rows count too (as in the csv files of the original's Yelp reader).
    `rows` are those of the file, if it has been opened already.

    Raises FileNotFoundError or ValueError naming the file, and line and column where they matter.
    """
    name = os.fspath(path)
    rows = rows or read_rows(path, form, encoding=encoding, keep_empty=unnamed_rows)
    places: _Places | None = None
    count = 0
    for number, row in enumerate(rows):
        if places is None:
            has_header = columns.header and form != "jsonl"
            places = _Places.of(columns, row.values if has_header else None, name, form)
            if has_header:
                continue
        if keep is not None and not keep(row):
            continue
        missing = places.missing(row.values)
        if missing is not None:
            oddities.add(f"rows dropped, {missing}", name, row.line)
            continue
        guid = places.guid(row.values)
        if guid is None:
            guid = str(number) if unnamed_rows else f"{split}-{number}"
        count += 1
        try:
            label = places.label(row.values, read_label)
            texts = [places.text(row.values, part, clean_text) for part in ("text_a", "text_b")]
        except ValueError as error:
            raise ValueError(f"{name}:{row.line}: {error}") from error
        yield TextExample(guid, texts[0] or "", texts[1], label, name, row.line)
    if not count:
        lost = [line.removeprefix(f"{name}: ") for line in oddities.lines(name)]
        why = f" ({'; '.join(lost)}); wanted another file or config.data.text_a" if lost else ""
        raise ValueError(f"{name} holds no examples{why}")


def has_column(
    path: epath.PathLike, form: str, columns: Columns, column: int | str, encoding: str = "utf-8"
) -> bool:
    """Whether the first row (the header, if there is one) of a file has a column.

    Raises as `read_rows` does.
    """
    with contextlib.closing(read_rows(path, form, encoding=encoding)) as rows:
        row = next(rows, None)
    if row is None:
        return True  # an empty file has an error of its own
    if form == "jsonl":
        return str(column) in row.values
    if isinstance(column, str) and columns.header and column in row.values:
        return True
    try:
        number = int(column)
    except ValueError:
        return False
    return -len(row.values) <= number < len(row.values)


@dataclasses.dataclass(frozen=True)
class _Places:
    """Columns resolved for one file: numbers for rows, keys for JSON objects."""

    parts: dict[str, tuple[int | str, ...]]
    least: int  # columns a row must have
    width: int  # columns the header has; 0 if there is none

    @classmethod
    def of(cls, columns: Columns, header: Sequence[str] | None, file: str, form: str) -> _Places:
        found: dict[str, tuple[int | str, ...]] = {}
        for part in ("text_a", "text_b", "label", "guid"):
            value = getattr(columns, part)
            wanted = value if isinstance(value, tuple) else () if value is None else (value,)
            if form == "jsonl":
                found[part] = tuple(str(column) for column in wanted)
            else:
                found[part] = tuple(_number(column, header, part, file) for column in wanted)
        numbers = [c for part in found.values() for c in part if isinstance(c, int)]
        least = max((c + 1 if c >= 0 else -c for c in numbers), default=0)
        return cls(found, least, len(header) if header else 0)

    def missing(self, values: Any) -> str | None:
        """Why a row cannot be used, or None."""
        if isinstance(values, dict):
            keys = [str(key) for part in self.parts.values() for key in part]
            gone = [key for key in keys if values.get(key) is None]
            return f"no value for {', '.join(gone)}" if gone else None
        if len(values) < self.least:
            return f"fewer than {self.least} columns"
        return None

    def text(self, values: Any, part: str, clean: Callable[[str], str]) -> str | None:
        """The text of a part, or None if the data have none."""
        chosen = [values[column] for column in self.parts[part]]
        if not chosen:
            return None
        for column, value in zip(self.parts[part], chosen, strict=True):
            if not isinstance(value, str):
                raise ValueError(f"{column!r} is {value!r}, wanted text (config.data.{part})")
        return " ".join(clean(value) for value in chosen)

    def label(self, values: Any, read_label: Callable[[Any], Label]) -> Label | None:
        return read_label(values[self.parts["label"][0]]) if self.parts["label"] else None

    def guid(self, values: Any) -> str | None:
        return str(values[self.parts["guid"][0]]) if self.parts["guid"] else None


def _number(column: int | str, header: Sequence[str] | None, part: str, file: str) -> int:
    """The number of a column given by number or by name."""
    key = f"config.data.{'id' if part == 'guid' else part}"
    if isinstance(column, int):
        return column
    if header is not None and column in header:
        if header.count(column) > 1:
            raise ValueError(f"{file} has several columns {column!r}; give a number for {key}")
        return header.index(column)
    try:
        return int(column)
    except ValueError:
        pass
    if header is None:
        raise ValueError(
            f"{key} is {column!r}, wanted a column number: {file} is read without a header "
            "(config.data.header)"
        )
    shown = ", ".join(repr(name[:40]) for name in header[:20])
    raise ValueError(f"{file} has no column {column!r} ({key}); its header has {shown}")


def read_folders(
    path: epath.PathLike,
    labels: Sequence[str] | None = None,
    *,
    encoding: str = "utf-8",
    clean_text: Callable[[str], str] = str,
) -> Iterator[TextExample]:
    """One file an example, one folder a label (IMDB): files ending in txt, by name.

    Without `labels` every folder is one. The original takes the files in the order that the file
    system gives, which is not defined.

    Raises FileNotFoundError or ValueError naming folder or file.
    """
    count = 0
    if not epath.Path(path).is_dir():
        raise FileNotFoundError(f"no folder {os.fspath(path)}, wanted one with a folder a label")
    if labels is None:
        labels = sorted(folder.name for folder in epath.Path(path).iterdir() if folder.is_dir())
    for label in labels:
        folder = epath.Path(path) / label
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {os.fspath(folder)}, wanted one for each label")
        for file in sorted(folder.iterdir(), key=lambda file: natural_order(file.name)):
            if not file.name.endswith("txt"):
                continue
            count += 1
            text = clean_text(read_text(file, encoding))
            yield TextExample(f"{label}/{file.name}", text, None, label, os.fspath(file), 0)
    if not count:
        raise ValueError(f"{os.fspath(path)} holds no examples, wanted files *txt in its folders")


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that puts 2.txt before 10.txt."""
    parts = re.split(r"([0-9]+)", name)  # every second part is digits
    return tuple((int(part) if i % 2 else 0, part) for i, part in enumerate(parts))


def read_text(path: epath.PathLike, encoding: str = "utf-8") -> str:
    """A whole file ("-" for standard input) as text, without a byte order mark.

    Raises FileNotFoundError, or ValueError where the bytes are not of that encoding.
    """
    try:
        is_stdin = os.fspath(path) == "-"
        data = sys.stdin.buffer.read() if is_stdin else epath.Path(path).read_bytes()
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(
            f"{os.fspath(path)} is not {encoding} text: {error} (config.data.encoding)"
        ) from error
    return text.removeprefix("\ufeff")
