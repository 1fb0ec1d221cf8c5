"""Attention probabilities of one layer, for looking at; training and inference never keep them.

Axis letters are those of `transformer.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model import positions
from xlnet_jax.model.attention import HeadBiases, Rows, relative_attention
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.transformer import XLNet, make_streams


def attention_probabilities(
    config: XLNetConfig,
    params: Mapping[str, Any],
    tokens: Int[Array, "B T"],
    layer: int,
    *,
    run: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    segment_ids: Int[Array, "B T"] | None = None,
    padding: Bool[Array, "B T"] | None = None,
    visible: Bool[Array, "B T T"] | None = None,
    memory: Float[Array, "Y B M D"] | None = None,
) -> Float[Array, "B N T S"]:
    """[b, n, i, j]: how much token i takes from key j in head n of a layer (counted from 0).

    `params` are those of `XLNet` itself ("xlnet" of a model with a head); the other inputs mean
    what they mean there. Content stream, float32, no dropout. Keys are the memory, then the tokens.

    Raises ValueError if there is no such layer.
    """
    if not 0 <= layer < config.n_layer:
        raise ValueError(f"layer {layer} does not exist; wanted 0 to {config.n_layer - 1}")
    num_tokens, mem_len = tokens.shape[1], 0 if memory is None else memory.shape[2]
    # A memory as long as the segment is exactly the input of every layer.
    run = dataclasses.replace(run, mem_len=num_tokens, reuse_len=0, dtype="float32")
    inputs = XLNet(config, run).apply(
        {"params": params},
        tokens,
        segment_ids=segment_ids,
        padding=padding,
        visible=visible,
        memory=memory,
    )
    (rows,) = make_streams(run, num_tokens, mem_len, segment_ids, padding, visible, None, None)
    codes = positions.relative_position_codes(
        num_tokens,
        mem_len + num_tokens,
        config.d_model,
        clamp_len=run.clamp_len,
        bi_data=run.bi_data,
    )
    codes -= positions.code_of_here(config.d_model)
    x = inputs.memory[layer]  # type: ignore[union-attr]
    keys = x if memory is None else jnp.concatenate([memory[layer], x], axis=1)
    weights = {name: value[layer] for name, value in params["layers"]["attention"].items()}
    names = ("r_w_bias", "r_r_bias", "r_s_bias")
    shared = {} if config.untie_r else {name: params[name] for name in names}
    return _probabilities(x, keys, codes, {**weights, **shared}, rows)


def _probabilities(
    x: Float[Array, "B T D"],
    keys: Float[Array, "B S D"],
    codes: Float[Array, "G R D"],
    weights: Mapping[str, Array],
    rows: Rows,
) -> Float[Array, "B N T S"]:
    """The core returns probabilities × values, so with rows of the identity as values, themselves.

    A value has H numbers; so the identity goes in by stripes of H columns.
    """
    q = jnp.einsum("BTD,DNH->BTNH", x, weights["q"])
    k = jnp.einsum("BSD,DNH->BSNH", keys, weights["k"])
    r = jnp.einsum("GRD,DNH->GRNH", codes, weights["r"])
    biases = HeadBiases(*(weights[name] for name in HeadBiases._fields))
    num_keys, head_size = k.shape[1], k.shape[-1]
    stripes = []
    for first in range(0, num_keys, head_size):
        columns = jnp.eye(num_keys, head_size, k=-first)
        v = jnp.broadcast_to(columns[None, :, None, :], k.shape)
        stripes.append(relative_attention(q, k, v, r, biases, rows))
    return jax.lax.transpose(jnp.concatenate(stripes, axis=-1)[..., :num_keys], (0, 2, 1, 3))
