"""The command `xlnet-jax VERB`: what all verbs share.

Each verb is a module of `xlnet_jax.verbs`. Here are the parser, the way errors end (wrong input:
one line and exit status 2; a mistake of ours: the traceback) and what signals do. Nothing heavy
is imported before a verb runs.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NoReturn

import xlnet_jax
from xlnet_jax.training import tpu_library

VERBS = (
    "vocab",
    "corpus",
    "train",
    "evaluate",
    "predict",
    "convert",
    "encode",
    "records",
    "plan",
    "doctor",
)

WRONG_INPUT = 2
JOB_FAILED = 1

EXIT_CODES = """\
exit codes:
  0    done
  1    the job failed: a loss or gradient was not finite, convert --verify found a difference, or
       doctor found a problem
  2    wrong input, flag or config, or a file could not be read or written; one line on standard
       error says what was received, what was wanted and what to change
  130  interrupted from the keyboard
  143  terminated; train saves a checkpoint instead and exits 0
"""

INTRODUCTION = """\
Pretrain XLNet from raw text, fine-tune it, encode text with it, convert its checkpoints, plan its
runs: one verb a step. `xlnet-jax VERB --help` lists every flag.

  text files --vocab--> SentencePiece model --corpus--> token shards --train--> checkpoints
  checkpoint and labelled text --train--> fine-tuned model --evaluate, predict--> scores, answers
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line ends in descriptions, and ends each flag's help with its default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not action.help or "default" in action.help or action.required:
            return action.help
        if action.default in (None, argparse.SUPPRESS, "", []) or action.const is True:
            return action.help
        return action.help + " (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """Ends a wrong command line with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """Builds the parser of the tool with a sub-parser for each verb."""
    parser = _Parser(
        prog="xlnet-jax",
        description=INTRODUCTION,
        epilog=EXIT_CODES,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xlnet-jax {xlnet_jax.__version__}")
    _add_debug(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    for name in VERBS:
        module = _verb_module(name)
        verb = verbs.add_parser(
            name,
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            epilog=f"examples:\n{module.EXAMPLES}\n{EXIT_CODES}",
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        module.add_arguments(verb)
        _add_debug(verb)
        verb.set_defaults(verb_parser=verb, takes_overrides=False)
        if getattr(module, "TAKES_OVERRIDES", False):
            verb.set_defaults(takes_overrides=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `xlnet-jax` with the given arguments (default: those of the process).

    Returns:
        The exit status, as listed in `EXIT_CODES`. A wrong command line and `--help` leave by
        SystemExit, as is usual for argparse.
    """
    args, rest = make_parser().parse_known_args(argv)
    if rest and not args.takes_overrides:
        stray = all(not word.startswith("-") for word in rest)
        hint = "; several values follow a flag after a space: --input A B" if stray else ""
        args.verb_parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    args.overrides = rest
    args.debug = getattr(args, "debug", False)
    if not args.debug:
        quieten_libraries()
    previous = signal.signal(signal.SIGTERM, _leave_on_sigterm)
    try:
        return _verb_module(args.verb).run(args) or 0
    except KeyboardInterrupt as error:
        return _report(args, "interrupted", exit_status(error))
    except FloatingPointError as error:
        return _report(args, str(error), exit_status(error))
    except (ValueError, OSError) as error:
        return _report(args, _describe(error), exit_status(error))
    finally:
        signal.signal(signal.SIGTERM, previous)


def exit_status(error: BaseException) -> int:
    """The exit status that an exception out of a verb ends in."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else JOB_FAILED
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return WRONG_INPUT if isinstance(error, ValueError | OSError) else JOB_FAILED


def _verb_module(name: str) -> ModuleType:
    return importlib.import_module(f"xlnet_jax.verbs.{name}")


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="show the whole traceback of an error, and TensorFlow's own log lines",
    )


def _report(args: argparse.Namespace, message: str, status: int) -> int:
    if args.debug:
        traceback.print_exc()
    print(f"xlnet-jax {args.verb}: error: {message}", file=sys.stderr)
    return status


def _describe(error: ValueError | OSError) -> str:
    """The message of an error; the system's own errors as `file: reason`."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror
    return str(error) or type(error).__name__


def quieten_libraries() -> None:
    """Hides start-up chatter of gRPC and libtpu (the package itself hides that of TensorFlow).

    Values set by the user stay. Hidden too are the tracebacks that Orbax and asyncio log, hundreds
    of lines, of a failure that ends in one line of ours all the same.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not tpu_library.has_chips():
        tpu_library.stay_offline()
    importlib.import_module("absl.logging")  # makes its logger
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    if sys.unraisablehook is not _unraisable:
        global _previous_hook
        _previous_hook, sys.unraisablehook = sys.unraisablehook, _unraisable


def _is_news(record: logging.LogRecord) -> bool:
    """False for an exception in a save, which is raised too; a failed deletion is still said."""
    of_a_save = record.name == "asyncio" or (
        "orbax" in record.pathname and "orbax/checkpoint/_src/path/" not in record.pathname
    )
    return not (of_a_save and record.levelno == logging.ERROR and record.exc_info)


_previous_hook = sys.unraisablehook


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Leaves out the complaints of writes that Orbax dropped when another one failed."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        _previous_hook(unraisable)


def _leave_on_sigterm(number: int, frame: FrameType | None) -> None:
    """Leaves by an exception, so that temporary files and worker processes are cleaned up."""
    raise SystemExit(128 + number)
