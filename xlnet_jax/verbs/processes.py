"""Flags of the verbs that run on many hosts at once."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

HELP = """\
Many hosts: on a Cloud TPU slice start the same command on every host; they find each other through
the slice's metadata, on port 8476 of the first. Elsewhere say it by --coordinator, --num_processes
and --process_id. Workdir and data must be visible to all (gs:// or a shared file system).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--coordinator",
        metavar="HOST[:PORT]",
        help="host of process 0 and a port of it that all others reach (default: the slice's first"
        " host, port 8476)",
    )
    parser.add_argument(
        "--num_processes",
        type=int,
        metavar="N",
        help="processes of this run, one a host (default: the slice's hosts)",
    )
    parser.add_argument(
        "--process_id",
        type=int,
        metavar="I",
        help="number of this process, 0 to N-1 (default: the host's place in the slice)",
    )
    parser.add_argument(
        "--wait_seconds",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long processes wait for each other at the start",
    )


def run_together(args: argparse.Namespace, config: Mapping[str, Any], job: Callable[[], T]) -> T:
    """Runs `job` when all processes are there; see `training.distributed.session`.

    Raises ValueError or OSError for wrong flags, or if processes are missing or differ.
    """
    from xlnet_jax import cli
    from xlnet_jax.training import distributed

    place = distributed.find_place(args.coordinator, args.num_processes, args.process_id)
    with distributed.session(
        place,
        config,
        workdir=args.workdir,
        timeout=args.wait_seconds,
        exit_status=cli.exit_status,
    ):
        if args.verb != "train":
            distributed.keep_sigterm()
        return job()
