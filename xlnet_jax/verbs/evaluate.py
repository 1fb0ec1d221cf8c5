"""`xlnet-jax evaluate`: held-out loss or scores of checkpoints."""

import argparse
import json
import os
from typing import TYPE_CHECKING

from xlnet_jax.verbs import processes
from xlnet_jax.verbs.train import CONFIG_HELP

if TYPE_CHECKING:
    from ml_collections import ConfigDict

TAKES_OVERRIDES = True

SUMMARY = "evaluate checkpoints of a run on held-out data"

DESCRIPTION = f"""\
Evaluates checkpoints of a work directory on the held-out data that its config names, and prints one
line of JSON for each: the step, and loss with the entropy of the same targets under their own
counts (pretraining) or the scores of the task (fine-tuning). Without --config the config stored in
the work directory (config.json) is used, with any overrides given here. All held-out text counts,
also where train.eval_steps takes less of it while training; give it here to take less here too.

{CONFIG_HELP}
{processes.HELP}"""

EXAMPLES = """\
  xlnet-jax evaluate --workdir=runs/base
  xlnet-jax evaluate --workdir=runs/base --checkpoint=20000 \\
      --config=configs/pretrain.py:base
  xlnet-jax evaluate --workdir=runs/mnli --checkpoint=best
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARG]",
        help="config file, with an argument for its variants (default: DIR/config.json)",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="folder of the run; a local path or gs://",
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_name,
        default="latest",
        metavar="STEP|latest|best|all",
        help="step number of the checkpoint, the newest complete one, the best by"
        " checkpoint.best_metric, or each that is there",
    )
    processes.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Reads the given or the stored config, then evaluates."""
    config = stored_config(args)

    from xlnet_jax import host_memory

    host_memory.keep_memory_of_steps()
    import jax

    from xlnet_jax.training import run as training_run

    plain = config.to_dict()

    def job() -> None:
        results = training_run.evaluate(plain, args.workdir, checkpoint=args.checkpoint)
        for result in results if jax.process_index() == 0 else ():
            print(json.dumps(result))

    processes.run_together(args, plain, job)
    return 0


def stored_config(args: argparse.Namespace) -> "ConfigDict":
    """The config given by --config, else that of the work directory, for all held-out data."""
    from etils import epath

    from xlnet_jax import config_files

    workdir = epath.Path(args.workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"--workdir={args.workdir}: no such folder, wanted that of a run")
    overrides = ["--config.train.eval_steps=0", *args.overrides]  # the later one counts
    if args.config is None:
        return config_files.load_json(os.fspath(workdir / "config.json"), overrides)
    return config_files.load(args.config, overrides)


def checkpoint_name(text: str) -> int | str:
    """The value of --checkpoint."""
    if text in ("latest", "best", "all"):
        return text
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"wanted a step number, latest, best or all, got {text!r}")
