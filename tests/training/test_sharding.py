"""Meshes, what may be cut and what not, and names for all parameters."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlnet_jax.model import core, heads, layout, parameter_axes, span_head
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.training import hlo_costs, sharding, topologies
from xlnet_jax.training.sharding import MeshConfig

NETWORK = XLNetConfig(
    n_token=30, d_model=16, n_layer=2, n_head=4, d_head=4, d_inner=32, ff_activation="gelu"
)


@dataclasses.dataclass(frozen=True)
class Device:
    """As much of a device as a mesh wants to know."""

    id: int
    process_index: int = 0
    platform: str = "cpu"


def devices(count, processes=1):
    return [Device(i, i * processes // count) for i in range(count)]


def mesh(count=8, hosts=1, **axes):
    return sharding.make_mesh(MeshConfig(**axes), devices(count, hosts))


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"data": 1, "fsdp": -1, "model": 2}, (1, 4, 2)),
        ({"data": 2, "fsdp": 2, "model": 2}, (2, 2, 2)),
        ({"model": -1, "data": 1}, (1, 1, 8)),
    ],
)
def test_the_rest_of_the_devices(axes, shape):
    made = mesh(**axes)
    assert tuple(made.shape.values()) == shape
    assert made.axis_names == ("data", "fsdp", "model")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"fsdp": 3}, r"config.mesh is data -1, fsdp 3, model 1: 8 devices cannot be cut into 3"),
        ({"fsdp": 16}, r"8 devices cannot be cut into 16; wanted axes whose product divides 8"),
        ({"data": 2}, r"data 2, fsdp 1, model 1: 2 in all, but there are 8 devices; wanted a pro"),
        ({"data": 0}, r"^mesh.data must be at least 1, or -1 for the rest, got 0$"),
        ({"fsdp": -1}, r"only one axis of config.mesh may be -1 \(the rest\), got data -1, fsdp"),
        ({"processes": -1}, r"^mesh.processes must be 0 or more, got -1$"),
    ],
)
def test_a_mesh_that_does_not_fit(axes, message):
    with pytest.raises(ValueError, match=message):
        mesh(**axes)


def test_fewer_processes_than_configured():
    with pytest.raises(ValueError, match=r"mesh.processes is 4, but 1 take part; start the same"):
        sharding.make_mesh(MeshConfig(processes=4))


@pytest.mark.parametrize(
    ("size", "group", "parts", "axes", "message"),
    [
        (6, 1, 1, {}, "train.batch_size must be a multiple of 4 = 4 devices, got 6"),
        (12, 2, 1, {}, r"a multiple of 8 = 4 devices × 2 \(data.bi_data pairs rows\), got 12"),
        (12, 1, 2, {}, "a multiple of 8 = 4 devices × 2 train.accumulation_steps, got 12"),
        (12, 2, 3, {}, "a multiple of 24 = 4 devices × 3 train.accumulation_steps × 2 "),
        (9, 1, 1, {"model": 2}, r"multiple of 2 = 2 \(mesh.data 2 × mesh.fsdp 1\), got 9"),
        (9, 1, 1, {"fsdp": 4}, "multiple of 4 = 4 devices, got 9"),
    ],
)
def test_a_batch_that_cannot_be_cut_evenly(size, group, parts, axes, message):
    made = mesh(4, **axes)
    with pytest.raises(ValueError, match=message):
        sharding.check_batch_size("train.batch_size", size, group, parts, made)
    sharding.check_batch_size("train.batch_size", 24, group, parts, made)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"model": 8}, r"mesh.model is 8, which does not divide model.n_head = 4; set --config.me"),
        ({"fsdp": 32}, r"mesh.fsdp is 32, which does not divide model.d_model = 16"),
    ],
)
def test_an_axis_that_has_nothing_to_cut(axes, message):
    with pytest.raises(ValueError, match=message):
        sharding.check_network(NETWORK, mesh(32, **axes))
    sharding.check_network(NETWORK, mesh(32, model=4, fsdp=8))


def test_one_process_feeds_all_rows():
    assert sharding.local_rows(sharding.make_mesh(), 6) == slice(0, 6)


def test_every_process_feeds_a_block_of_rows():
    assert sharding._feeds_blocks(mesh(8, 4, model=4))
    assert sharding._feeds_blocks(mesh(8, 4, fsdp=2))
    mixed = np.array(devices(8, 2))[[0, 4, 1, 5, 2, 6, 3, 7]].reshape(8, 1, 1)
    assert not sharding._feeds_blocks(Mesh(mixed, sharding.AXES))


def params_of(model, **inputs):
    tokens = jnp.zeros((2, 4), jnp.int32)
    return jax.eval_shape(lambda key: model.init(key, tokens, **inputs), jax.random.key(0))[
        "params"
    ]


MODELS = {
    "pretraining": lambda run: params_of(
        heads.PermutationLanguageModel(NETWORK, run), query_tokens=jnp.zeros((2, 1), jnp.int32)
    ),
    "tied": lambda run: params_of(
        heads.PermutationLanguageModel(dataclasses.replace(NETWORK, untie_r=False), run),
        query_tokens=jnp.zeros((2, 1), jnp.int32),
    ),
    "classes": lambda run: params_of(heads.SequenceClassifier(NETWORK, run, 3)),
    "pooled by attention": lambda run: params_of(
        heads.SequenceClassifier(NETWORK, run, 3, summary_type="attn")
    ),
    "tags": lambda run: params_of(heads.TokenTagger(NETWORK, run, 5)),
    "spans": lambda run: params_of(
        span_head.SpanExtractor(NETWORK, run, answerability=True),
        cls_positions=jnp.zeros(2, jnp.int32),
        start_positions=jnp.zeros(2, jnp.int32),
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_every_parameter_has_a_place(name):
    params = MODELS[name](RunConfig())
    made = mesh(8, fsdp=2, model=2)
    places = sharding.params_shardings(params, made)
    flat = {
        "/".join(key.key for key in path): (leaf.shape, place.spec)
        for (path, leaf), place in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(places), strict=True
        )
    }
    for path, (shape, spec) in flat.items():
        for size, axis in zip(shape, spec, strict=False):
            assert axis is None or size % made.shape[axis] == 0, path
        if len(shape) > 1 + path.startswith("xlnet/layers"):  # all matrices are cut
            assert any(spec), path
    assert flat["xlnet/layers/attention/q"][1] == PartitionSpec(None, "fsdp", "model", None)
    assert flat["xlnet/layers/feed_forward/kernel_2"][1] == PartitionSpec(None, "model", "fsdp")
    assert flat["xlnet/word_embedding"][1] == PartitionSpec("model", "fsdp")
    assert not any(flat["xlnet/layers/attention_norm/scale"][1])


def test_a_parameter_without_a_name_is_an_error():
    params = {"xlnet": {"new": jnp.zeros((4, 4))}}
    with pytest.raises(ValueError, match="parameter xlnet/new is not in the table of model/param"):
        sharding.params_shardings(params, mesh(8, fsdp=2))
    with pytest.raises(ValueError, match="parameter lm_bias has 2 axes, the table says 'V'"):
        parameter_axes.axes_of("lm_bias", 2)


def test_what_cannot_be_cut_evenly_stays_whole():
    params = {"xlnet": {"word_embedding": jnp.zeros((31, 16))}}
    place = sharding.params_shardings(params, mesh(8, fsdp=2, model=2))["xlnet"]["word_embedding"]
    assert place.spec == PartitionSpec(None, "fsdp")


def test_the_model_is_told_of_the_cores_of_one_cpu_alone():
    for some, on_one_cpu in (
        (devices(1), True),
        (devices(2), False),
        ([Device(0, platform="tpu")], False),
    ):
        with sharding.activations_on(Mesh(np.array(some).reshape(-1, 1, 1), sharding.AXES)):
            assert layout.cpu_cores() == (os.cpu_count() if on_one_cpu else 0)
    assert layout.cpu_cores() == 0


def test_on_tpu_attention_brings_no_parts_together():
    """Compiled for v3-8, with heads and batch cut: only the sum of the gradient of r is sent."""
    made = sharding.make_mesh(MeshConfig(fsdp=2, model=2), topologies.devices_of("v3-8"))

    def array(letters, *shape):
        axes = PartitionSpec(*(sharding.ACTIVATIONS.get(letter) for letter in letters))
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(made, axes))

    rows, codes = array("GNbIH", 1, 4, 8, 128, 64), array("GNRH", 1, 4, 256, 64)

    def loss(*inputs):
        out = core.attend(*inputs, None, core.Masks(None, None, None, None), 0.0)
        return out.astype(jnp.float32).sum()

    gradients = jax.jit(sharding.on_mesh(jax.grad(loss, argnums=range(5)), made))
    program = gradients.lower(rows, rows, rows, rows, codes).compile().as_text()
    costs = hlo_costs.Program(program).costs()
    kinds = [hlo_costs.collective_kind(cost.operation) for cost in costs]
    assert {kind for kind in kinds if kind} == {"all-reduce"}


def test_only_this_file_names_mesh_axes():
    """Model code speaks of letters; without a layout around it they change nothing."""
    x = jnp.ones((2, 3))
    assert layout.named(x, "BD") is x
    seen = []

    def cut(x, letters):
        seen.append(letters)
        return x

    def in_parts(function, inputs, letters, result_letters):
        seen.append((letters, result_letters))
        return function(*inputs)

    assert layout.in_parts(jnp.sin, (x,), ("BD",), "BD")[0, 0] == jnp.sin(1.0)
    with layout.cut_by(layout.Layout(cut, in_parts, cuts_parameters=True)):
        layout.named(x, "BD")
        layout.in_parts(jnp.sin, (x,), ("BD",), "Bd")
        assert layout.cuts_parameters()
    assert seen == ["BD", (("BD",), "Bd")]
    assert not layout.cuts_parameters()
