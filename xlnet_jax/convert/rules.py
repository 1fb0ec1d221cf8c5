"""The table: variable of the original's TensorFlow checkpoints <-> parameter of ours.

Parameters of the layers are stacked, [Y, ...]; the original has one variable a layer. Reading is
strict on both sides: a variable that no rule names, a missing one, or a wrong shape is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xlnet_jax.model.config import XLNetConfig

Params = dict[str, Any]


class Rule(NamedTuple):
    """`variable` holds `{layer}` where the original has one variable a layer."""

    variable: str
    parameter: str


_LAYER = "model/transformer/layer_{layer}/"
RULES: tuple[Rule, ...] = (
    Rule("model/transformer/word_embedding/lookup_table", "xlnet/word_embedding"),
    Rule("model/transformer/mask_emb/mask_emb", "xlnet/mask_embedding"),
    Rule("model/transformer/seg_embed", "xlnet/layers/attention/seg_embed"),
    *(Rule(f"{_LAYER}rel_attn/{n}/kernel", f"xlnet/layers/attention/{n}") for n in "qkvro"),
    Rule(f"{_LAYER}rel_attn/LayerNorm/gamma", "xlnet/layers/attention_norm/scale"),
    Rule(f"{_LAYER}rel_attn/LayerNorm/beta", "xlnet/layers/attention_norm/bias"),
    Rule(f"{_LAYER}ff/layer_1/kernel", "xlnet/layers/feed_forward/kernel_1"),
    Rule(f"{_LAYER}ff/layer_1/bias", "xlnet/layers/feed_forward/bias_1"),
    Rule(f"{_LAYER}ff/layer_2/kernel", "xlnet/layers/feed_forward/kernel_2"),
    Rule(f"{_LAYER}ff/layer_2/bias", "xlnet/layers/feed_forward/bias_2"),
    Rule(f"{_LAYER}ff/LayerNorm/gamma", "xlnet/layers/feed_forward_norm/scale"),
    Rule(f"{_LAYER}ff/LayerNorm/beta", "xlnet/layers/feed_forward_norm/bias"),
    Rule("model/lm_loss/bias", "lm_bias"),
)
# The head biases have one row a layer if untied, and live beside the embedding if tied.
_HEAD_BIASES = ("r_w_bias", "r_r_bias", "r_s_bias")


def rules_for(config: XLNetConfig) -> tuple[Rule, ...]:
    """All rules that hold for a network of this shape."""
    place = "xlnet/layers/attention" if config.untie_r else "xlnet"
    return RULES + tuple(Rule(f"model/transformer/{n}", f"{place}/{n}") for n in _HEAD_BIASES)


def params_from_variables(
    variables: Mapping[str, np.ndarray], config: XLNetConfig, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Parameters by path ("xlnet/word_embedding", ...) from the original's variables.

    `shapes` says which parameters are wanted and their shapes. Raises ValueError with one line
    for each variable that is left over, missing, or of another shape.
    """
    rules = {rule.parameter: rule.variable for rule in rules_for(config)}
    problems, used, params = [], set(), {}
    for path, shape in shapes.items():
        if path not in rules:
            problems.append(f"parameter {path}: no rule names its variable")
            continue
        names = _variables_of(rules[path], config)
        used.update(names)
        if absent := [name for name in names if name not in variables]:
            problems.append(f"parameter {path}: missing variables {absent}")
            continue
        arrays = [np.asarray(variables[name]) for name in names]
        value = np.stack(arrays) if "{layer}" in rules[path] else arrays[0]
        if path == "xlnet/mask_embedding":
            value = value.reshape(-1)
        if value.shape != shape:
            problems.append(
                f"parameter {path}: wanted shape {shape}, got {value.shape} from {names}"
            )
            continue
        params[path] = value
    problems += [f"variable {name}: not used" for name in sorted(variables.keys() - used)]
    if problems:
        raise ValueError("checkpoint and model do not match:\n  " + "\n  ".join(problems))
    return params


def variables_from_params(
    params: Mapping[str, np.ndarray], config: XLNetConfig
) -> dict[str, np.ndarray]:
    """The inverse of `params_from_variables`."""
    variables: dict[str, np.ndarray] = {}
    rules = {rule.parameter: rule.variable for rule in rules_for(config)}
    for path, value in params.items():
        array = np.asarray(value)
        if path == "xlnet/mask_embedding":
            array = array.reshape(1, 1, -1)
        names = _variables_of(rules[path], config)
        layers = list(array) if "{layer}" in rules[path] else [array]
        variables.update(zip(names, layers, strict=True))
    return variables


def is_optimizer_slot(name: str) -> bool:
    """Whether a checkpoint variable belongs to the optimizer or counts steps."""
    return bool(re.search(r"(/adam_[mv]|/Adam(_1)?|^beta[12]_power|^global_step)$", name))


def _variables_of(template: str, config: XLNetConfig) -> list[str]:
    if "{layer}" not in template:
        return [template]
    return [template.format(layer=layer) for layer in range(config.n_layer)]
