"""PyTorch's XLNet with the same random weights: what both networks compute for the same inputs."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.model import small
from xlnet_jax.convert import rules
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.summary import SequenceSummary
from xlnet_jax.model.transformer import XLNet

BATCH, TOKENS, MEMORY = 3, 7, 5
RUN = RunConfig(**small.EXACT, mem_len=MEMORY)
random = np.random.default_rng(0)
IDS = random.integers(0, small.CONFIG.n_token, (2, BATCH, TOKENS))  # two segments
SEGMENTS = np.sort(random.integers(0, 3, (BATCH, TOKENS)))
PADDING = np.arange(TOKENS) < np.array([[0], [2], [4]])


@pytest.fixture(scope="module")
def peer():
    """The class, and what its settings have in common."""
    import torch
    import transformers

    torch.set_num_threads(1)
    settings = {
        "vocab_size": small.CONFIG.n_token,
        "d_model": small.CONFIG.d_model,
        "n_layer": small.CONFIG.n_layer,
        "n_head": small.CONFIG.n_head,
        "d_inner": small.CONFIG.d_inner,
        "ff_activation": "gelu_new",  # the one with tanh
        "dropout": 0.0,
        "mem_len": MEMORY,
    }
    tensors = {
        name.removeprefix("transformer."): torch.tensor(np.array(value))
        for name, value in rules.from_params(
            flat_parameters(), small.CONFIG, "pytorch", allowed=rules.Allowed(missing=("*",))
        ).arrays.items()
    }

    def run(tokens, **inputs):
        changes = inputs.pop("settings", {})
        model = transformers.XLNetModel(transformers.XLNetConfig(**settings | changes)).eval()
        model.load_state_dict(tensors)
        given = {name: torch.tensor(np.array(value)) for name, value in inputs.items()}
        with torch.no_grad():
            return model(torch.tensor(tokens), **given, use_mems=True, output_hidden_states=True)

    return run


def flat_parameters():
    params = traverse_util.flatten_dict(small.parameters()["params"], sep="/")
    return {f"xlnet/{path}": np.asarray(value) for path, value in params.items()}


@functools.partial(jax.jit, static_argnums=0)
def ours(run, tokens, **inputs):
    return XLNet(small.CONFIG, run).apply(small.parameters(), tokens, all_layers=True, **inputs)


def numbers(tensors):
    return np.stack([tensor.numpy() for tensor in tensors])


def memory_in(memory):
    """[Y, B, M, D] to the other side's list of [M, B, D]."""
    return np.asarray(memory).transpose(0, 2, 1, 3)


@pytest.mark.parametrize(
    "run, settings",
    [
        (RUN, {}),
        (RunConfig(**small.EXACT, mem_len=MEMORY, clamp_len=3), {"clamp_len": 3}),
    ],
    ids=["whole distances", "clamped"],
)
def test_every_layer_and_the_memory_of_two_segments(peer, run, settings):
    inputs = {"token_type_ids": SEGMENTS, "attention_mask": ~PADDING * 1.0, "settings": settings}
    own = {"segment_ids": SEGMENTS, "padding": PADDING}
    first, wanted = ours(run, IDS[0], **own), peer(IDS[0], **inputs)
    compare(first, wanted)
    # The second segment attends to what the first one left, on either side.
    second = ours(run, IDS[1], memory=first.memory, **own)
    compare(second, peer(IDS[1], mems=memory_in(first.memory), **inputs))
    alone = ours(run, IDS[1], **own)
    assert np.abs(alone.hidden - second.hidden).max() > 0.01


def compare(got, wanted):
    small.assert_close(got.hidden, wanted.last_hidden_state.numpy())
    small.assert_close(got.layers, numbers(wanted.hidden_states))
    small.assert_close(memory_in(got.memory), numbers(wanted.mems))


def test_causal_without_segments_and_padding(peer):
    run = RunConfig(**small.EXACT, mem_len=MEMORY, causal=True)
    compare(ours(run, IDS[0]), peer(IDS[0], settings={"attn_type": "uni"}))


def test_both_streams(peer):
    inputs = small.two_stream_inputs()
    memory, targets = inputs.pop("memory"), np.asarray(inputs["query_tokens"])
    # One matrix serves both streams there: the content stream sees itself whatever it says.
    seen = np.array(inputs["visible"])
    seen[np.arange(small.BATCH)[:, None], targets] = inputs["query_visible"]
    wanted = peer(
        np.asarray(inputs["tokens"]),
        token_type_ids=inputs["segment_ids"],
        perm_mask=(~seen).astype(np.float32),
        target_mapping=np.eye(small.TOKENS, dtype=np.float32)[targets],
        mems=memory_in(memory),
        settings={"mem_len": small.MEMORY},
    )
    got = ours(RunConfig(**small.EXACT, mem_len=small.MEMORY), memory=memory, **inputs)
    small.assert_close(got.hidden, wanted.last_hidden_state.numpy())
    small.assert_close(got.layers, numbers(wanted.hidden_states[::2]))


@pytest.mark.parametrize("summary_type", ["last", "first", "mean"])
def test_summaries(summary_type):
    import torch
    from transformers import XLNetConfig
    from transformers.models.xlnet.modeling_xlnet import XLNetSequenceSummary

    hidden = random.normal(size=(BATCH, TOKENS, small.CONFIG.d_model)).astype(np.float32)
    model = SequenceSummary(small.CONFIG, RUN, summary_type, count_padding=True)
    params = small.random_parameters(model, hidden)
    settings = XLNetConfig(d_model=small.CONFIG.d_model, n_head=2, summary_type=summary_type)
    summary = XLNetSequenceSummary(settings).eval()
    dense = params["params"]["projection"]
    summary.load_state_dict(
        {
            "summary.weight": torch.tensor(dense["kernel"].T),
            "summary.bias": torch.tensor(dense["bias"]),
        }
    )
    with torch.no_grad():
        wanted = summary(torch.tensor(hidden)).numpy()
    small.assert_close(jax.jit(model.apply)(params, hidden, padding=PADDING), wanted)
