"""`xlnet-jax convert`: checkpoints of the original, of Hugging Face and of ours into each other."""

import argparse

from xlnet_jax.verbs import model_flags

SUMMARY = "convert checkpoints: TensorFlow, Hugging Face, and our own; average and strip them"

DESCRIPTION = """\
Converts a checkpoint into a folder OUT, complete with the shape of the network, the vocabulary and
the clean-up of text. The formats are:

  tf    the original's TensorFlow 1 checkpoints: SOURCE is the path before .index, or a folder;
        OUT gets xlnet_model.ckpt.*, xlnet_config.json, spiece.model
  hf    folders of Hugging Face transformers: config.json, model.safetensors, tokenizer
  jax   ours: SOURCE is a folder made here, or a work directory of xlnet-jax train (its newest
        checkpoint, or DIR@STEP, or DIR@best); OUT is what --config.init_from takes

Model and head come over; with --with_optimizer also Adam's state and the step, between tf and jax,
so that a run can be continued: train with --config.init_from=OUT --config.init_optimizer=True. With
the same format on both sides it strips the optimizer's state (or rewrites .bin as safetensors), and
with --average it also takes a mean.

Every variable that is missing, superfluous or of another shape is listed, and is an error unless
a pattern names it. OUT appears whole or not at all.
"""

EXAMPLES = """\
  xlnet-jax convert --from=tf --to=jax xlnet_cased_L-12_H-768_A-12/xlnet_model.ckpt base
  xlnet-jax convert --from=jax --to=hf --verify runs/mnli base_mnli_hf
  xlnet-jax convert --from=jax --to=tf --head=classification:mnli runs/mnli base_mnli_tf
  xlnet-jax convert --from=tf --to=jax --with_optimizer model_dir/model.ckpt-100000 halfway
  xlnet-jax convert --from=tf --to=tf --average=5 model_dir averaged
"""

FORMATS = ("tf", "hf", "jax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("source", metavar="SOURCE", help="what to read; a local path or gs://")
    parser.add_argument("output", metavar="OUT", help="folder to make; a local path or gs://")
    for flag, dest in (("--from", "source_format"), ("--to", "target_format")):
        parser.add_argument(
            flag,
            dest=dest,
            required=True,
            choices=FORMATS,
            help=f"format of {'SOURCE' if flag == '--from' else 'OUT'}",
        )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")
    _add_content(parser.add_argument_group("what is read"))
    _add_strictness(parser.add_argument_group("what may differ"))
    _add_verification(parser.add_argument_group("verification"))


def _add_content(group: argparse._ArgumentGroup) -> None:
    model_flags.add_model_files(group)
    group.add_argument(
        "--head",
        metavar="KIND[:TASK]",
        help="head to convert: classification, regression, multiple_choice, tagging or span_qa;"
        " TASK is the end of the original's scope model/classification_TASK (default: the only one"
        " there is)",
    )
    group.add_argument(
        "--with_optimizer",
        action="store_true",
        help="take Adam's state and the step along, between tf and jax",
    )
    group.add_argument(
        "--average",
        type=int,
        default=0,
        metavar="K",
        help="mean of the newest K checkpoints of the folder SOURCE (default: one alone)",
    )
    group.add_argument(
        "--weights",
        choices=["safetensors", "bin"],
        default="safetensors",
        help="file for the weights with --to=hf; bin needs the extra hf",
    )


def _add_strictness(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--allow_missing",
        action="append",
        default=[],
        metavar="PATTERN",
        help="parameters that may be missing, by their name on either side; * and ? match anything;"
        " may be given several times",
    )
    group.add_argument(
        "--allow_unused",
        action="append",
        default=[],
        metavar="PATTERN",
        help="variables that may be left out, likewise",
    )


def _add_verification(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--verify",
        action="store_true",
        help="read OUT back, run both sides on a fixed input (PyTorch live, which needs the extra"
        " hf; TensorFlow by --recorded) and print the largest difference; above --tolerance"
        " nothing is written, and the exit status is 1",
    )
    group.add_argument(
        "--recorded",
        metavar="FILE.npz",
        help="what the original computed, in its own layout: input_ids, seg_ids, input_mask, mems,"
        " and sequence_output, new_mems (default: none)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="X",
        help="largest difference allowed, as a share of the largest value of an array",
    )


def run(args: argparse.Namespace) -> int:
    """Converts; prints what was done."""
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here is worth an accelerator's start
    from xlnet_jax.convert.conversion import Conversion, convert
    from xlnet_jax.convert.rules import Allowed

    same = (
        "source", "output", "source_format", "target_format", "spiece_model", "xlnet_config",
        "head", "lower", "with_optimizer", "average", "overwrite", "verify", "recorded",
        "tolerance",
    )  # fmt: skip
    values = vars(args)
    convert(
        Conversion(
            allowed=Allowed(tuple(args.allow_missing), tuple(args.allow_unused)),
            as_bin=args.weights == "bin",
            **{name: values[name] for name in same},
        )
    )
    return 0
