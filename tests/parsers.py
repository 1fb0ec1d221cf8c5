"""The parsers of the verbs, for tests of their flags."""

import argparse

from xlnet_jax import cli


def verb_parsers():
    """Name of a verb -> its argparse parser."""
    (verbs,) = [
        action
        for action in cli.make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return verbs.choices
