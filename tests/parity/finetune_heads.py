"""Classification and regression: pooled vectors, logits, losses, gradients."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.parity import head_cases
from tests.parity import model_cases as mc
from tests.parity.case import Result, relative_error, worst
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.heads import SequenceClassifier
from xlnet_jax.tasks import losses

ENTRIES = ("get_classification_loss", "get_regression_loss")


def classes_of(options: Mapping[str, Any]) -> int | None:
    """How many classes; None for regression."""
    return None if options.get("is_regression") else options.get("n_class")


def head_of(options: Mapping[str, Any]) -> Head:
    """The scope that is said, or that the original gives to the task."""
    kind = "regression" if classes_of(options) is None else "classification"
    scope = options.get("head_scope") or f"{kind}_{options['task_name'].lower()}"
    return Head(*scope.split("_", 1))


def make_model(config: XLNetConfig, options: Mapping[str, Any]) -> SequenceClassifier:
    """The original pools over padding too."""
    return SequenceClassifier(
        config,
        mc.run_config(options),
        classes_of(options) or 1,
        options["summary_type"],
        options["use_summ_proj"],
        count_padding=True,
    )


def example_losses(logits: jax.Array, labels: jax.Array, n_class: int | None) -> jax.Array:
    if n_class is None:
        return losses.squared_error(logits, labels)
    return losses.cross_entropy(logits, labels)


def model_inputs(features: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "tokens": features["input_ids"],
        "segment_ids": features["segment_ids"],
        "padding": features["input_mask"] > 0,
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_model(
    model: Any,
    n_class: int | None,
    want_gradients: bool,
    params: Any,
    inputs: dict[str, Any],
    labels: Any,
) -> tuple[dict[str, Any], Any]:
    """Outputs by the goldens' names, gradients or None; cases of equal form share one program."""

    def loss_of(params: Any, tokens: Any, model: Any) -> Any:
        def both(model: Any, **inputs: Any) -> Any:
            pooled = model.pooled(**inputs)
            return pooled, model.logits(pooled)

        pooled, logits = model.apply({"params": params}, **inputs | {"tokens": tokens}, method=both)
        each = example_losses(logits, labels, n_class)
        return each.mean(), {
            "pooled": pooled,
            "logits": logits if n_class is not None else logits[..., 0],
            "per_example_loss": each,
            "total_loss": each.mean(),
        }

    tokens = inputs["tokens"]
    if not want_gradients:
        return loss_of(params, tokens, model)[1], None
    gradients, got = jax.grad(loss_of, has_aux=True)(params, tokens, model)
    by_rows = head_cases.of_vocabulary(model, tokens.size)
    got["grad_norm_as_original"] = head_cases.norm_of_rows(
        lambda params, places: loss_of(params, places, by_rows)[0], params, tokens
    )
    return got, gradients


def run_case(folder: Path, name: str, options: dict[str, Any]) -> Result:
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    features = mc.arrays_of(np.load(folder / "inputs.npz"), name)
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    known = {"input_ids", "segment_ids", "input_mask", "label_ids"}
    assert features.keys() == known, f"{name}: inputs {sorted(features)}, known {sorted(known)}"
    model, inputs = make_model(config, options), model_inputs(features)
    head = head_of(options)
    params = head_cases.load(folder, model, head, **inputs)
    with_gradients = any(key.startswith("grad") for key in wanted)
    got, gradients = run_model(
        model, classes_of(options), with_gradients, params, inputs, features["label_ids"]
    )
    errors = {}
    if with_gradients:
        grads = head_cases.variables_from(gradients, config, head)
        errors = mc.gradient_errors(grads, wanted)
        if options.get("use_tpu"):  # looked up by a product, whose gradient is dense
            got["grad_norm_as_original"] = mc.norm(grads)
    plain = [key for key in wanted if key not in errors]
    absent = set(plain) - got.keys()
    assert not absent, f"{name}: nothing to compare with {absent}"
    errors |= {key: (relative_error(got[key], wanted[key]), mc.TOLERANCE) for key in plain}
    return worst(errors)
