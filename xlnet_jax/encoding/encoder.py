"""`XLNet`: a pretrained network with its vocabulary, from text to vectors."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xlnet_jax.convert.pretrained import Pretrained, load_pretrained
from xlnet_jax.encoding import cutting
from xlnet_jax.encoding.cutting import Part
from xlnet_jax.model import transformer
from xlnet_jax.model.config import RunConfig

POOLINGS = ("tokens", "words", "mean", "first", "last", "cls")
LONG = ("windows", "memory", "cut", "error")
_BATCHES_TOGETHER = 8  # whose texts are sorted by length; bounds what is held in memory


class Encoding(NamedTuple):
    """What became of one text.

    Attributes:
        vectors: float32; [Y, n, D] with pooling "tokens" (a row a token) or "words" (the mean of a
            word's tokens), else [Y, D]; Y layers in the order asked for.
        spans: int64 [n, 2]; characters text[begin:end] of the text as given that each row stands
            for. With other poolings the one span of the whole text.
        tokens: ids of the text's tokens, int32, without <sep> and <cls>.
        text: the text as given.
        dropped: tokens that were cut off (`long="cut"`).
    """

    vectors: np.ndarray
    spans: np.ndarray
    tokens: np.ndarray
    text: str
    dropped: int = 0


@dataclasses.dataclass(frozen=True)
class EncodeOptions:
    """How texts are encoded; the names are those of the flags of `xlnet-jax encode`.

    Attributes:
        layers: 0 is the embedding, 1 the first layer; negative ones count from the last, -1.
        pooling: "tokens" for each token's vector, "words" for the mean of each word (parted by
            blanks), or one vector a text: "mean" of its tokens, its "first" or "last" token, or
            "cls", the token <cls> behind the text that the original's classifiers read.
        long: what happens to texts that do not fit `length`: overlapping "windows"; consecutive
            segments with "memory" carried over; "cut" behind what fits; "error".
        length: most tokens that go through the network at once, with <sep> and <cls>.
        stride: tokens from one window to the next; 0 for half a window.
        mem_len: tokens of memory; 0 for `length`.
        batch_size: rows at once.
        pad_to_multiple: lengths are padded up to multiples of it; programs are compiled for each.
    """

    layers: tuple[int, ...] = (-1,)
    pooling: Literal["tokens", "words", "mean", "first", "last", "cls"] = "tokens"
    long: Literal["windows", "memory", "cut", "error"] = "windows"
    length: int = 512
    stride: int = 0
    mem_len: int = 0
    batch_size: int = 32
    pad_to_multiple: int = 64

    def __post_init__(self) -> None:
        for name, choices in (("pooling", POOLINGS), ("long", LONG)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, wanted one of {', '.join(choices)}"
                    f" (--{name})"
                )
        least = {"length": cutting.ENDS + 1, "batch_size": 1, "pad_to_multiple": 1}
        for name in ("length", "batch_size", "pad_to_multiple", "stride", "mem_len"):
            value, wanted = getattr(self, name), least.get(name, 0)
            if value < wanted:
                raise ValueError(f"{name} is {value}, wanted at least {wanted} (--{name})")
        if self.stride > self.room:
            raise ValueError(
                f"stride is {self.stride}, wanted at most {self.room}, so that windows of length"
                f" {self.length} leave no token out (--stride, --length)"
            )
        if not self.layers:
            raise ValueError("layers is empty, wanted at least one layer number (--layers)")

    @property
    def room(self) -> int:
        """Tokens of a text that fit beside <sep> and <cls>."""
        return self.length - cutting.ENDS

    def layer_numbers(self, num_layers: int) -> tuple[int, ...]:
        """`layers` counted from the embedding, 0; raises ValueError for one that is not there."""
        for layer in self.layers:
            if not -num_layers - 1 <= layer <= num_layers:
                raise ValueError(
                    f"layer {layer} is asked for, but the network has {num_layers}: wanted 0 (the"
                    f" embedding) to {num_layers}, or -1 (the last) to {-num_layers - 1} (--layers)"
                )
        return tuple(layer % (num_layers + 1) for layer in self.layers)


class XLNet:
    """A pretrained network with its vocabulary.

        model = xlnet_jax.XLNet.load("runs/large")
        for encoding in model.encode(texts, layers=[-1, -2], pooling="mean"): ...

    The bare network, a Flax module without text, is `xlnet_jax.model.transformer.XLNet`.

    `dtype` is that of matrix products, "float32" or "bfloat16". Raises ValueError for another one,
    or if there is no vocabulary.
    """

    def __init__(self, pretrained: Pretrained, *, dtype: str = "float32"):
        if pretrained.tokenizer is None:
            raise ValueError(
                f"{pretrained.source} comes without a vocabulary; give spiece.model"
                " (--spiece_model=FILE)"
            )
        self.config = pretrained.config
        self.tokenizer = pretrained.tokenizer
        self.source, self.notes = pretrained.source, pretrained.notes
        self._run = RunConfig(
            dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, dtype=dtype
        )
        self._params = {"params": jax.device_put(pretrained.params["xlnet"])}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, dtype: str = "float32", **options: Any) -> XLNet:
        """From anything that `load_pretrained` takes, with its options."""
        return cls(load_pretrained(path, **options), dtype=dtype)

    def encode(self, texts: Iterable[str], **options: Any) -> list[Encoding]:
        """Vectors of texts, in their order; `options` are the fields of `EncodeOptions`.

        A text without a token has no rows, and a zero vector with pooling "mean", "first" and
        "last". Neither batch nor padding change a result.
        """
        return list(self.stream(texts, **options))

    def stream(self, texts: Iterable[str], **options: Any) -> Iterator[Encoding]:
        """As `encode`, one by one, with some hundred texts in memory at a time."""
        if "layers" in options:
            layers = options["layers"]
            options["layers"] = (layers,) if isinstance(layers, int) else tuple(layers)
        chosen = EncodeOptions(**options)
        return self._stream(texts, chosen.layer_numbers(self.config.n_layer), chosen)

    def _stream(
        self, texts: Iterable[str], layers: tuple[int, ...], options: EncodeOptions
    ) -> Iterator[Encoding]:
        most = options.batch_size * _BATCHES_TOGETHER
        block: list[str] = []
        done = characters = 0
        for text in texts:
            block.append(text)
            characters += len(text)
            if len(block) == most or characters >= most * options.length:
                yield from self._block(block, done, layers, options)
                done += len(block)
                block, characters = [], 0
        if block:
            yield from self._block(block, done, layers, options)

    def _block(
        self, texts: list[str], done: int, layers: tuple[int, ...], options: EncodeOptions
    ) -> Iterator[Encoding]:
        flat, spans, lengths = self.tokenizer.encode_batch_with_offsets(texts)
        ends = np.cumsum(lengths)[:-1]
        rows, places = np.split(flat, ends), np.split(spans, ends)
        dropped = [max(len(row) - options.room, 0) for row in rows]
        if options.long == "error" and any(dropped):
            number = next(i for i, count in enumerate(dropped) if count)
            raise ValueError(
                f"text {done + number + 1} has {len(rows[number])} tokens, wanted at most"
                f" {options.room}; raise --length, or choose --long=windows, memory or cut"
            )
        if options.long == "cut":
            rows = [row[: options.room] for row in rows]
            places = [place[: options.room] for place in places]
        else:
            dropped = [0] * len(rows)
        vectors = self._run_rows(rows, layers, options)
        for text, row, place, states, lost in zip(
            texts, rows, places, vectors, dropped, strict=True
        ):
            if options.pooling == "words":
                states, place = _words(text, states, place)
            elif options.pooling != "tokens":
                place = np.array([[0, len(text)]], np.int64)
            yield Encoding(states, place, row, text, lost)

    def _run_rows(
        self, rows: Sequence[np.ndarray], layers: tuple[int, ...], options: EncodeOptions
    ) -> list[np.ndarray]:
        """Of each text [Y, n, D], or [Y, D] if it is pooled to one vector."""
        special, wide = self.tokenizer.special, self.config.d_model
        if options.long == "memory":
            texts = [
                cutting.segments(i, ids, special, options.length) for i, ids in enumerate(rows)
            ]
        else:
            stride = options.stride or max(options.room // 2, 1)
            texts = [
                cutting.windows(i, ids, special, options.length, stride)
                for i, ids in enumerate(rows)
            ]
        one_vector = options.pooling not in ("tokens", "words")
        counts = np.array([len(ids) for ids in rows])
        cls_counts = np.array([sum(part.has_cls for part in parts) for parts in texts])
        shapes = [(len(layers), wide) if one_vector else (len(layers), n, wide) for n in counts]
        results = [np.zeros(shape, np.float32) for shape in shapes]
        run = dataclasses.replace(
            self._run,
            mem_len=(options.mem_len or options.length) if options.long == "memory" else 0,
        )
        network = transformer.XLNet(self.config, run)
        num_rows = len(texts) if options.long == "memory" else sum(map(len, texts))
        height = _height(num_rows, options.batch_size)
        running: tuple[list[Part], Any] | None = None  # read when the next batch is on its way
        for group in _groups(texts, options):
            memory = None
            for parts in group:
                batch = cutting.padded(parts, height, options.pad_to_multiple, options.length)
                weights = None
                if one_vector:
                    weights = cutting.pooling_weights(
                        options.pooling, parts, counts, cls_counts, batch["tokens"].shape
                    )
                states, memory = _apply(network, layers, self._params, batch, weights, memory)
                if running:
                    _put(results, *running, one_vector)
                running = parts, states
        if running:
            _put(results, *running, one_vector)
        return results


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(
    network: transformer.XLNet,
    layers: tuple[int, ...],
    params: Any,
    batch: dict[str, jax.Array],
    weights: jax.Array | None,
    memory: jax.Array | None,
) -> tuple[jax.Array, jax.Array | None]:
    """States [Y, B, T, D] or their weighted sums [Y, B, D], float32, and the memory."""
    needs_all = layers != (network.config.n_layer,) * len(layers)
    apply: Any = network.apply
    output = apply(params, **batch, memory=memory, all_layers=needs_all)
    if needs_all:
        states = jnp.stack([output.layers[layer] for layer in layers])
    else:
        states = jnp.stack([output.hidden] * len(layers))
    states = states.astype(jnp.float32)
    if weights is not None:
        states = jnp.einsum("YBTD,BT->YBD", states, weights)
    return states, output.memory


def _groups(texts: list[list[Part]], options: EncodeOptions) -> Iterator[list[list[Part]]]:
    """Batches, each a list of steps that pass memory on; with windows, of one step each.

    Rows of like length come together. With memory the rows of a group are its texts, longest
    first, so that those which go on are always the first rows.
    """
    size = options.batch_size
    if options.long == "memory":
        order = sorted(texts, key=lambda parts: -parts[-1].first - len(parts[-1].tokens))
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            steps = len(rows[0])
            yield [[parts[k] for parts in rows if k < len(parts)] for k in range(steps)]
        return
    parts = sorted((part for parts in texts for part in parts), key=lambda part: len(part.tokens))
    for first in range(0, len(parts), size):
        yield [parts[first : first + size]]


def _height(rows: int, batch_size: int) -> int:
    """Rows of every batch, so that few programs are compiled: less than asked for few texts."""
    return min(1 << (rows - 1).bit_length(), batch_size)


def _put(
    results: list[np.ndarray], parts: Sequence[Part], states: jax.Array, one_vector: bool
) -> None:
    numbers = np.asarray(states)
    for row, part in enumerate(parts):
        if one_vector:
            results[part.text] += numbers[:, row]
        else:
            results[part.text][:, slice(*part.own)] = numbers[:, row, part.own_columns]


def _words(text: str, states: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means [Y, words, D] of the states of each word's tokens, and the words' spans."""
    word, places = cutting.word_spans(text, spans)
    sums = np.zeros((len(places), states.shape[0], states.shape[2]), np.float32)
    np.add.at(sums, word, states.swapaxes(0, 1))
    counts = np.bincount(word, minlength=len(places)).astype(np.float32)
    return (sums / counts[:, None, None]).swapaxes(0, 1), places
