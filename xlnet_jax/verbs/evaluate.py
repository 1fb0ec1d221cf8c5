"""`xlnet-jax evaluate`: held-out loss of a checkpoint."""

import argparse
import json
import os

from xlnet_jax.verbs.train import CONFIG_HELP

TAKES_OVERRIDES = True

SUMMARY = "evaluate a checkpoint of a run on held-out data"

DESCRIPTION = f"""\
Evaluates a checkpoint of a work directory on the held-out data that its config names, and ends in
one line of JSON: step, loss, and the entropy of the same targets under their own counts. Without
--config the config stored in the work directory (config.json) is used, with any overrides given
here.

{CONFIG_HELP}"""

EXAMPLES = """\
  xlnet-jax evaluate --workdir=runs/base
  xlnet-jax evaluate --workdir=runs/base --checkpoint=20000 \\
      --config=configs/pretrain.py:base
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
        type=_checkpoint,
        default="latest",
        metavar="STEP|latest",
        help="step number of the checkpoint, or the newest complete one",
    )


def run(args: argparse.Namespace) -> int:
    """Reads the given or the stored config, then evaluates."""
    from etils import epath

    from xlnet_jax import config_files

    workdir = epath.Path(args.workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"--workdir={args.workdir}: no such folder, wanted that of a run")
    if args.config is None:
        config = config_files.load_json(os.fspath(workdir / "config.json"), args.overrides)
    else:
        config = config_files.load(args.config, args.overrides)

    from xlnet_jax import host_memory

    host_memory.keep_freed_memory()  # before the heavy imports, which start threads
    from xlnet_jax.training import run as training_run

    result = training_run.evaluate(config.to_dict(), args.workdir, checkpoint=args.checkpoint)
    print(json.dumps(result))
    return 0


def _checkpoint(text: str) -> int | str:
    if text == "latest" or text.isdecimal():
        return text if text == "latest" else int(text)
    raise argparse.ArgumentTypeError(f"wanted a step number or latest, got {text!r}")
