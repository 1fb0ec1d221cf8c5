"""Rows of tsv, csv and jsonl files with their line numbers, and a count of what was odd in them."""

from __future__ import annotations

import collections
import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Generator, Iterator
from typing import IO, Any, NamedTuple

from etils import epath

# tsv has no quoting: a quote is a character like any other (GLUE and all of the original's files).
FORMS = ("tsv", "csv", "quoted_tsv", "jsonl")
_ENDINGS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".txt": "tsv"}
_SHOWN = 5  # lines named of each kind of oddity


class Row(NamedTuple):
    """A row: the line it begins at, counted from 1, and its fields (jsonl: the object)."""

    line: int
    values: Any


class Oddities:
    """What readers left out or changed: counts by file and reason, and the first lines."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, reason: str, file: str, line: int, count: int = 1) -> None:
        """Counts one (or `count`) of `reason`, said as what stands behind the number.

        `line` 0 stands for no line in particular.
        """
        self._counts[file, reason] += count
        if line and len(self._lines[file, reason]) < _SHOWN:
            self._lines[file, reason].append(line)

    def count(self, file: str = "") -> int:
        """How many of a file, or of all files."""
        return sum(n for (name, _), n in self._counts.items() if not file or name == file)

    def lines(self, only: str = "") -> list[str]:
        """A line of text for each file (or that one) and reason."""
        said = []
        for (file, reason), count in self._counts.items():
            if only not in ("", file):
                continue
            lines = self._lines[file, reason]
            places = ", ".join(str(line) for line in lines) + (", …" if count > len(lines) else "")
            said.append(f"{file}: {count:,} {reason}" + (f" (line {places})" if lines else ""))
        return said


def form_of(path: epath.PathLike, form: str = "auto") -> str:
    """The form of a file, by its ending where `form` is "auto".

    Raises ValueError for an unknown form or ending.
    """
    if form in FORMS:
        return form
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if form == "auto" and ending in _ENDINGS:
        return _ENDINGS[ending]
    if form == "auto":
        raise ValueError(
            f"{os.fspath(path)}: unknown ending {ending!r}; set config.data.form to one of "
            f"{', '.join(FORMS)}"
        )
    raise ValueError(f"config.data.form is {form!r}, wanted auto or one of {', '.join(FORMS)}")


def read_rows(
    path: epath.PathLike, form: str, *, encoding: str = "utf-8", keep_empty: bool = False
) -> Generator[Row]:
    """The rows of a file ("-" for standard input) in order; empty ones only with `keep_empty`.

    Raises FileNotFoundError, or ValueError naming file and line: bytes that are not of the
    encoding, JSON that is no object, a quote that is never closed.
    """
    readers = {"tsv": _tsv, "csv": _csv, "quoted_tsv": _quoted_tsv, "jsonl": _jsonl}
    line = 0
    try:
        newline = "" if form in ("csv", "quoted_tsv") else "\n"
        codec = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        with _open(path) as stream, _as_text(stream, codec, newline) as text:
            for row in readers[form](text):
                line = row.line
                if row.values or keep_empty:
                    yield row
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)}: not {encoding} somewhere after line {line}: {error.reason} "
            "(config.data.encoding)"
        ) from error
    except LookupError as error:
        raise ValueError(f"config.data.encoding is {encoding!r}: {error}") from error
    except _RowError as error:
        raise ValueError(f"{os.fspath(path)}:{error.line}: {error}") from error


@contextlib.contextmanager
def _open(path: epath.PathLike) -> Iterator[IO[bytes]]:
    if os.fspath(path) == "-":
        yield sys.stdin.buffer
        return
    file = epath.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {os.fspath(path)}")
    with file.open("rb") as stream:
        yield stream


@contextlib.contextmanager
def _as_text(stream: IO[bytes], codec: str, newline: str) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(stream, codec, newline=newline)
    try:
        yield text
    finally:
        text.detach()  # who opened the stream closes it


class _RowError(Exception):
    def __init__(self, line: int, text: str):
        super().__init__(text)
        self.line = line


def _tsv(text: io.TextIOBase) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        line = line.rstrip("\r\n")
        yield Row(number, line.split("\t") if line else [])


def _csv(text: io.TextIOBase) -> Iterator[Row]:
    return _quoted(text, ",")


def _quoted_tsv(text: io.TextIOBase) -> Iterator[Row]:
    return _quoted(text, "\t")


def _quoted(text: io.TextIOBase, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the default refuses texts above 128 KiB
    quotes = 0

    def counted() -> Iterator[str]:
        nonlocal quotes
        for line in text:
            quotes += line.count('"')
            yield line

    reader = csv.reader(counted(), delimiter=delimiter)
    row: Row | None = None
    is_open = False  # the last row spans lines and has an odd number of quotes
    while True:
        begin, quotes = reader.line_num + 1, 0
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise _RowError(begin, str(error)) from error
        if values is None and row is not None and is_open:
            raise _RowError(row.line, "a quote opens in this row and is never closed")
        if row is not None:
            yield row
        if values is None:
            return
        row, is_open = Row(begin, values), quotes % 2 == 1 and reader.line_num > begin


def _jsonl(text: io.TextIOBase) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            yield Row(number, {})
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise _RowError(number, f"not JSON, which the form jsonl wants: {error}") from error
        if not isinstance(values, dict):
            raise _RowError(number, f"wanted a JSON object, got {type(values).__name__}")
        yield Row(number, values)
