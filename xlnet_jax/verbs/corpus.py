"""`xlnet-jax corpus`: text files to token shards."""

import argparse

from xlnet_jax.verbs import text_flags

SUMMARY = "turn text into token shards, with many workers, resumable"

DESCRIPTION = """\
Cleans and tokenizes text and writes shards of tokens with sentence starts, a manifest and the
vocabulary into one folder, ready for xlnet-jax train. The text is streamed, so its size does not
matter. Nothing of batch size, sequence length or device count is baked in.

The same command again goes on where it was stopped. The shards depend on the input and on these
flags, never on the number of workers.
"""

EXAMPLES = """\
  xlnet-jax corpus --input 'books/*.txt' --spiece_model=en.model --output_dir=shards
  xlnet-jax corpus --input crawl.jsonl.gz --text_field=body --spiece_model=en.model \\
      --output_dir=shards --heldout_every=200 --num_workers=16
  xlnet-jax corpus --tfds=wikipedia/20230601.en:train --spiece_model=en.model --output_dir=wiki
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb: the fields of CorpusConfig."""
    parser.add_argument(
        "--output_dir",
        required=True,
        metavar="DIR",
        help="folder of the shards, made if missing; a local path or gs://",
    )
    parser.add_argument(
        "--spiece_model",
        required=True,
        metavar="FILE",
        help="SentencePiece vocabulary, from xlnet-jax vocab or a released one",
    )
    text_flags.add_input(parser)
    text_flags.add_normalization(parser)
    _add_content(parser.add_argument_group("shards"))
    _add_work(parser.add_argument_group("work"))


def _add_content(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--use_eod",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the token <eod> after each document",
    )
    group.add_argument(
        "--line_rules",
        default="auto",
        choices=["auto", "reference", "fixed"],
        help="fixed: one <eod> after each document, every line with tokens is a sentence;"
        " reference: the original's rules for blank and empty lines; auto: reference with"
        " --normalization=reference, else fixed (default: %(default)s)",
    )
    group.add_argument(
        "--heldout_every",
        type=int,
        default=0,
        metavar="K",
        help="put every K-th document into DIR/heldout, for evaluation; 0: none",
    )
    group.add_argument(
        "--unit_bytes",
        type=int,
        default=0,
        metavar="BYTES",
        help="text per unit of work, which is one shard; 0 chooses 1 to 64 MiB by the input's size",
    )


def _add_work(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--num_workers",
        type=int,
        default=0,
        metavar="N",
        help="worker processes; 0: one a processor",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the shards in DIR first, where they came from other settings",
    )
    text_flags.add_progress(group)


def run(args: argparse.Namespace) -> int:
    """Builds or finishes the shards; prints what was built."""
    from xlnet_jax.data.corpus import CorpusConfig, build_corpus

    values = vars(args)
    own = (
        "output_dir", "spiece_model", "tfds", "use_eod", "line_rules", "heldout_every",
        "unit_bytes", "num_workers", "overwrite", "progress",
    )  # fmt: skip
    build_corpus(
        CorpusConfig(
            input=tuple(args.input),
            normalization=text_flags.normalization(values),
            text=text_flags.text_options(values),
            **{name: values[name] for name in own},
        )
    )
    return 0
