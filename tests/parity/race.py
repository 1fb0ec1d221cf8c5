"""Multiple choice: logits, losses, gradients."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.parity import finetune_heads, head_cases
from tests.parity import model_cases as mc
from tests.parity.case import Case, Result, relative_error, worst
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.heads import MultipleChoice
from xlnet_jax.tasks import losses

HEAD = Head("multiple_choice")


def cases(root: Path) -> Iterator[Case]:
    return mc.named_cases(root, "race", run_case)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run_model(
    model: Any, want_gradients: bool, params: Any, inputs: dict[str, Any], labels: Any
) -> tuple[dict[str, Any], Any]:
    """Outputs by the goldens' names, gradients or None; cases of equal form share one program."""

    def loss_of(params: Any) -> Any:
        logits = model.apply({"params": params}, **inputs)
        each = losses.cross_entropy(logits, labels)
        got = {"logits": logits, "per_example_loss": each, "total_loss": each.mean()}
        return each.mean(), got

    if not want_gradients:
        return loss_of(params)[1], None
    gradients, got = jax.grad(loss_of, has_aux=True)(params)
    return got, gradients


def run_case(folder: Path, name: str, options: Mapping[str, Any]) -> Result:
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    features = mc.arrays_of(np.load(folder / "inputs.npz"), name)
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    model = MultipleChoice(
        config,
        mc.run_config(options),
        summary_type=options["summary_type"],
        use_projection=options["use_summ_proj"],
        count_padding=True,
    )
    labels = features.pop("label_ids")
    inputs = finetune_heads.model_inputs(
        {key: value.reshape(len(labels), -1, options["seq_len"]) for key, value in features.items()}
    )
    params = head_cases.load(folder, model, HEAD, **inputs)
    with_gradients = any(key.startswith("grad") for key in wanted)
    got, gradients = run_model(model, with_gradients, params, inputs, labels)
    errors = {}
    if with_gradients:
        errors = head_cases.gradient_errors(gradients, config, HEAD, wanted)
    plain = [key for key in wanted if key not in errors]
    assert set(plain) == got.keys(), f"{name}: {set(plain) ^ got.keys()} on one side only"
    return worst(
        errors | {key: (relative_error(got[key], wanted[key]), mc.TOLERANCE) for key in plain}
    )
