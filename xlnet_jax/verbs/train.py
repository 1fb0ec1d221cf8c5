"""`xlnet-jax train`: pretrain or fine-tune from a config file, or resume."""

import argparse

from xlnet_jax.verbs import processes

TAKES_OVERRIDES = True

SUMMARY = "train a model from a config file; the same command again resumes"

CONFIG_HELP = """\
--config names a Python file with get_config(), or get_config(arg) for FILE.py:ARG. Any of its
keys is set from the command line by its dotted path:

  --config.KEY=VALUE     a value of the type the config gives it; None empties it;
                         tuples as --config.KEY='(1,2)'
  --config.KEY, --noconfig.KEY   true and false

An unknown key or a value of another type is an error that names the nearest key or the type.
"""

DESCRIPTION = f"""\
Pretrains on token shards (see xlnet-jax corpus) or the original's records, or fine-tunes on the
files of a task, whichever the config's task says, on all local devices. config.init_from names
weights to start from: a TensorFlow or Hugging Face checkpoint, a converted folder, a work
directory.

The work directory receives checkpoints, metrics.csv, a TensorBoard log, the resolved config
(config.json) and a picture of the curves. If it holds a complete checkpoint already, training goes
on from there: weights, optimizer, memory and data position. SIGTERM (a machine being taken away)
saves a checkpoint and exits 0.

{CONFIG_HELP}
{processes.HELP}"""

EXAMPLES = """\
  xlnet-jax train --config=configs/pretrain.py:base --workdir=runs/base \\
      --config.data.train=shards --config.data.heldout=shards/heldout \\
      --config.optimizer.learning_rate=1e-4
  xlnet-jax train --config=configs/pretrain.py:large --workdir=gs://BUCKET/runs/large \\
      --config.data.train=gs://BUCKET/shards --config.train.eval_every=0
  xlnet-jax train --config=configs/chnsenticorp.py --workdir=runs/reviews --seeds=10 \\
      --config.init_from=chinese_xlnet_mid --config.data.folder=chnsenticorp
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE.py[:ARG]",
        help="config file, with an argument for its variants (configs/pretrain.py:base)",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="folder of this run, made if missing; a local path or gs://",
    )
    processes.add_arguments(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="run the recipe with N seeds from config.seed on, in DIR/seed-K, and report max, mean,"
        " median and standard deviation of the held-out metrics (default: one run in DIR)",
    )


def run(args: argparse.Namespace) -> int:
    """Reads the config, then trains or resumes."""
    from xlnet_jax import config_files

    config = config_files.load(args.config, args.overrides)

    from xlnet_jax import host_memory

    host_memory.keep_memory_of_steps()
    plain = config.to_dict()

    def job() -> None:
        if args.seeds is None:
            from xlnet_jax.training import run as training_run

            training_run.train(plain, args.workdir)
            return

        from xlnet_jax.training import seeds

        summary = seeds.train_seeds(plain, args.workdir, args.seeds)
        if summary is None:
            print("stopped by SIGTERM; the same command again goes on")
        else:
            print("\n".join(seeds.table(summary)))

    processes.run_together(args, plain, job)
    return 0
