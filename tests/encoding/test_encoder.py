"""Vectors of texts: what they are, for any batch, padding, length and pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert import examples
from tests.model import small
from xlnet_jax.encoding.encoder import EncodeOptions, XLNet
from xlnet_jax.model import transformer
from xlnet_jax.model.config import RunConfig

SHORT = {"length": 8, "stride": 3, "pad_to_multiple": 8, "batch_size": 4}
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and 1,000 others do so too.",
    "Short.",
    "",
    "A somewhat longer line of ½ text",
]
LAYERS = (0, -1)


@functools.cache
def model():
    return XLNet(examples.pretrained())


@functools.cache
def encoded(texts=tuple(TEXTS), **options):
    return model().encode(texts, layers=LAYERS, **SHORT | options)


def tail(ids):
    special = model().tokenizer.special
    return np.array([*ids, special.sep, special.cls], np.int32)


@functools.partial(jax.jit, static_argnums=0)
def apply(mem_len, tokens, segment_ids, memory):
    run = RunConfig(**small.EXACT, mem_len=mem_len)
    params = {"params": jax.tree.map(jnp.asarray, examples.pretrained().params["xlnet"])}
    inputs = {"segment_ids": segment_ids, "memory": memory, "all_layers": True}
    return transformer.XLNet(model().config, run).apply(params, tokens, **inputs)


def states_of(tokens, memory=None, mem_len=0, has_cls=True):
    """[2, T, D] of the layers asked for, and the memory, from the network by itself."""
    segment_ids = np.zeros((1, len(tokens)), np.int32)
    segment_ids[0, -1] = 2 * has_cls
    output = apply(mem_len, tokens[None], segment_ids, memory)
    return np.asarray(output.layers)[list(LAYERS), 0], output.memory


def test_tokens_of_windows_are_those_of_the_network():
    ids, spans = model().tokenizer.encode_with_offsets(TEXTS[0])
    got = encoded()[0]
    np.testing.assert_array_equal(got.tokens, ids)
    np.testing.assert_array_equal(got.spans, spans)
    assert (got.text, got.dropped) == (TEXTS[0], 0)
    room = 6
    firsts = [*range(0, len(ids) - room, 3), len(ids) - room]
    parts = {first: states_of(tail(ids[first : first + room]))[0] for first in firsts}
    for token in range(len(ids)):
        holders = [first for first in firsts if first <= token < first + room]
        wanted = [parts[first][:, token - first] for first in holders]
        assert any(np.abs(got.vectors[:, token] - w).max() < 1e-5 for w in wanted), token
    # In the middle of the first window, whatever comes later.
    small.assert_close(got.vectors[:, :3], parts[0][:, :3])


def test_a_text_that_fits_is_one_pass():
    got = encoded()[1]
    small.assert_close(got.vectors, states_of(tail(got.tokens))[0][:, :-2])
    for encoding in encoded():
        assert encoding.vectors.shape == (2, len(encoding.tokens), 8)
        assert encoding.vectors.dtype == np.float32


def test_memory_is_carried_from_segment_to_segment():
    got = encoded(long="memory", mem_len=5)[0]
    tokens, memory, wanted = tail(got.tokens), None, []
    for first in range(0, len(tokens), 8):
        segment = tokens[first : first + 8]
        states, memory = states_of(segment, memory, 5, first + 8 >= len(tokens))
        wanted.append(states)
    small.assert_close(got.vectors, np.concatenate(wanted, axis=1)[:, :-2])
    assert np.abs(got.vectors - encoded()[0].vectors).max() > 0.01


@pytest.mark.parametrize("long", ["windows", "memory"])
def test_batch_and_padding_change_nothing(long):
    options = {"long": long, "mem_len": 5}
    wanted = encoded(**options)
    for text, whole in zip(TEXTS[:2], wanted, strict=False):
        (alone,) = encoded((text,), **options, batch_size=1, pad_to_multiple=1)
        np.testing.assert_array_equal(alone.spans, whole.spans)
        small.assert_close(alone.vectors, whole.vectors)


@pytest.mark.parametrize("long", ["windows", "memory"])
def test_one_vector_a_text(long):
    options = {"long": long, "mem_len": 5}
    tokens = encoded(**options)
    means = encoded(**options, pooling="mean")
    for encoding, mean, number in zip(tokens, means, range(4), strict=True):
        text = TEXTS[number]
        assert mean.vectors.shape == (2, 8)
        assert mean.spans.tolist() == [[0, len(text)]]
        if not text:
            assert not mean.vectors.any()
            continue
        small.assert_close(mean.vectors, encoding.vectors.mean(axis=1))
    for pooling, place in (("first", 0), ("last", -1)):
        for encoding, one in zip(tokens, encoded(**options, pooling=pooling), strict=True):
            if encoding.text:
                small.assert_close(one.vectors, encoding.vectors[:, place])


def test_cls_is_the_mean_over_windows():
    got = encoded(pooling="cls")
    small.assert_close(got[2].vectors, states_of(tail([]))[0][:, -1])
    ids = got[0].tokens
    firsts = [*range(0, len(ids) - 6, 3), len(ids) - 6]
    rows = [states_of(tail(ids[first : first + 6]))[0][:, -1] for first in firsts]
    small.assert_close(got[0].vectors, np.mean(rows, axis=0))


def test_words():
    for encoding, words in zip(encoded(), encoded(pooling="words"), strict=True):
        found = [encoding.text[begin:end] for begin, end in words.spans]
        assert found == encoding.text.split()
        for row, (begin, end) in enumerate(words.spans):
            mine = [begin < e <= end or (b == e == begin) for b, e in encoding.spans]
            small.assert_close(words.vectors[:, row], encoding.vectors[:, mine].mean(axis=1))


def test_what_is_cut_is_counted():
    got = encoded(long="cut")
    assert [encoding.dropped for encoding in got] == [
        max(len(encoding.tokens) - 6, 0) for encoding in encoded()
    ]
    assert got[0].dropped > 0
    small.assert_close(got[0].vectors, states_of(tail(encoded()[0].tokens[:6]))[0][:, :-2])
    with pytest.raises(
        ValueError, match=r"text 2 has \d+ tokens, wanted at most 6; raise --length"
    ):
        model().encode([TEXTS[1], TEXTS[0]], long="error", **SHORT)


def test_many_texts_come_back_in_their_order():
    texts = [TEXTS[i % 4] for i in range(70)]  # more than are held together
    got = list(model().stream(iter(texts), layers=LAYERS, **SHORT))
    assert [encoding.text for encoding in got] == texts
    for number in (0, 1, 64, 65, 69):
        np.testing.assert_allclose(got[number].vectors, encoded()[number % 4].vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, r"layer 3 is asked for, but the network has 2: wanted 0 .* or -1 .* to -3"),
        ({"layers": (-4,)}, "layer -4 is asked for"),
        ({"layers": ()}, r"layers is empty, wanted at least one layer number \(--layers\)"),
        ({"pooling": "max"}, "pooling is 'max', wanted one of tokens, words, mean"),
        ({"long": "drop"}, "long is 'drop', wanted one of windows, memory, cut, error"),
        ({"length": 2}, r"length is 2, wanted at least 3 \(--length\)"),
        ({"length": 8, "stride": 7}, r"stride is 7, wanted at most 6, .* \(--stride, --length\)"),
        ({"batch_size": 0}, "batch_size is 0, wanted at least 1"),
        ({"mem_len": -1}, "mem_len is -1, wanted at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        model().stream(["text"], **options)


def test_layers_are_counted_from_the_embedding_or_from_the_end():
    assert EncodeOptions(layers=(0, 1, -1, -3)).layer_numbers(2) == (0, 1, 2, 0)
    last, again = (model().encode(TEXTS[1:2], layers=n, **SHORT)[0].vectors for n in (-1, [2]))
    np.testing.assert_array_equal(last, again)
    small.assert_close(last[0], encoded()[1].vectors[1])


def test_a_model_without_vocabulary():
    with pytest.raises(ValueError, match=r"comes without a vocabulary; give spiece.model"):
        XLNet(examples.pretrained(examples.config(n_token=11)))
    with pytest.raises(ValueError, match=r"model.dtype must be one of .*'float16'"):
        XLNet(examples.pretrained(), dtype="float16")
