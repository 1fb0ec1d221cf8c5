import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model import positions
from xlnet_jax.model.attention import RelativeAttention
from xlnet_jax.model.attention_maps import attention_probabilities
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.transformer import XLNet, make_streams

INPUTS = {
    name: value for name, value in small.two_stream_inputs().items() if not name.startswith("query")
}
PADDING = jnp.zeros((small.BATCH, small.TOKENS), bool).at[0, :2].set(True)


def attention_output(config, run, params, layer, tokens, *, memory=None, **restrictions):
    """Inputs of one layer, and what its attention makes of them, without the map."""
    num_tokens, mem_len = tokens.shape[1], 0 if memory is None else memory.shape[2]
    keeping = dataclasses.replace(run, mem_len=num_tokens)
    kept = XLNet(config, keeping).apply({"params": params}, tokens, memory=memory, **restrictions)
    wanted = {"segment_ids": None, "padding": None, "visible": None, **restrictions}
    streams = make_streams(
        run, num_tokens, mem_len, **wanted, query_tokens=None, query_visible=None
    )
    codes = positions.relative_position_codes(
        num_tokens, mem_len + num_tokens, config.d_model, bi_data=run.bi_data
    ) - positions.code_of_here(config.d_model)
    own = jax.tree.map(lambda x: x[layer], params["layers"]["attention"])
    shared = None
    if not config.untie_r:
        shared = tuple(params[name] for name in ("r_w_bias", "r_r_bias", "r_s_bias"))
    old = None if memory is None else memory[layer]
    x = kept.memory[layer]
    out = RelativeAttention(config, run).apply(
        {"params": own}, x, old, codes, streams, shared, False
    )
    return x if old is None else jnp.concatenate([old, x], axis=1), out


@pytest.mark.parametrize(
    ("layer", "names", "options"),
    [
        (0, ("segment_ids", "padding"), {}),
        (1, ("segment_ids", "visible", "memory"), {"bi_data": True}),
        (1, ("memory",), {"causal": True}),
    ],
    ids=["fine-tuning", "pretraining", "past only"],
)
def test_map_times_values_is_what_the_layer_computes(layer, names, options):
    params = small.parameters()["params"]
    run, inputs = RunConfig(**options), {**INPUTS, "padding": PADDING}
    given = {name: inputs[name] for name in names}
    found = attention_probabilities(small.CONFIG, params, INPUTS["tokens"], layer, run=run, **given)
    keys, wanted = attention_output(small.CONFIG, run, params, layer, INPUTS["tokens"], **given)
    weights = jax.tree.map(lambda x: x[layer], params["layers"]["attention"])
    values = jnp.einsum("BSD,DNH->BSNH", keys, weights["v"])
    made = jnp.einsum("BNTS,BSNH,DNH->BTD", found, values, weights["o"])
    assert found.shape == (small.BATCH, 2, small.TOKENS, keys.shape[1])
    small.assert_close(made, wanted)


def test_rows_sum_to_one_and_nothing_hidden_is_seen():
    params = small.parameters()["params"]
    found = np.asarray(
        attention_probabilities(
            small.CONFIG, params, INPUTS["tokens"], 1, padding=PADDING, visible=INPUTS["visible"]
        )
    )
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)
    hidden = ~(np.asarray(INPUTS["visible"]) & ~np.asarray(PADDING)[:, None])
    hidden &= ~np.eye(small.TOKENS, dtype=bool)
    assert hidden.any()
    assert (found.transpose(0, 2, 3, 1)[hidden] == 0).all()


def test_biases_shared_by_all_layers():
    config = dataclasses.replace(small.CONFIG, untie_r=False)
    tokens = INPUTS["tokens"]
    params = XLNet(config, RunConfig(init_std=0.4)).init(jax.random.key(1), tokens)["params"]
    found = attention_probabilities(config, params, tokens, 1)
    keys, wanted = attention_output(config, RunConfig(), params, 1, tokens)
    weights = jax.tree.map(lambda x: x[1], params["layers"]["attention"])
    values = jnp.einsum("BSD,DNH->BSNH", keys, weights["v"])
    small.assert_close(jnp.einsum("BNTS,BSNH,DNH->BTD", found, values, weights["o"]), wanted)


def test_a_layer_that_does_not_exist():
    params = small.parameters()["params"]
    with pytest.raises(ValueError, match="layer 2 does not exist; wanted 0 to 1"):
        attention_probabilities(small.CONFIG, params, INPUTS["tokens"], 2)
