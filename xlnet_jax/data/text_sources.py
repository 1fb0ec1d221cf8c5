"""Raw text as blocks of lines: plain files, .gz, jsonl, lines of ids, and TFDS data sets.

Whatever the source, its text comes out as lines: a sentence a line and a blank line after each
document. Only one block of about `BLOCK_BYTES` is in memory at a time.
"""

import dataclasses
import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from etils import epath

from xlnet_jax.data import storage
from xlnet_jax.data.text_blocks import BLOCK_BYTES, Block, Stretch, TextOptions, document_lines

_GZIP_GROWTH = 4  # text is roughly this many times its gzip size; only used to cut units of work
_UNREADABLE = (".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".parquet", ".arrow")
_TABLES = (".json", ".csv", ".tsv")  # not lines of text, unless a flag says so
_BYTE_ORDER_MARK = "\ufeff".encode()


def find_files(patterns: Sequence[str], options: TextOptions) -> tuple[list[Stretch], list[str]]:
    """All files that match, sorted by name, each as one stretch; and the empty ones left out.

    A pattern is a file, a glob (** too), or a folder, which stands for the files in it.
    Raises FileNotFoundError for a pattern that matches nothing, ValueError for an empty file.
    """
    paths: set[str] = set()
    for pattern in patterns:
        found = _matches(pattern)
        if not found:
            raise FileNotFoundError(f"no file matches {pattern!r} (--input)")
        paths.update(found)
    if not paths:
        raise ValueError("no input given: name files with --input or a data set with --tfds")
    files, empty = [], []
    for path in sorted(paths):
        if path.removesuffix(".gz").endswith(_UNREADABLE):
            raise ValueError(f"{path}: only plain text, .gz and jsonl are read; unpack it first")
        is_gzip = path.endswith(".gz")
        size = storage.size_of(path)
        if size == 0 or (is_gzip and size < 4096 and not _gzip_has_text(path)):
            empty.append(path)
            continue
        files.append(Stretch(path, 0, size, _kind(path, options), is_gzip))
    if empty and not options.skip_empty_files:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise ValueError(
            f"{empty[0]}{more}: the file is empty (--skip_empty_files leaves out empty files and "
            "counts them)"
        )
    if not files:
        raise ValueError(f"all {len(empty)} input files are empty, such as {empty[0]} (--input)")
    return files, empty


def _matches(pattern: str) -> list[str]:
    if "://" in pattern:
        fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
        if fixed == pattern:
            path = epath.Path(pattern)
            found = list(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
        else:
            base = fixed[: fixed.rindex("/")]
            found = list(epath.Path(base).glob(pattern[len(base) + 1 :]))
        return [os.fspath(path) for path in found if not path.is_dir()]
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        return [
            os.path.join(pattern, name)
            for name in os.listdir(pattern)
            if not name.startswith(".") and os.path.isfile(os.path.join(pattern, name))
        ]
    if os.path.isfile(pattern):
        return [pattern]
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]


def _gzip_has_text(path: str) -> bool:
    with _open(path, is_gzip=True) as (_, text):
        return bool(_read(text, 1, path))


def _kind(path: str, options: TextOptions) -> str:
    if options.text_format != "auto":
        return options.text_format
    name = path.removesuffix(".gz")
    if name.endswith(_TABLES):
        raise ValueError(
            f"{path}: wanted plain text or jsonl, got a name that ends in"
            f" {os.path.splitext(name)[1]}; say what its lines are with --text_format=jsonl (a"
            " document each) or --text_format=text (a sentence each)"
        )
    return "jsonl" if name.endswith((".jsonl", ".ndjson")) else "text"


def plan_units(
    files: Iterable[Stretch], unit_bytes: int, max_line_bytes: int
) -> list[tuple[Stretch, ...]]:
    """Cuts inputs into units of work of about `unit_bytes` of text, whoever does the work.

    Large plain files are cut after a document, or after a line where no document ends within half
    a unit; small files share a unit; a .gz file can't be cut.
    """
    units: list[tuple[Stretch, ...]] = []
    current: list[Stretch] = []
    weight = 0
    for file in files:
        for stretch in _cut(file, unit_bytes, max_line_bytes):
            size = stretch.size * (_GZIP_GROWTH if stretch.is_gzip else 1)
            if current and weight + size > unit_bytes * 3 // 2:
                units.append(tuple(current))
                current, weight = [], 0
            current.append(stretch)
            weight += size
            if weight >= unit_bytes:
                units.append(tuple(current))
                current, weight = [], 0
    if current:
        units.append(tuple(current))
    return units


def _cut(file: Stretch, unit_bytes: int, max_line_bytes: int) -> Iterator[Stretch]:
    begin = 0
    if not file.is_gzip and file.size > unit_bytes * 3 // 2:
        with epath.Path(file.path).open("rb") as opened:
            while file.size - begin > unit_bytes * 3 // 2:
                end = _next_cut(opened, file, begin + unit_bytes, unit_bytes // 2, max_line_bytes)
                if end >= file.size:
                    break
                yield dataclasses.replace(file, begin=begin, end=end, ends_file=False)
                begin = end
    yield dataclasses.replace(file, begin=begin)


def _next_cut(
    opened: IO[bytes], file: Stretch, nominal: int, window: int, max_line_bytes: int
) -> int:
    """The first place after `nominal` where a document starts, else where a line does."""
    opened.seek(nominal)
    position = first = nominal + len(_line(opened, file.path, nominal, max_line_bytes))
    after_blank = False
    while True:
        if file.kind == "jsonl" or (position - first > window and not after_blank):
            return first
        line = _line(opened, file.path, position, max_line_bytes)
        if not line:
            return position if after_blank else first
        if not line.decode("utf-8", "replace").strip():
            after_blank = True
        elif after_blank:
            return position
        position += len(line)


def _line(opened: IO[bytes], path: str, offset: int, max_line_bytes: int) -> bytes:
    line = opened.readline(max_line_bytes + 2)
    if len(line.rstrip(b"\r\n")) > max_line_bytes:
        raise _too_long(path, offset, max_line_bytes)
    return line


def _too_long(path: str, offset: int, max_line_bytes: int) -> ValueError:
    return ValueError(
        f"{path}: the line at byte {offset} is longer than {max_line_bytes} bytes: is it text with "
        "a sentence a line? (--max_line_bytes allows longer lines)"
    )


class _Opened:
    """Opens a file; gives the file itself, whose position tells the progress, and its text."""

    def __init__(self, path: str, is_gzip: bool):
        self._raw: IO[bytes] = epath.Path(path).open("rb")
        self._text: Any = gzip.GzipFile(fileobj=self._raw) if is_gzip else self._raw

    def __enter__(self) -> tuple[IO[bytes], Any]:
        return self._raw, self._text

    def __exit__(self, *_: object) -> None:
        self._text.close()
        self._raw.close()


def _open(path: str, *, is_gzip: bool) -> _Opened:
    return _Opened(path, is_gzip)


def _read(text: Any, size: int, path: str) -> bytes:
    try:
        return bytes(text.read(size))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is damaged or cut short ({error})") from error


def read_blocks(stretch: Stretch, options: TextOptions) -> Iterator[Block]:
    """The lines of a stretch, in blocks.

    Raises ValueError naming file and byte offset (in the unpacked text for .gz) for invalid UTF-8,
    a line over the limit, and json that is broken or lacks the text field.
    """
    if stretch.kind == "tfds":
        from xlnet_jax.data import tfds_text

        yield from tfds_text.read_blocks(stretch, options)
        return
    for raw, offset, consumed, size in _raw_blocks(stretch, options.max_line_bytes):
        mark = len(_BYTE_ORDER_MARK) if offset == 0 and raw.startswith(_BYTE_ORDER_MARK) else 0
        lines = _decode(raw[mark:], offset + mark, stretch, options).split("\n")
        if stretch.kind == "jsonl":
            lines = _json_lines(lines, offset + mark, stretch.path, options.text_field)
        yield Block(lines, offset, consumed, size)


def _raw_blocks(stretch: Stretch, max_line_bytes: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Whole lines without the last newline, their offset, what was read for them, their size."""
    with _open(stretch.path, is_gzip=stretch.is_gzip) as (file, text):
        if stretch.begin:
            text.seek(stretch.begin)
        offset = position = stretch.begin
        rest: list[bytes] = []  # pieces of a line that has not ended yet
        told = file.tell() if stretch.is_gzip else stretch.begin
        while True:
            wanted = BLOCK_BYTES
            if not stretch.is_gzip:
                wanted = min(wanted, stretch.end - position)
            new = _read(text, wanted, stretch.path) if wanted else b""
            position += len(new)
            now = file.tell() if stretch.is_gzip else position
            cut = new.rfind(b"\n") + 1 if new else 0
            if new and not cut:
                rest.append(new)
                if sum(map(len, rest)) > max_line_bytes:
                    raise _too_long(stretch.path, offset, max_line_bytes)
                continue
            whole = b"".join([*rest, new[:cut]])
            if new:
                rest = [new[cut:]] if cut < len(new) else []
            if whole:
                ended = whole[:-1] if whole.endswith(b"\n") else whole
                _check_lengths(ended, offset, stretch.path, max_line_bytes)
                yield ended, offset, now - told, len(whole)
                told = now
                offset += len(whole)
            if not new:
                return


def _check_lengths(raw: bytes, offset: int, path: str, max_line_bytes: int) -> None:
    if len(raw) <= max_line_bytes:
        return
    for line in raw.split(b"\n"):
        if len(line) > max_line_bytes:
            raise _too_long(path, offset, max_line_bytes)
        offset += len(line) + 1


def _decode(raw: bytes, offset: int, stretch: Stretch, options: TextOptions) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if options.invalid_utf8 == "replace":
            return raw.decode("utf-8", "replace")
        where = " of the unpacked text" if stretch.is_gzip else ""
        raise ValueError(
            f"{stretch.path}: invalid UTF-8 at byte {offset + error.start}{where} "
            f"(0x{raw[error.start]:02x}): convert the file, or give --invalid_utf8=replace"
        ) from None


def _json_lines(lines: Sequence[str], offset: int, path: str, text_field: str) -> list[str]:
    """One document a line of json: its text's lines, and a blank line after each document."""
    found: list[str] = []
    for line in lines:
        if line and not line.isspace():
            problem = ""
            try:
                values = json.loads(line)
            except ValueError as error:
                problem = f"broken json ({error})"
            else:
                text = values.get(text_field) if isinstance(values, dict) else None
                if not isinstance(values, dict):
                    problem = f"wanted a json object, got a {type(values).__name__}"
                elif text_field in values and not isinstance(text, str):
                    problem = (
                        f"field {text_field!r} (--text_field) is {text!r:.40}, wanted a string"
                    )
                elif not isinstance(text, str):
                    keys = ", ".join(map(str, list(values)[:8]))
                    problem = (
                        f"no text in field {text_field!r} (--text_field); the fields are {keys}"
                    )
                elif not _encodes(text):
                    problem = f"half of a surrogate pair in field {text_field!r}"
            if problem:
                raise ValueError(f"{path}: line at byte {offset}: {problem}")
            found += document_lines(str(text))
        offset += len(line.encode()) + 1
    return found


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
