"""Networks with a head in which no number occurs twice, so that any swap of parameters shows."""

from pathlib import Path

import numpy as np
from flax import traverse_util

from xlnet_jax.convert import rules
from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.convert.table import Head, rules_for, shape_of
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import XLNetConfig

GOLDENS = Path(__file__).parents[1] / "goldens"
SPIECE_MODEL = GOLDENS / "tokenization" / "en" / "spiece.model"  # of 2000 pieces
HEADS = ("classification", "regression", "multiple_choice", "tagging", "span_qa")
PARTS = {
    None: {"trunk", "mask", "lm"},
    "classification": {"trunk", "mask", "projection", "logits"},
    "regression": {"trunk", "mask", "projection", "logits"},
    "multiple_choice": {"trunk", "mask", "projection", "logits"},
    "tagging": {"trunk", "mask", "logits"},
    "span_qa": {"trunk", "mask", "span", "answer"},
}


def config(**changes):
    values = {
        "n_token": 2000, "d_model": 8, "n_layer": 2, "n_head": 2, "d_head": 4, "d_inner": 8,
        "ff_activation": "gelu", "untie_r": True,
    }  # fmt: skip
    return XLNetConfig(**{**values, **changes})


def flat_params(network, head=None, *, parts=None, labels=3, seed=0):
    """By path; D = F, so that a kernel which is not transposed has the right shape too."""
    kind = head.kind if head else None
    wanted = parts or PARTS[kind]
    rows = [row for row in rules_for(network, head) if row.part in wanted]
    shapes = {
        row.parameter: tuple(size or labels for size in shape_of(row.axes, network)) for row in rows
    }
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    numbers = np.random.default_rng(seed).permutation(total).astype(np.float32) / total - 0.5
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    parts_of = np.split(numbers, ends)
    return {
        path: part.reshape(shape)
        for (path, shape), part in zip(shapes.items(), parts_of, strict=True)
    }


def pretrained(network=None, head=None, *, normalization=None, details=None, **options):
    network = network or config()
    tokenizer = Tokenizer(SPIECE_MODEL, normalization or Normalization(form="reference"))
    parsed = Head.parse(head) if head else None
    return Pretrained(
        network,
        traverse_util.unflatten_dict(flat_params(network, parsed, **options), sep="/"),
        tokenizer if network.n_token == tokenizer.vocab_size else None,
        "made here",
        head,
        details or {},
    )


def variables_of(params, network, head=None):
    """The original's variables of parameters (or gradients), which need not be all of a model."""
    allowed = rules.Allowed(missing=("*",))
    return rules.from_params(params, network, "tensorflow", head=head, allowed=allowed).arrays


def flatten(params):
    return traverse_util.flatten_dict(params, sep="/")


def assert_equal(got, wanted):
    """Parameters, nested or not, are the same to the last bit."""
    got, wanted = (flatten(p) if isinstance(p.get("xlnet"), dict) else p for p in (got, wanted))
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(got[name], value, err_msg=name)
