"""Shapes of networks: the released json file, the named sizes, what is refused."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from xlnet_jax.model.config import NAMED_CONFIGS, RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel

# As in the archive of the released XLNet-Large.
RELEASED = """{
  "d_head": 64,
  "d_inner": 4096,
  "d_model": 1024,
  "ff_activation": "gelu",
  "n_head": 16,
  "n_layer": 24,
  "n_token": 32000,
  "untie_r": true
}"""
SMALL = XLNetConfig(
    n_token=50, d_model=6, n_layer=3, n_head=2, d_head=5, d_inner=7, ff_activation="relu"
)


def test_the_released_file_is_the_named_size():
    assert XLNetConfig.from_json(RELEASED) == NAMED_CONFIGS["large"]
    assert json.loads(NAMED_CONFIGS["large"].to_json()) == json.loads(RELEASED)


@pytest.mark.parametrize("untie_r", [False, True])
def test_json_round_trip(untie_r):
    config = dataclasses.replace(SMALL, untie_r=untie_r)
    assert XLNetConfig.from_json(config.to_json()) == config


def test_the_chinese_sizes_use_relu():
    assert {name: c.ff_activation for name, c in NAMED_CONFIGS.items()} == {
        "base": "gelu",
        "large": "gelu",
        "base_zh": "relu",
        "mid_zh": "relu",
    }


def number_of_parameters(c):
    attention = 5 * c.d_model * c.n_head * c.d_head + 2 * c.n_head * c.d_head
    feed_forward = 2 * c.d_model * c.d_inner + c.d_inner + c.d_model
    layer = attention + feed_forward + 4 * c.d_model
    head_biases = 3 * c.n_head * c.d_head * (c.n_layer if c.untie_r else 1)
    return c.n_token * (c.d_model + 1) + c.d_model + c.n_layer * layer + head_biases


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (NAMED_CONFIGS["base"], 117),
        (NAMED_CONFIGS["large"], 360),
        (NAMED_CONFIGS["base_zh"], 117),
        (NAMED_CONFIGS["mid_zh"], 209),
        (SMALL, 0),
        (dataclasses.replace(SMALL, untie_r=False), 0),
    ],
)
def test_number_of_parameters(config, millions):
    tokens = jax.ShapeDtypeStruct((2, 4), jnp.int32)
    model = PermutationLanguageModel(config, RunConfig())
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, query_tokens=tokens)
    leaves = jax.tree.leaves(shapes["params"])
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert count == number_of_parameters(config)
    assert round(count / 1e6) == millions
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 0}, r"model\.n_layer must be a whole number of at least 1, got 0"),
        ({"d_head": 2.5}, r"model\.d_head must be a whole number of at least 1, got 2\.5"),
        ({"n_head": True}, r"model\.n_head must be a whole number of at least 1, got True"),
        ({"d_inner": "9"}, r"model\.d_inner must be a whole number of at least 1, got '9'"),
        ({"d_model": 7}, r"model\.d_model must be even, got 7"),
        ({"ff_activation": "swish"}, r"model\.ff_activation must be one of .*gelu.*got 'swish'"),
        ({"untie_r": 1}, r"model\.untie_r must be true or false, got 1"),
    ],
)
def test_a_network_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_a_json_file_with_other_keys():
    values = json.loads(SMALL.to_json())
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        XLNetConfig.from_json("[]")
    with pytest.raises(ValueError, match=r"has unknown keys \['mem_len'\]; known: \['d_head'"):
        XLNetConfig.from_json(json.dumps(values | {"mem_len": 3}))
    del values["ff_activation"], values["untie_r"]
    with pytest.raises(ValueError, match=r"lacks \['ff_activation', 'untie_r'\]; it must hold"):
        XLNetConfig.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 1.0}, r"model\.dropout must be in \[0, 1\), got 1\.0"),
        ({"attention_dropout": -0.1}, r"model\.attention_dropout must be in \[0, 1\), got -0\.1"),
        ({"activation_dropout": 2}, r"model\.activation_dropout must be in \[0, 1\), got 2"),
        ({"mem_len": -1}, r"model\.mem_len must be 0 or more, got -1"),
        ({"reuse_len": -5}, r"model\.reuse_len must be 0 or more, got -5"),
        ({"init_std": -1.0}, r"model\.init_std must be above 0, got -1\.0"),
        ({"init_range": 0.0}, r"model\.init_range must be above 0, got 0\.0"),
        ({"dtype": "float16"}, r"model\.dtype must be one of .*bfloat16.*, got 'float16'"),
        ({"remat": "some"}, r"model\.remat must be one of .*attention.*, got 'some'"),
        ({"init": "zeros"}, r"model\.init must be one of .*uniform.*, got 'zeros'"),
        ({"same_length": True}, r"model\.same_length needs model\.causal=True, got causal=False"),
    ],
)
def test_a_run_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**change)
