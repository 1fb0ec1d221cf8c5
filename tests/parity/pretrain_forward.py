"""Two-stream passes: query output, losses, gradients and memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import traverse_util

from tests.convert import examples
from tests.parity import model_cases as mc
from tests.parity.case import Case, Result, relative_error, worst
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks.losses import cross_entropy


def cases(root: Path) -> Iterator[Case]:
    return mc.named_cases(root, "pretrain_forward", run_case)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run_model(
    model: PermutationLanguageModel,
    want_gradients: bool,
    params: Any,
    targets: jax.Array,
    weights: jax.Array,
    inputs: dict[str, Any],
) -> tuple[Any, Any]:
    """((loss, (losses, output)), gradients or None); cases of equal form share one program."""

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        logits, output = cast(Any, model.apply)(params, **inputs)
        losses = cross_entropy(logits, targets)
        return (losses * weights).sum() / weights.sum(), (losses, output)

    if want_gradients:
        return jax.value_and_grad(loss_of, has_aux=True)(params)
    return loss_of(params), None


def run_case(folder: Path, name: str, options: dict[str, Any], **changes: Any) -> Result:
    """`changes` are fields of `RunConfig`, to run the case in another form."""
    config, params = mc.load_model(folder)
    features = mc.arrays_of(np.load(folder / "inputs.npz"), name)
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    layout = mc.Layout(len(features["input_k"]), bi_data=options["bi_data"])
    model = PermutationLanguageModel(config, mc.run_config(options, **changes))
    inputs = mc.pretraining_inputs(features, layout)
    inputs["memory"] = layout.memory_in(features["mems"]) if "mems" in features else None
    targets = layout.batch_first(features["target"])
    weights = layout.batch_first(features["target_mask"])

    (loss, (losses, output)), gradients = run_model(
        model, any(key.startswith("grad") for key in wanted), params, targets, weights, inputs
    )
    counted = layout.hidden_out(weights) > 0  # a filler's query is another one here
    got = {
        "total_loss": loss,
        "token_loss": layout.hidden_out(losses)[counted],
        "query_output": layout.hidden_out(output.hidden)[counted],
    }
    wanted |= {key: wanted[key][counted] for key in ("token_loss", "query_output") if key in wanted}
    if "new_mems" in wanted:
        got["new_mems"] = layout.memory_out(output.memory)
    errors = {}
    if gradients is not None:
        flat = traverse_util.flatten_dict(gradients["params"], sep="/")
        grads = examples.variables_of(flat, config)
        errors = mc.gradient_errors(grads, wanted)
        # The tied output makes the embedding's gradient dense, also behind a gather: no row of it
        # is counted apart, and the original clips by the true norm.
        got["grad_norm_as_original"] = mc.norm(grads)
    plain = sorted(wanted.keys() - errors.keys())
    absent = set(plain) - got.keys()
    assert not absent, f"{name}: nothing to compare with {absent}"
    return worst(
        errors | {key: (relative_error(got[key], wanted[key]), mc.TOLERANCE) for key in plain}
    )
