"""Equalities: forms of the network that must not change what it computes, and those that must."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import small
from xlnet_jax.model.config import NAMED_CONFIGS, RunConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.model.transformer import LayerNorm, XLNet

EXACT = RunConfig(**small.EXACT)
TRAINING = RunConfig(
    dropout=0.2,
    activation_dropout=0.3,
    attention_dropout=0.25,
    bi_data=True,
    mem_len=small.MEMORY,
    reuse_len=4,
)


def traced(run):
    """Training loss and its gradients for the parameters, traced."""
    inputs = small.two_stream_inputs()

    def loss(params):
        output = XLNet(small.CONFIG, run).apply(
            params, **inputs, train=True, rngs={"dropout": jax.random.key(3)}
        )
        return jnp.sin(3 * output.hidden).sum(), output.memory

    return jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(small.parameters())


@functools.cache
def plain():
    step = traced(TRAINING)
    return str(step.jaxpr), step.lower().compile()(small.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "attention", "scan_layers": False},
        {"remat": "dots"},
        {"remat": "full"},
        {"remat": "full", "scan_layers": False},
    ],
    ids=str,
)
def test_remat_and_unrolling_change_the_program_and_no_result(change):
    program, wanted = plain()
    step = traced(dataclasses.replace(TRAINING, **change))
    changed = str(step.jaxpr)
    assert changed.count("remat") > program.count("remat")
    loops = f"length={small.CONFIG.n_layer}", f"length={small.CONFIG.n_layer - 1}"
    assert [loop in program for loop in loops] == [True, False]
    assert [loop in changed for loop in loops] == [
        "scan_layers" not in change,
        "scan_layers" in change,
    ]
    small.assert_close(step.lower().compile()(small.parameters()), wanted)


def test_unrolled_the_last_layer_makes_no_rows_that_nobody_asks_for():
    inputs = small.two_stream_inputs()
    run = dataclasses.replace(TRAINING, scan_layers=False)

    def flops(**also):
        network = jax.jit(lambda params: XLNet(small.CONFIG, run).apply(params, **inputs, **also))
        return network.lower(small.parameters()).compile().cost_analysis()["flops"]

    assert flops() < 0.85 * flops(all_layers=True)


def test_each_dropout_acts_in_training_alone():
    inputs = small.two_stream_inputs()
    params = small.parameters()

    def hidden(run, key=0, train=True):
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(small.apply(run, params, **inputs, rngs=rngs, train=train).hidden)

    wanted = hidden(TRAINING, train=False)
    np.testing.assert_array_equal(wanted, hidden(TRAINING, key=1, train=False))
    for name in small.EXACT:
        run = dataclasses.replace(TRAINING, **(small.EXACT | {name: 0.5}))
        first = hidden(run)
        assert (np.abs(first - wanted).max(axis=-1) > 1e-3).all(), name
        np.testing.assert_array_equal(first, hidden(run))
        assert (np.abs(first - hidden(run, key=1)).max(axis=-1) > 1e-3).all(), name


def test_two_segments_with_memory_are_one_causal_pass():
    run = RunConfig(**small.EXACT, causal=True, mem_len=small.TOKENS)
    random = np.random.default_rng(0)
    long = random.integers(0, small.CONFIG.n_token, (small.BATCH, 2 * small.TOKENS))
    halves = long[:, : small.TOKENS], long[:, small.TOKENS :]
    # Memory counts as segment 0.
    inputs = {"segment_ids": jnp.zeros_like(halves[0])}
    twice = {"segment_ids": jnp.zeros_like(long)}
    params = small.parameters()
    wanted = small.apply(run, params, long, **twice)
    first = small.apply(run, params, halves[0], **inputs)
    second = small.apply(run, params, halves[1], memory=first.memory, **inputs)
    small.assert_close(first.hidden, wanted.hidden[:, : small.TOKENS])
    small.assert_close(second.hidden, wanted.hidden[:, small.TOKENS :])
    small.assert_close(second.memory, wanted.memory)
    alone = small.apply(run, params, halves[1], **inputs)
    assert np.abs(alone.hidden - second.hidden).max() > 0.01


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_changes_nothing(side):
    inputs = small.two_stream_inputs()
    del inputs["memory"]  # padding on the left would lie between memory and text
    extra = 3
    ends = (extra, 0) if side == "left" else (0, extra)
    padded = dict(inputs)
    for name, filler in (("tokens", 1), ("segment_ids", 4)):
        padded[name] = jnp.pad(inputs[name], ((0, 0), ends), constant_values=filler)
    padded["visible"] = jnp.pad(inputs["visible"], ((0, 0), ends, ends), constant_values=True)
    padded["query_visible"] = jnp.pad(
        inputs["query_visible"], ((0, 0), (0, 0), ends), constant_values=True
    )
    padded["padding"] = jnp.pad(
        jnp.zeros(inputs["tokens"].shape, bool), ((0, 0), ends), constant_values=True
    )
    padded["query_tokens"] = inputs["query_tokens"] + ends[0]
    params = small.parameters()
    wanted = small.apply(EXACT, params, **inputs)
    small.assert_close(small.apply(EXACT, params, **padded).hidden, wanted.hidden)


def test_tokens_and_batch_rows_stay_apart():
    # A row by itself gives what it gives in a batch; with two directions, a pair of rows.
    inputs = small.two_stream_inputs()
    both = small.apply(EXACT, small.parameters(), **inputs).hidden
    memory = inputs.pop("memory")
    for row in range(small.BATCH):
        own = {name: x[row : row + 1] for name, x in inputs.items()}
        alone = small.apply(EXACT, small.parameters(), **own, memory=memory[:, row : row + 1])
        small.assert_close(alone.hidden, both[row : row + 1])


def test_memory_of_length_zero_is_no_memory():
    inputs = small.two_stream_inputs()
    del inputs["memory"]
    run = RunConfig(**small.EXACT, bi_data=True)

    @jax.jit
    @jax.value_and_grad
    def loss(params, memory):
        return jnp.sin(
            3 * XLNet(small.CONFIG, run).apply(params, **inputs, memory=memory).hidden
        ).sum()

    memory = jnp.zeros((small.CONFIG.n_layer, small.BATCH, 0, small.CONFIG.d_model))
    got, wanted = loss(small.parameters(), memory), loss(small.parameters(), None)
    small.assert_close(got, wanted)


def test_an_odd_batch_of_two_directions_is_refused():
    inputs = {name: array[:1] for name, array in small.two_stream_inputs().items()}
    del inputs["memory"]
    message = r"batch of 1 rows with bi_data \(config.data.bi_data\): the batch must be even"
    with pytest.raises(ValueError, match=message):
        small.apply(RunConfig(**small.EXACT, bi_data=True), small.parameters(), **inputs)
    small.apply(EXACT, small.parameters(), **inputs)


def test_every_layer_is_shown_if_asked_for():
    # The memory of a layer is its input; the last layer's output is the content stream's.
    run = RunConfig(**small.EXACT, mem_len=small.TOKENS)
    inputs = small.two_stream_inputs()
    output = small.apply(run, small.parameters(), **inputs, all_layers=True)
    small.assert_close(output.layers[:-1], output.memory)
    plain = small.apply(run, small.parameters(), **inputs)
    assert plain.layers is None
    small.assert_close(output[:2], plain[:2])
    content = {name: inputs[name] for name in ("tokens", "segment_ids", "visible", "memory")}
    small.assert_close(output.layers[-1], small.apply(run, small.parameters(), **content).hidden)


def test_bfloat16_is_close_and_parameters_stay_float32():
    inputs = small.two_stream_inputs()
    run = dataclasses.replace(TRAINING, dtype="bfloat16")
    params = small.parameters()

    def loss(params):
        output = XLNet(small.CONFIG, run).apply(params, **inputs)
        return output.hidden.astype(jnp.float32)[..., 0].sum(), output

    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(params)
    exact = small.apply(TRAINING, params, **inputs)
    assert output.hidden.dtype == jnp.bfloat16
    assert output.memory.dtype == jnp.float32  # it keeps its own
    small.assert_close(output.hidden, exact.hidden, 0.03)
    assert np.abs(output.hidden - exact.hidden).max() > 1e-4  # it was another precision
    model = PermutationLanguageModel(small.CONFIG, run)
    fresh = jax.eval_shape(model.init, jax.random.key(0), **inputs)["params"]
    for leaf in jax.tree.leaves((fresh, gradients)):
        assert leaf.dtype == jnp.float32
    for leaf in jax.tree.leaves(gradients):
        assert jnp.isfinite(leaf).all()
    logits, _ = jax.eval_shape(model.apply, {"params": fresh}, **inputs)
    assert logits.dtype == jnp.float32


def test_rows_that_predict_nothing_are_content_rows():
    # From the token's own embedding and with the same sight, a query row is its content row.
    inputs = small.two_stream_inputs()
    tokens = inputs["tokens"]
    everywhere = jnp.broadcast_to(jnp.arange(small.TOKENS), tokens.shape)
    content = {name: inputs[name] for name in ("tokens", "segment_ids", "visible", "memory")}
    own = inputs["visible"] | jnp.eye(small.TOKENS, dtype=bool)
    predicts = jnp.zeros(tokens.shape, bool).at[0, 2].set(True)
    query = content | {"query_tokens": everywhere, "query_visible": own}
    params = small.parameters()
    wanted = small.apply(EXACT, params, **content).hidden
    got = small.apply(EXACT, params, **query, query_predicts=predicts).hidden
    small.assert_close(got[~predicts], wanted[~predicts])
    assert np.abs(got[0, 2] - wanted[0, 2]).max() > 0.01


def test_tied_head_biases_act_in_every_layer():
    tied = dataclasses.replace(small.CONFIG, untie_r=False)
    inputs = small.two_stream_inputs()
    untied = small.parameters()["params"]
    names = ("r_w_bias", "r_r_bias", "r_s_bias")
    shared = {name: untied["layers"]["attention"][name][0] for name in names}
    attention = {k: v for k, v in untied["layers"]["attention"].items() if k not in names}
    params = untied | shared | {"layers": untied["layers"] | {"attention": attention}}
    equal = {name: jnp.stack([value] * tied.n_layer) for name, value in shared.items()}
    same = untied | {"layers": untied["layers"] | {"attention": attention | equal}}
    got = jax.jit(XLNet(tied, EXACT).apply)({"params": params}, **inputs)
    small.assert_close(got.hidden, small.apply(EXACT, {"params": same}, **inputs).hidden)


def test_layer_norm_is_float32_inside():
    norm = LayerNorm()
    x = 1000 + jax.random.normal(jax.random.key(0), (5, 64))
    params = {"params": {"scale": jnp.full(64, 2.0), "bias": jnp.full(64, 3.0)}}
    exact = np.asarray(x, np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * 2 + 3
    np.testing.assert_allclose(norm.apply(params, x), wanted, rtol=1e-3, atol=1e-3)
    half = norm.apply(params, jnp.zeros((5, 64), jnp.bfloat16), x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["large", "mid_zh"])
def test_full_size(name):
    batch, length, predicted, mem_len = 8, 512, 85, 384
    config = NAMED_CONFIGS[name]
    run = RunConfig(bi_data=True, mem_len=mem_len, reuse_len=256, dtype="bfloat16", remat="full")
    model = PermutationLanguageModel(config, run)

    def shape(*sizes, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(sizes, dtype)

    inputs = {
        "tokens": shape(batch, length),
        "segment_ids": shape(batch, length),
        "visible": shape(batch, length, length, dtype=bool),
        "query_tokens": shape(batch, predicted),
        "query_visible": shape(batch, predicted, length, dtype=bool),
        "memory": shape(config.n_layer, batch, mem_len, config.d_model, dtype=jnp.bfloat16),
    }

    def gradients(params, key, inputs):
        def loss(params):
            logits, output = model.apply(params, **inputs, train=True, rngs={"dropout": key})
            return logits.sum(), (logits, output)

        return jax.grad(loss, has_aux=True)(params)

    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key, **inputs)
    got, (logits, output) = jax.eval_shape(gradients, params, key, inputs)
    assert got == params
    assert logits.shape == (batch, predicted, config.n_token)
    assert output.hidden.shape == (batch, predicted, config.d_model)
    assert output.memory == inputs["memory"]


@pytest.mark.parametrize("scan_layers", [True, False])
@pytest.mark.parametrize("two_streams", [True, False])
def test_parameters_of_another_number_of_layers_are_refused(scan_layers, two_streams):
    config = dataclasses.replace(small.CONFIG, n_layer=small.CONFIG.n_layer + 1)
    inputs = small.two_stream_inputs()
    if not two_streams:
        inputs = {"tokens": inputs["tokens"]}
    inputs.pop("memory", None)
    with pytest.raises(ValueError, match=r"length|sizes"):
        XLNet(config, RunConfig(scan_layers=scan_layers)).apply(small.parameters(), **inputs)
