"""`xlnet-jax encode`: texts to vectors with a pretrained model."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from xlnet_jax.verbs import model_flags

SUMMARY = "write hidden states or pooled vectors of texts"

DESCRIPTION = """\
Reads texts, runs them through a pretrained model, and writes the hidden states of the layers asked
for: of each token or word, with its place in the text, or one vector a text. Texts longer than
--length go through in overlapping windows, or in segments with memory carried over. Nothing is
dropped unless --long=cut says so.

--model is what `xlnet_jax.load_pretrained` takes: a TensorFlow checkpoint of the original, a
Hugging Face folder, a folder of xlnet-jax convert, or a work directory of xlnet-jax train.
"""

EXAMPLES = """\
  xlnet-jax encode --model=base --input=reviews.txt --output=reviews.npz --pooling=mean
  xlnet-jax encode --model=runs/large@best --input=books.jsonl --column=body --long=memory \\
      --layers=-1,-4 --output=books.parquet
  echo 'A short text' | xlnet-jax encode --model=base --input=- --output=-
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--model", required=True, metavar="PATH", help="the pretrained model")
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE|-",
        help="texts, one a line, or .jsonl, .tsv or .csv with --column; - for standard input",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE|-",
        help="file ending in .npz, .parquet or .jsonl; - for JSON lines on standard output",
    )
    parser.add_argument(
        "--column",
        default="text",
        metavar="NAME",
        help="key of the text in .jsonl, or its column in the header line of .tsv and .csv",
    )
    _add_model(parser.add_argument_group("model"))
    _add_vectors(parser.add_argument_group("vectors"))


def _add_model(group: argparse._ArgumentGroup) -> None:
    model_flags.add_model_files(group)
    group.add_argument(
        "--dtype", default="float32", metavar="TYPE", help="of matrix products: float32 or bfloat16"
    )


def _add_vectors(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--layers",
        type=_layers,
        default=(-1,),
        metavar="N,N,...|all",
        help="0 is the embedding, 1 the first layer, -1 the last (default: -1)",
    )
    group.add_argument(
        "--pooling",
        default="tokens",
        metavar="tokens|words|mean|first|last|cls",
        help="a vector for each token, for each word (mean of its tokens), or for each text: mean"
        " of its tokens, its first, its last, or the <cls> behind it",
    )
    group.add_argument(
        "--long",
        default="windows",
        metavar="windows|memory|cut|error",
        help="what happens to texts longer than --length",
    )
    for flag, default, what in (
        ("--length", 512, "most tokens at once, with <sep> and <cls>"),
        ("--stride", 0, "tokens from one window to the next; 0 for half a window"),
        ("--mem_len", 0, "tokens of memory with --long=memory; 0 for --length"),
        ("--batch_size", 32, "texts or windows at once"),
        ("--pad_to_multiple", 64, "lengths are padded up to multiples of this"),
    ):
        group.add_argument(flag, type=int, default=default, metavar="N", help=what)


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"wanted whole numbers with commas between, or all; got {text!r}"
        ) from error


def run(args: argparse.Namespace) -> int:
    """Encodes all texts of the input."""
    from xlnet_jax import host_memory
    from xlnet_jax.encoding import files

    files.form_of(args.output)  # before the model is read
    for name, long in (("stride", "windows"), ("mem_len", "memory")):
        if getattr(args, name) and args.long != long:
            raise ValueError(
                f"--{name}={getattr(args, name)} is for --long={long}, got --long={args.long}:"
                f" leave out --{name}"
            )
    host_memory.keep_memory_of_steps()
    with _open_texts(args) as texts:
        from tqdm import tqdm

        from xlnet_jax.encoding.encoder import EncodeOptions, XLNet

        names = ("pooling", "long", "length", "stride", "mem_len", "batch_size", "pad_to_multiple")
        options: dict[str, Any] = {name: getattr(args, name) for name in names}
        EncodeOptions(**options)
        model = XLNet.load(
            args.model,
            dtype=args.dtype,
            spiece_model=args.spiece_model,
            xlnet_config=args.xlnet_config,
            lower=args.lower,
        )
        all_layers = range(model.config.n_layer + 1)
        options["layers"] = tuple(all_layers) if args.layers is None else args.layers
        numbers = EncodeOptions(**options).layer_numbers(model.config.n_layer)
        count = empty = dropped = 0
        with files.writer(args.output, numbers, args.pooling, model.tokenizer.pieces) as write:
            for encoding in tqdm(
                model.stream(texts, **options), unit=" texts", disable=not sys.stderr.isatty()
            ):
                write(encoding)
                count += 1
                empty += not len(encoding.tokens)
                dropped += encoding.dropped
            if not count:
                raise ValueError(f"--input={args.input} holds no text")
    for note in model.notes:
        print(note, file=sys.stderr)
    _report(args, count, empty, dropped, model.source)
    return 0


def _report(args: argparse.Namespace, count: int, empty: int, dropped: int, source: str) -> None:
    if empty:
        print(f"{empty:,} of {count:,} texts are without a token", file=sys.stderr)
    if dropped:
        print(f"{dropped:,} tokens were cut off (--long=cut)", file=sys.stderr)
    if args.output != "-":
        print(f"{count:,} texts encoded into {args.output} with {source}", file=sys.stderr)


@contextlib.contextmanager
def _open_texts(args: argparse.Namespace) -> Iterator[Iterator[str]]:
    """The texts of the input, one after the other."""
    from etils import epath

    from xlnet_jax.encoding.files import read_lines

    ending = os.path.splitext(args.input)[1].lower()
    has_columns = ending in (".jsonl", ".json", ".tsv", ".csv")
    if not has_columns and args.column != "text":
        raise ValueError(
            f"--column={args.column} is for .jsonl, .tsv and .csv, got --input={args.input}, whose"
            " lines are the texts: leave out --column"
        )
    if args.input == "-":
        yield read_lines(sys.stdin.buffer, "standard input")
    elif has_columns:
        yield _column(args.input, "jsonl" if "json" in ending else ending[1:], args.column)
    else:
        path = epath.Path(args.input)
        if not path.exists():
            raise FileNotFoundError(f"--input={args.input}: no such file")
        with path.open("rb") as file:
            yield read_lines(file, args.input)


def _column(path: str, form: str, column: str) -> Iterator[str]:
    """One field of every row; the first row of a table names its columns."""
    from xlnet_jax.data.readers_rows import read_rows

    header: list[str] | None = None
    for row in read_rows(path, form):
        if form == "jsonl":
            if not isinstance(row.values.get(column), str):
                raise ValueError(
                    f"{path}, line {row.line}: wanted a text under the key {column!r}, the object"
                    f" has {sorted(row.values)} (--column)"
                )
            yield row.values[column]
        elif header is None:
            header = list(row.values)
            if column not in header:
                raise ValueError(
                    f"{path} has the columns {header}, wanted {column!r} among them (--column)"
                )
        elif len(row.values) != len(header):
            raise ValueError(
                f"{path}, line {row.line}: {len(row.values)} fields, wanted {len(header)} as in the"
                " header line"
            )
        else:
            yield row.values[header.index(column)]
