"""Encodings as files: .npz, .parquet or .jsonl; each appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from etils import epath

from xlnet_jax.data.storage import is_local, write_atomic
from xlnet_jax.encoding.encoder import Encoding

FORMS = ("npz", "parquet", "jsonl")
_CHUNK = 1 << 24  # bytes
_ROWS_TOGETHER = 4096  # of a parquet file, in one row group

Write = Callable[[Encoding], None]


def form_of(output: str) -> str:
    """The form that a path's ending says; "-" (standard output) is jsonl."""
    if output == "-":
        return "jsonl"
    form = os.path.splitext(output)[1].lstrip(".").lower()
    if form not in FORMS:
        raise ValueError(
            f"--output={output}: wanted a name that ends in .npz, .parquet or .jsonl, or - for"
            " JSON lines on standard output"
        )
    return form


@contextlib.contextmanager
def writer(
    output: str, layers: Sequence[int], pooling: str, pieces: Sequence[str]
) -> Generator[Write]:
    """Gives a function that takes one encoding after the other; the file appears at the end.

    `layers` are the numbers of the layers encoded, `pieces` the vocabulary. In the file are

    * npz: "vectors" [texts, Y, D] and "layers" [Y]; with a row a token or word "vectors" [rows, Y,
      D], "spans" [rows, 2], "lengths" [texts] and, a row a token, "tokens" [rows], their ids;
    * parquet: a row a text ("text_number" from 0, "text"), token or word ("text_number", "begin",
      "end", "token" or "word"), and a column of vectors for each layer, "layer_12";
    * jsonl: an object a text, {"text", "layers": {"12": vector or vectors}}, and "spans" and
      "tokens" or "words" with a row each.

    Raises FloatingPointError at a vector that is not finite, OSError if the file can't be written.
    """
    form = form_of(output)
    write_to = {"npz": _npz, "parquet": _parquet, "jsonl": _jsonl}[form]

    def checked(write: Write) -> Write:
        count = 0

        def check_and_write(encoding: Encoding) -> None:
            nonlocal count
            count += 1
            if not np.isfinite(encoding.vectors).all():
                raise FloatingPointError(f"text {count} has a vector that is not finite")
            write(encoding)

        return check_and_write

    if output == "-":
        with write_to(sys.stdout.buffer, layers, pooling, pieces) as write:
            yield checked(write)
        sys.stdout.buffer.flush()
        return
    path = epath.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.fspath(path.parent) if is_local(path) else None
    with tempfile.TemporaryFile(dir=folder) as file:
        with write_to(file, layers, pooling, pieces) as write:
            yield checked(write)
        file.seek(0)
        write_atomic(path, iter(lambda: file.read(_CHUNK), b""))


@contextlib.contextmanager
def _npz(
    file: IO[bytes], layers: Sequence[int], pooling: str, pieces: Sequence[str]
) -> Generator[Write]:
    kept: list[Encoding] = []
    yield lambda encoding: kept.append(encoding._replace(text=""))
    arrays = {"layers": np.array(layers, np.int64)}
    if pooling not in ("tokens", "words"):
        arrays["vectors"] = _joined([encoding.vectors[None] for encoding in kept])
    else:
        arrays["vectors"] = _joined([encoding.vectors.swapaxes(0, 1) for encoding in kept])
        arrays["spans"] = _joined([encoding.spans for encoding in kept])
        arrays["lengths"] = np.array([len(encoding.spans) for encoding in kept], np.int64)
    if pooling == "tokens":
        arrays["tokens"] = _joined([encoding.tokens for encoding in kept])
    np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


@contextlib.contextmanager
def _jsonl(
    file: IO[bytes], layers: Sequence[int], pooling: str, pieces: Sequence[str]
) -> Generator[Write]:
    def write(encoding: Encoding) -> None:
        entry: dict[str, Any] = {"text": encoding.text}
        if pooling in ("tokens", "words"):
            entry["spans"] = encoding.spans.tolist()
            entry[pooling] = list(_names(encoding, pooling, pieces))
        head = json.dumps(entry, ensure_ascii=False)[:-1]
        vectors = ", ".join(
            f'"{layer}": {_numbers(states)}'
            for layer, states in zip(layers, encoding.vectors, strict=True)
        )
        file.write(f'{head}, "layers": {{{vectors}}}}}\n'.encode("utf-8", "surrogatepass"))

    yield write


def _numbers(array: np.ndarray) -> str:
    """JSON of float32 numbers, as short as they can be told apart."""
    if array.ndim > 1:
        return f"[{', '.join(_numbers(row) for row in array)}]"
    return f"[{', '.join(array.astype(str))}]"


@contextlib.contextmanager
def _parquet(
    file: IO[bytes], layers: Sequence[int], pooling: str, pieces: Sequence[str]
) -> Generator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text_number": pa.int64()}
    if pooling in ("tokens", "words"):
        columns |= {"begin": pa.int64(), "end": pa.int64(), pooling[:-1]: pa.string()}
    else:
        columns["text"] = pa.string()
    waiting: list[tuple[int, Encoding]] = []
    rows_waiting = done = 0
    sink: Any = None

    def flush() -> None:
        nonlocal sink
        width = waiting[0][1].vectors.shape[-1] if waiting else 0
        fields = columns | {f"layer_{n}": pa.list_(pa.float32(), width or -1) for n in layers}
        schema = pa.schema(list(fields.items()))
        if sink is None:
            sink = pq.ParquetWriter(file, schema)
        if waiting:
            sink.write_table(pa.table(_table(waiting, layers, pooling, pieces), schema=schema))
        waiting.clear()

    def write(encoding: Encoding) -> None:
        nonlocal rows_waiting, done
        waiting.append((done, encoding))
        done += 1
        rows_waiting += len(encoding.spans)
        if rows_waiting >= _ROWS_TOGETHER:
            flush()
            rows_waiting = 0

    yield write
    flush()
    sink.close()


def _table(
    waiting: Sequence[tuple[int, Encoding]],
    layers: Sequence[int],
    pooling: str,
    pieces: Sequence[str],
) -> dict[str, Any]:
    import pyarrow as pa

    rows = pooling in ("tokens", "words")
    counts = [len(encoding.spans) for _, encoding in waiting]
    table: dict[str, Any] = {
        "text_number": np.repeat([number for number, _ in waiting], counts).astype(np.int64)
    }
    if rows:
        spans = np.concatenate([encoding.spans for _, encoding in waiting])
        table |= {"begin": spans[:, 0], "end": spans[:, 1]}
        table[pooling[:-1]] = [
            name for _, encoding in waiting for name in _names(encoding, pooling, pieces)
        ]
    else:
        table["text"] = [encoding.text for _, encoding in waiting]
    for place, layer in enumerate(layers):
        states = [encoding.vectors[place] for _, encoding in waiting]
        vectors = np.concatenate(states) if rows else np.stack(states)
        table[f"layer_{layer}"] = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
        )
    return table


def _names(encoding: Encoding, pooling: str, pieces: Sequence[str]) -> Iterator[str]:
    if pooling == "tokens":
        return (pieces[i] for i in encoding.tokens)
    return (encoding.text[begin:end] for begin, end in encoding.spans)


def read_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Texts, one a line, without their line ends; raises ValueError naming a line not in UTF-8."""
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason})") from error
