"""The table of names, with values that are distinct everywhere: a swap of q, k, v, r, o shows."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.convert import examples
from xlnet_jax.convert import rules, tensorflow
from xlnet_jax.convert.table import KINDS, Head
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel

GOLDENS = Path(__file__).parents[1] / "goldens"
UNTIED = XLNetConfig(
    n_token=11, d_model=6, n_layer=3, n_head=2, d_head=3, d_inner=6, ff_activation="relu"
)
TIED = dataclasses.replace(UNTIED, untie_r=False)
CONFIGS = pytest.mark.parametrize("config", [UNTIED, TIED], ids=["untied", "tied"])


def variable_shapes(config):
    """What the original's checkpoint of a language model holds, restated."""
    width, inner, per_head = config.d_model, config.d_inner, (config.n_head, config.d_head)
    layers = range(config.n_layer)
    head_biases = (config.n_layer, *per_head) if config.untie_r else per_head
    top = "model/transformer"
    shapes = {
        f"{top}/word_embedding/lookup_table": (config.n_token, width),
        f"{top}/mask_emb/mask_emb": (1, 1, width),
        f"{top}/seg_embed": (config.n_layer, 2, *per_head),
        "model/lm_loss/bias": (config.n_token,),
    }
    shapes |= {f"{top}/{name}": head_biases for name in ("r_w_bias", "r_r_bias", "r_s_bias")}
    for k in layers:
        attention, feed_forward = f"{top}/layer_{k}/rel_attn", f"{top}/layer_{k}/ff"
        shapes |= {f"{attention}/{name}/kernel": (width, *per_head) for name in "qkvro"}
        shapes[f"{feed_forward}/layer_1/kernel"] = (width, inner)
        shapes[f"{feed_forward}/layer_1/bias"] = (inner,)
        shapes[f"{feed_forward}/layer_2/kernel"] = (inner, width)
        shapes[f"{feed_forward}/layer_2/bias"] = (width,)
        for part in (attention, feed_forward):
            shapes |= {f"{part}/LayerNorm/{name}": (width,) for name in ("gamma", "beta")}
    return shapes


def distinct(shapes):
    """Arrays in which no number occurs twice, over all of them."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    numbers = np.random.default_rng(0).permutation(sum(sizes)).astype(np.float32)
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def parameter_shapes(config):
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    model = PermutationLanguageModel(config, RunConfig())
    tree = jax.eval_shape(model.init, jax.random.key(0), tokens, query_tokens=tokens)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def convert(variables, config):
    wanted = parameter_shapes(config)
    return rules.to_params(variables, config, "tensorflow", wanted=wanted).arrays


@CONFIGS
def test_round_trip(config):
    variables = distinct(variable_shapes(config))
    params = convert(variables, config)
    assert {path: value.shape for path, value in params.items()} == parameter_shapes(config)
    back = examples.variables_of(params, config)
    assert back.keys() == variables.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


# Every parameter and where its values come from ({} is the layer), literally.
SOURCES = {
    "xlnet/word_embedding": "word_embedding/lookup_table",
    "xlnet/mask_embedding": "mask_emb/mask_emb",
    "xlnet/layers/attention/q": "layer_{}/rel_attn/q/kernel",
    "xlnet/layers/attention/k": "layer_{}/rel_attn/k/kernel",
    "xlnet/layers/attention/v": "layer_{}/rel_attn/v/kernel",
    "xlnet/layers/attention/r": "layer_{}/rel_attn/r/kernel",
    "xlnet/layers/attention/o": "layer_{}/rel_attn/o/kernel",
    "xlnet/layers/attention/seg_embed": "seg_embed",
    "xlnet/layers/attention_norm/scale": "layer_{}/rel_attn/LayerNorm/gamma",
    "xlnet/layers/attention_norm/bias": "layer_{}/rel_attn/LayerNorm/beta",
    "xlnet/layers/feed_forward/kernel_1": "layer_{}/ff/layer_1/kernel",
    "xlnet/layers/feed_forward/bias_1": "layer_{}/ff/layer_1/bias",
    "xlnet/layers/feed_forward/kernel_2": "layer_{}/ff/layer_2/kernel",
    "xlnet/layers/feed_forward/bias_2": "layer_{}/ff/layer_2/bias",
    "xlnet/layers/feed_forward_norm/scale": "layer_{}/ff/LayerNorm/gamma",
    "xlnet/layers/feed_forward_norm/bias": "layer_{}/ff/LayerNorm/beta",
}


@CONFIGS
def test_every_value_comes_from_where_it_should(config):
    variables = distinct(variable_shapes(config))
    params = convert(variables, config)
    place = "xlnet/layers/attention" if config.untie_r else "xlnet"
    head_biases = {f"{place}/{name}": name for name in ("r_w_bias", "r_r_bias", "r_s_bias")}
    sources = SOURCES | head_biases
    assert params.keys() == sources.keys() | {"lm_bias"}
    np.testing.assert_array_equal(params["lm_bias"], variables["model/lm_loss/bias"])
    for path, source in sources.items():
        name = f"model/transformer/{source}"
        if "{}" in name:
            for k in range(config.n_layer):
                np.testing.assert_array_equal(params[path][k], variables[name.format(k)])
        else:
            wanted = variables[name].reshape(params[path].shape)
            np.testing.assert_array_equal(params[path], wanted)


def test_all_problems_are_named_at_once():
    variables = distinct(variable_shapes(UNTIED))
    del variables["model/transformer/layer_1/rel_attn/k/kernel"]
    del variables["model/lm_loss/bias"]
    variables["model/transformer/layer_3/ff/layer_1/bias"] = np.zeros(6)
    variables["model/transformer/seg_embed"] = np.zeros((3, 2, 3, 2))
    with pytest.raises(ValueError, match="checkpoint and model do not match") as caught:
        convert(variables, UNTIED)
    seg_embed = ["model/transformer/seg_embed"]
    assert sorted(str(caught.value).split("\n  ")[1:]) == [
        "parameter lm_bias: missing variables ['model/lm_loss/bias']",
        "parameter xlnet/layers/attention/k: missing variables "
        "['model/transformer/layer_1/rel_attn/k/kernel']",
        "parameter xlnet/layers/attention/seg_embed: wanted shape (3, 2, 2, 3), "
        f"got (3, 2, 3, 2) from {seg_embed}",
        "variable model/transformer/layer_3/ff/layer_1/bias: not used",
    ]


def test_a_parameter_that_no_rule_names():
    shapes = parameter_shapes(TIED) | {"xlnet/new/kernel": (2, 2)}
    with pytest.raises(ValueError, match="parameter xlnet/new/kernel: no rule names its variable"):
        rules.to_params(distinct(variable_shapes(TIED)), TIED, "tensorflow", wanted=shapes)


@pytest.mark.parametrize(("read_as", "written_as"), [(TIED, UNTIED), (UNTIED, TIED)])
def test_tied_and_untied_do_not_mix(read_as, written_as):
    with pytest.raises(ValueError, match=r"r_w_bias: wanted shape \(.*\), got \(.*\) from"):
        convert(distinct(variable_shapes(written_as)), read_as)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model/transformer/r_w_bias/adam_m", True),
        ("model/transformer/r_w_bias/adam_v", True),
        ("model/lm_loss/bias/Adam", True),
        ("model/lm_loss/bias/Adam_1", True),
        ("beta1_power", True),
        ("beta2_power", True),
        ("global_step", True),
        ("model/lm_loss/bias", False),
        ("model/transformer/layer_0/ff/layer_1/kernel", False),
        ("model/Adam/kernel", False),
    ],
)
def test_optimizer_slots(name, wanted):
    assert rules.is_optimizer_slot(name) is wanted


def test_a_checkpoint_of_the_original_is_read_and_used_up():
    folder = GOLDENS / "pretrain_train/adam_poly"
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    variables = tensorflow.read_checkpoint(str(folder / "final_model.ckpt"))
    shapes = {name: value.shape for name, value in variables.items()}
    slots = {name for name in variables if rules.is_optimizer_slot(name)}
    weights = {name: variables[name] for name in variables.keys() - slots}
    assert {name: shapes[name] for name in weights} == variable_shapes(config)
    assert len(slots) == 2 * len(weights) + 3  # both powers of beta, and the step
    assert convert(weights, config)["xlnet/mask_embedding"].any()


def test_no_checkpoint(tmp_path):
    path = str(tmp_path / "model.ckpt")
    with pytest.raises(FileNotFoundError, match=r"no TensorFlow checkpoint at .*model\.ckpt"):
        tensorflow.read_checkpoint(path)


# PyTorch's names of the trunk, restated; True where it keeps the transpose.
TORCH_TRUNK = {
    "xlnet/layers/attention/q": ("rel_attn.q", False),
    "xlnet/layers/attention/k": ("rel_attn.k", False),
    "xlnet/layers/attention/v": ("rel_attn.v", False),
    "xlnet/layers/attention/r": ("rel_attn.r", False),
    "xlnet/layers/attention/o": ("rel_attn.o", False),
    "xlnet/layers/attention/r_w_bias": ("rel_attn.r_w_bias", False),
    "xlnet/layers/attention/r_r_bias": ("rel_attn.r_r_bias", False),
    "xlnet/layers/attention/r_s_bias": ("rel_attn.r_s_bias", False),
    "xlnet/layers/attention/seg_embed": ("rel_attn.seg_embed", False),
    "xlnet/layers/attention_norm/scale": ("rel_attn.layer_norm.weight", False),
    "xlnet/layers/attention_norm/bias": ("rel_attn.layer_norm.bias", False),
    "xlnet/layers/feed_forward/kernel_1": ("ff.layer_1.weight", True),
    "xlnet/layers/feed_forward/bias_1": ("ff.layer_1.bias", False),
    "xlnet/layers/feed_forward/kernel_2": ("ff.layer_2.weight", True),
    "xlnet/layers/feed_forward/bias_2": ("ff.layer_2.bias", False),
    "xlnet/layers/feed_forward_norm/scale": ("ff.layer_norm.weight", False),
    "xlnet/layers/feed_forward_norm/bias": ("ff.layer_norm.bias", False),
}


def test_names_of_the_trunk_in_pytorch():
    network = examples.config()
    params = examples.flat_params(network)
    tensors = rules.from_params(params, network, "pytorch").arrays
    for path, (name, transposed) in TORCH_TRUNK.items():
        for layer in range(network.n_layer):
            wanted = params[path][layer].T if transposed else params[path][layer]
            got = tensors[f"transformer.layer.{layer}.{name}"]
            np.testing.assert_array_equal(got, wanted, err_msg=path)
    assert tensors["transformer.mask_emb"].shape == (1, 1, network.d_model)
    beside = {"transformer.word_embedding.weight", "transformer.mask_emb", "lm_loss.bias"}
    assert len(tensors) == len(beside) + network.n_layer * len(TORCH_TRUNK)
    assert beside <= tensors.keys()


@CONFIGS
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_pytorch_and_back(config, kind):
    head = Head(kind) if kind else None
    params = examples.flat_params(config, head)
    tensors = rules.from_params(params, config, "pytorch", head=head).arrays
    back = rules.to_params(tensors, config, "pytorch", head=head)
    examples.assert_equal(back.arrays, params)
    assert (back.missing, back.unused) == ([], [])


def test_tied_biases_must_be_equal_in_all_layers_of_pytorch():
    tensors = rules.from_params(examples.flat_params(TIED), TIED, "pytorch").arrays
    tensors["transformer.layer.1.rel_attn.r_r_bias"] = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="xlnet/r_r_bias: values differ from layer to layer"):
        rules.to_params(tensors, TIED, "pytorch")


def test_a_part_of_which_something_is_there_must_be_whole():
    head = Head("span_qa")
    variables = examples.variables_of(examples.flat_params(UNTIED, head), UNTIED, head)
    del variables["answer_class/dense_1/kernel"]
    with pytest.raises(ValueError, match=r"answer_class/dense_1/kernel: missing variables"):
        rules.to_params(variables, UNTIED, "tensorflow", head=head)
    for name in [name for name in variables if name.startswith("answer_class")]:
        del variables[name]
    params = rules.to_params(variables, UNTIED, "tensorflow", head=head).arrays
    assert "end_logits/norm/scale" in params
    assert not any(path.startswith("answer_class") for path in params)


def test_patterns_let_through_and_are_told():
    variables = distinct(variable_shapes(UNTIED))
    del variables["model/transformer/layer_1/rel_attn/k/kernel"]
    variables["model/else"] = np.zeros(1)
    variables["model/other"] = np.zeros(1)
    allowed = rules.Allowed(missing=("xlnet/*/k",), unused=("model/el?e", "*/other"))
    matched = rules.to_params(variables, UNTIED, "tensorflow", allowed=allowed)
    assert matched.missing == ["xlnet/layers/attention/k"]
    assert matched.unused == ["model/else", "model/other"]
    assert matched.notes() == (
        "missing, as allowed: xlnet/layers/attention/k",
        "not used, as allowed: model/else, model/other",
    )
    by_variable = rules.Allowed(("*/layer_1/rel_attn/k/kernel",), ("model/*",))
    again = rules.to_params(variables, UNTIED, "tensorflow", allowed=by_variable)
    assert again.missing == matched.missing
    with pytest.raises(ValueError, match="variable model/other: not used") as caught:
        rules.to_params(variables, UNTIED, "tensorflow", allowed=allowed._replace(unused=()))
    assert "--allow_missing=PATTERN" in str(caught.value)


def test_writing_is_strict_too():
    params = examples.flat_params(UNTIED)
    del params["xlnet/layers/attention/o"]
    params["xlnet/layers/attention/r"] = params["xlnet/layers/attention/r"][:, :5]
    params["extra"] = np.zeros(2)
    with pytest.raises(ValueError, match="do not match") as caught:
        rules.from_params(params, UNTIED, "tensorflow")
    assert sorted(str(caught.value).split("\n  ")[1:]) == [
        "parameter extra: the original has no variable for it",
        "parameter xlnet/layers/attention/o: missing",
        "parameter xlnet/layers/attention/r: wanted shape (3, 6, 2, 3), got (3, 5, 2, 3)",
    ]


def test_layers_of_different_shapes():
    variables = distinct(variable_shapes(UNTIED))
    variables["model/transformer/layer_1/ff/layer_1/bias"] = np.zeros(5)
    with pytest.raises(ValueError, match=r"shapes differ from layer to layer: \[\(6,\), \(5,\)"):
        convert(variables, UNTIED)


def test_slots_by_variable_in_both_namings():
    arrays = {"a/kernel": 0, "a/kernel/adam_m": 1, "a/kernel/adam_v": 2, "b/Adam": 3}
    arrays |= {"b/Adam_1": 4, "beta1_power": 5}
    variables = {name: np.array(value) for name, value in arrays.items()}
    assert rules.slots_of(variables, "m") == {"a/kernel": np.array(1), "b": np.array(3)}
    assert rules.slots_of(variables, "v") == {"a/kernel": np.array(2), "b": np.array(4)}
