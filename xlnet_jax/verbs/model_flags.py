"""Flags of verbs that read a pretrained model: what may not lie beside its weights."""

import argparse


def add_model_files(group: argparse._ArgumentGroup) -> None:
    """Adds --spiece_model, --xlnet_config and --lower."""
    group.add_argument(
        "--spiece_model",
        metavar="FILE",
        help="vocabulary (default: spiece.model beside the weights)",
    )
    group.add_argument(
        "--xlnet_config",
        metavar="FILE",
        help="shape and activation of the network of a TensorFlow checkpoint (default:"
        " xlnet_config.json beside the weights)",
    )
    group.add_argument(
        "--lower",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the model wants lower-cased text (default: as its files say, and else no)",
    )
