"""What the cases with fine-tuning heads share: parameters by the original's names, comparing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from tests.convert import examples
from tests.parity import model_cases as mc
from xlnet_jax.convert import rules, tensorflow
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig

# What a checkpoint may hold beside the head of a case.
_OTHER_HEADS = ("model/sequnece_summary/*", "model/classification_*", "model/regression_*")


@functools.lru_cache
def variables_in(path: str) -> dict[str, np.ndarray]:
    return tensorflow.read_checkpoint(path)


def load(folder: Path, model: Any, head: Head | None, **inputs: Any) -> dict[str, Any]:
    """Parameters of a model with a head; `inputs` are examples of its arguments."""
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), **x), inputs)["params"]
    wanted = {
        path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
    }
    variables = variables_in(str(mc.checkpoint(folder)))
    weights = {k: v for k, v in variables.items() if not rules.is_optimizer_slot(k)}
    allowed = rules.Allowed(unused=_OTHER_HEADS)
    flat = rules.to_params(
        weights, model.config, "tensorflow", head=head, wanted=wanted, allowed=allowed
    ).arrays
    return traverse_util.unflatten_dict(flat, sep="/")


def variables_from(params: Any, config: XLNetConfig, head: Head | None) -> dict[str, np.ndarray]:
    """Any tree of the parameters' form by the original's names."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return examples.variables_of(flat, config, head)


def gradient_errors(
    gradients: Any, config: XLNetConfig, head: Head | None, wanted: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Of every "grad:..." in `wanted`, and of the true norm if it is there."""
    return mc.gradient_errors(variables_from(gradients, config, head), wanted)


def norm_of_rows(loss: Any, params: Any, tokens: Any) -> jax.Array:
    """The gradient's norm when each looked-up embedding row counts by itself.

    So the original clips. `loss(params, tokens)` is looked up in a table with a row for each place.
    """
    rows = params["xlnet"]["word_embedding"][tokens.reshape(-1)]
    places = jnp.arange(tokens.size).reshape(tokens.shape)
    by_rows = params | {"xlnet": params["xlnet"] | {"word_embedding": rows}}
    return optax.tree.norm(jax.grad(loss)(by_rows, places))


def of_vocabulary(model: Any, size: int) -> Any:
    """The same model for a vocabulary of another size."""
    return model.clone(config=dataclasses.replace(model.config, n_token=size))
