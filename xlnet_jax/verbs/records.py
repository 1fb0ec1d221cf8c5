"""`xlnet-jax records`: token shards to TFRecords that the original code trains on."""

import argparse

from xlnet_jax.verbs.train import CONFIG_HELP

TAKES_OVERRIDES = True

SUMMARY = "write examples from token shards as the original code's TFRecords"

DESCRIPTION = f"""\
Draws the examples of whole epochs from config.data.train and writes them with the file names,
record_info and corpus_info of the original's data_utils.py: one pass an epoch, host batches of
config.train.batch_size rows. Pairs and spans are frozen in such records; xlnet-jax train needs none
of this.

{CONFIG_HELP}"""

EXAMPLES = """\
  xlnet-jax records --config=configs/pretrain.py:base,behaviour=reference --output_dir=proc_data \\
      --config.data.train=shards --config.train.batch_size=32 --num_core_per_host=8
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="config file")
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="folder that receives tfrecords/"
    )
    parser.add_argument("--num_passes", type=int, default=1, metavar="N", help="epochs written")
    parser.add_argument(
        "--num_core_per_host",
        type=int,
        default=1,
        metavar="N",
        help="cores that the original will share a host batch out to",
    )
    parser.add_argument(
        "--uncased", action="store_true", help="name the files as of lower-cased text"
    )


def run(args: argparse.Namespace) -> int:
    """Reads the config, then writes the records of each pass."""
    from xlnet_jax import config_files

    if args.num_passes < 1:
        raise ValueError(f"--num_passes must be at least 1, got {args.num_passes}")
    config = config_files.load(args.config, args.overrides)

    from xlnet_jax.tasks import record_export, sampling
    from xlnet_jax.training import settings as training_settings

    settings = training_settings.parse(config.to_dict())
    if settings.task != "pretraining":
        raise ValueError(
            f"--config={args.config} is of the task {settings.task!r}; records are of pretraining"
        )
    source = sampling.open_source(
        settings.data.train,
        settings.data,
        settings.train.batch_size,
        cache_dir=settings.data.cache or None,
    )
    for epoch in range(args.num_passes):
        info = record_export.write_examples(
            source,
            args.output_dir,
            epoch=epoch,
            num_core_per_host=args.num_core_per_host,
            uncased=args.uncased,
            use_eod=source.manifest.use_eod,
            vocab_size=source.manifest.vocab_size,
            sp_path=f"{settings.data.train}/spiece.model",
            input_glob=settings.data.train,
        )
        for name in info.filenames:
            print(f"{name}: {info.num_batch} batches of {settings.train.batch_size}")
    return 0
