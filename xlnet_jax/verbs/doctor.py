"""`xlnet-jax doctor`: is this machine ready?"""

import argparse

SUMMARY = "check versions, devices and the parts everything needs"

DESCRIPTION = """\
Prints versions, devices, processors, memory and disk, and tries what every job needs: a compiled
float32 and bfloat16 matrix product, TensorFlow, SentencePiece, a writable temporary folder.
Exit status 0 if all is well, 1 if not, with one line a problem and its remedy. Changes nothing.
"""

EXAMPLES = """\
  xlnet-jax doctor
  xlnet-jax doctor --json > machine.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this verb."""
    parser.add_argument(
        "--json", action="store_true", help="print the whole report as one JSON object"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; the status says whether a problem was found."""
    from xlnet_jax import doctor

    findings = doctor.examine()
    print(doctor.as_json(findings) if args.json else doctor.as_text(findings))
    return 1 if any(finding.problem for finding in findings) else 0
