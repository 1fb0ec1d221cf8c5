"""Span extraction: log probabilities, losses and gradients of training; beams of prediction."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity import finetune_heads, head_cases
from tests.parity import model_cases as mc
from tests.parity.case import Case, Result, relative_error, worst
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.span_head import SpanExtractor
from xlnet_jax.tasks import losses

HEAD = Head("span_qa")
_FORBIDDEN = -1e29  # log probabilities below are those of tokens that may not answer
_TRAINING_ONLY = ("start_positions", "end_positions", "is_impossible")


def cases(root: Path) -> Iterator[Case]:
    return mc.named_cases(root, "qa", run_case)


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(
    model: Any, want_gradients: bool, params: Any, inputs: dict[str, Any], answers: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
    """Outputs by the goldens' names, gradients or None."""

    def loss_of(params: Any) -> Any:
        starts = answers["start_positions"]
        out = model.apply({"params": params}, **inputs, start_positions=starts)
        each = losses.span_loss(
            out.start,
            out.end,
            starts,
            answers["end_positions"],
            out.answer,
            None if out.answer is None else answers["is_impossible"],
        )
        got = {
            "start_log_probs": jax.nn.log_softmax(out.start),
            "end_log_probs": jax.nn.log_softmax(out.end),
            "total_loss": each.mean(),
        }
        return each.mean(), got | ({} if out.answer is None else {"cls_logits": out.answer})

    if not want_gradients:
        return loss_of(params)[1], None
    gradients, got = jax.grad(loss_of, has_aux=True)(params)
    return got, gradients


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def predict(
    model: Any, num_starts: int, num_ends: int, params: Any, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Beams by the goldens' names; ends of all starts in one row."""
    beams = model.apply(
        {"params": params}, **inputs, num_starts=num_starts, num_ends=num_ends, method="beams"
    )
    batch = len(beams.starts)
    got = {
        "start_top_log_probs": beams.start_log_probs,
        "start_top_index": beams.starts,
        "end_top_log_probs": beams.end_log_probs.reshape(batch, -1),
        "end_top_index": beams.ends.reshape(batch, -1),
    }
    return got | ({} if beams.answer_logits is None else {"cls_logits": beams.answer_logits})


def run_case(folder: Path, name: str, options: Mapping[str, Any]) -> Result:
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    features = mc.arrays_of(np.load(folder / "inputs.npz"), name)
    wanted = mc.arrays_of(np.load(folder / "outputs.npz"), name)
    answerability = any(
        key.startswith("answer_class/")
        for key in head_cases.variables_in(str(mc.checkpoint(folder)))
    )
    model = SpanExtractor(config, mc.run_config(options), answerability)
    inputs = finetune_heads.model_inputs(features) | {
        "cannot_answer": features["p_mask"] > 0,
        "cls_positions": features["cls_index"],
    }
    starts = jnp.zeros_like(features["cls_index"])
    params = head_cases.load(folder, model, HEAD, **inputs, start_positions=starts)
    if options["mode"] == "train":
        answers = {key: features[key] for key in _TRAINING_ONLY}
        with_gradients = any(key.startswith("grad") for key in wanted)
        got, gradients = train(model, with_gradients, params, inputs, answers)
    else:
        sizes = options["start_n_top"], options["end_n_top"]
        got, gradients = predict(model, *sizes, params, inputs), None
    errors = {}
    if gradients is not None:
        errors = head_cases.gradient_errors(gradients, config, HEAD, wanted)
    plain = [key for key in wanted if key not in errors]
    assert set(plain) == got.keys(), f"{name}: {set(plain) ^ got.keys()} on one side only"
    return worst(errors | {key: error_of(key, got[key], wanted[key]) for key in plain})


def error_of(key: str, got: Any, wanted: np.ndarray) -> tuple[float, float]:
    """(error, tolerance): indices must be equal; of forbidden tokens only the size is compared."""
    got = np.asarray(got)
    if key.endswith("_index"):
        return float((got != wanted).sum()) if got.shape == wanted.shape else np.inf, 0.0
    if key.endswith("_log_probs"):
        allowed = wanted > _FORBIDDEN
        if got.shape != wanted.shape or ((got > _FORBIDDEN) != allowed).any():
            return np.inf, mc.TOLERANCE
        got, wanted = got[allowed], wanted[allowed]
    return relative_error(got, wanted), mc.TOLERANCE
