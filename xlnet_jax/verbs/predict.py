"""`xlnet-jax predict`: what a fine-tuned model says of new examples."""

import argparse
import os
import sys

from xlnet_jax.verbs import processes
from xlnet_jax.verbs.evaluate import checkpoint_name, stored_config
from xlnet_jax.verbs.train import CONFIG_HELP

TAKES_OVERRIDES = True

# Of tables that it does not write; any other name is a folder's.
_OTHER_ENDINGS = (".csv", ".txt", ".xlsx", ".parquet")

SUMMARY = "write a fine-tuned model's predictions for a file or standard input"

DESCRIPTION = f"""\
Predicts with a checkpoint of a fine-tuning work directory. --input is a file like those of the
training data (labels may be missing), or - for standard input: a text a line, or a table with a
header. Without it a split that the config names is taken (--split). What is written depends on the
task: classification, multiple choice and tagging write a table (.tsv) or JSON (.json) with one
entry an example, span QA a folder with predictions, n-best answers and null odds.

{CONFIG_HELP}
{processes.HELP}"""

EXAMPLES = """\
  xlnet-jax predict --workdir=runs/reviews --input=new.tsv --output=answers.tsv
  printf 'text_a\\nwell made\\n' | xlnet-jax predict --workdir=runs/reviews --input=- --output=-
  xlnet-jax predict --workdir=runs/cmrc --split=dev --checkpoint=best --output=answers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="file or folder to write; - for standard output",
    )
    parser.add_argument("--input", metavar="FILE|-", help="examples to predict (default: none)")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="split of the config to predict, if there is no --input (default: none)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARG]",
        help="config file, with an argument for its variants (default: DIR/config.json)",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        default="latest",
        metavar="STEP|latest|best",
        help="step number of the checkpoint, the newest complete one, or the best",
    )
    processes.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Reads the config, then predicts."""
    if (args.input is None) == (args.split is None):
        raise ValueError("give either --input=FILE (or -) or --split=NAME")
    if args.checkpoint == "all":
        raise ValueError("--checkpoint=all is for evaluate; predict wants one checkpoint")
    if os.path.splitext(args.output)[1].lower() in _OTHER_ENDINGS:
        raise ValueError(
            f"--output={args.output}: wanted a name that ends in .tsv or .json, a folder, or - for"
            " standard output"
        )

    from etils import epath

    if args.input not in (None, "-") and not epath.Path(args.input).exists():
        raise FileNotFoundError(f"--input={args.input}: no such file")
    config, split = stored_config(args), args.split
    if args.input is not None:
        split = "predict" if "predict" in config.data else "test"
        if split not in config.data:
            raise ValueError(
                f"--workdir={args.workdir} is of the task {config.task!r}, which has nothing to"
                " predict"
            )
        config.data[split] = args.input

    from xlnet_jax import host_memory

    host_memory.keep_memory_of_steps()
    from xlnet_jax.training import run as training_run

    plain = config.to_dict()
    count = processes.run_together(
        args,
        plain,
        lambda: training_run.predict(
            plain, args.workdir, split=split, output=args.output, checkpoint=args.checkpoint
        ),
    )
    if args.output != "-":
        print(f"predictions for {count:,} features written to {args.output}", file=sys.stderr)
    return 0
