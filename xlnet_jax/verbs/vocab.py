"""`xlnet-jax vocab`: train a SentencePiece vocabulary."""

import argparse

from xlnet_jax.verbs import text_flags

SUMMARY = "train a SentencePiece vocabulary with XLNet's special symbols"

DESCRIPTION = """\
Trains a SentencePiece vocabulary on text and writes PREFIX.model, PREFIX.vocab (pieces and scores
as text) and PREFIX.json (how it was made). The defaults are the settings of the released English
vocabularies, apart from the clean-up, which by default drops nothing. Use the same clean-up flags
for xlnet-jax corpus.
"""

EXAMPLES = """\
  xlnet-jax vocab --input 'books/*.txt' --output_prefix=en
  xlnet-jax vocab --input small.txt --output_prefix=small --vocab_size=4000
  xlnet-jax vocab --input 'zh/*.jsonl.gz' --output_prefix=zh --character_coverage=0.9995
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb: the fields of VocabularyConfig."""
    parser.add_argument(
        "--output_prefix",
        required=True,
        metavar="PREFIX",
        help="start of the names of the files written; a local path or gs://",
    )
    text_flags.add_input(parser)
    text_flags.add_normalization(parser)
    _add_vocabulary(parser.add_argument_group("vocabulary"))
    _add_training(parser.add_argument_group("training"))


def _add_vocabulary(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--vocab_size",
        type=int,
        default=32000,
        metavar="N",
        help="number of pieces, special symbols included",
    )
    group.add_argument(
        "--character_coverage",
        type=float,
        default=0.99995,
        metavar="SHARE",
        help="share of the text's characters that get a piece of their own, 0.9 to 1",
    )
    group.add_argument(
        "--model_type",
        default="unigram",
        choices=["unigram", "bpe", "char", "word"],
        help="SentencePiece algorithm (default: %(default)s)",
    )
    group.add_argument(
        "--control_symbols",
        nargs="+",
        default=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
        metavar="SYMBOL",
        help="symbols that text can never produce; these five are needed (default: %(default)s)",
    )
    group.add_argument(
        "--user_defined_symbols",
        nargs="*",
        default=["<eop>", ".", "(", ")", '"', "-", "–", "£", "€"],
        metavar="SYMBOL",
        help="symbols that are always one piece (default: %(default)s)",
    )
    group.add_argument(
        "--normalization_rule",
        default="auto",
        choices=["auto", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"],
        help="SentencePiece's own clean-up, kept in the model; auto: nmt_nfkc with"
        " --normalization=reference or nfkc, else identity (default: %(default)s)",
    )
    group.add_argument(
        "--byte_fallback",
        action="store_true",
        help="add 256 byte pieces, so that no character is unknown",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input_sentence_size",
        type=int,
        default=10_000_000,
        metavar="LINES",
        help="train on a random sample of this many lines, where the text has more; 0: on all",
    )
    group.add_argument(
        "--shuffle_input_sentence",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="sample over the whole text instead of its beginning",
    )
    group.add_argument(
        "--max_sentence_bytes",
        type=int,
        default=4192,
        metavar="BYTES",
        help="longer lines are left out, and counted",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the sample, 0 to 2^32-1"
    )
    group.add_argument(
        "--num_threads",
        type=int,
        default=16,
        metavar="N",
        help="threads; scores depend on it in their last digits",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace the files where they exist"
    )
    text_flags.add_progress(group)


def run(args: argparse.Namespace) -> int:
    """Trains and writes the vocabulary; prints what was made."""
    from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

    values = vars(args)
    own = (
        "output_prefix", "tfds", "vocab_size", "character_coverage", "model_type",
        "input_sentence_size", "shuffle_input_sentence", "max_sentence_bytes",
        "normalization_rule", "byte_fallback", "seed", "num_threads", "overwrite", "progress",
    )  # fmt: skip
    train_vocabulary(
        VocabularyConfig(
            input=tuple(args.input),
            normalization=text_flags.normalization(values),
            text=text_flags.text_options(values),
            control_symbols=tuple(args.control_symbols),
            user_defined_symbols=tuple(args.user_defined_symbols),
            **{name: values[name] for name in own},
        )
    )
    return 0
