"""The network: embeddings, the stack of layers, memory in and memory out.

Legend of axis letters, used in names, einsum strings and signatures everywhere:

    B batch                     R relative positions, R = S + T    F feed-forward width
    T tokens of this segment    D model width                      V vocabulary
    M memory                    N attention heads                  Y layers
    S keys, S = M + T           H head size                        G directions (1, or 2: bi_data)
    P predicted positions       Q rows, Q = T + P (or T)           I rows of one stream
    b batch rows of one direction, B = b·G

The two streams share every weight and the query stream reads only keys and values of the content
stream. So both travel as one array x_BQD of Q = T + P rows, content first, and a layer is written
once; they differ in what their rows may see (`attention.Rows`).

Precision: parameters are float32; matrix products run in the compute dtype (`RunConfig.dtype`);
position codes, scores, softmax, LayerNorm and loss are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model import dropout, layout, positions, visibility
from xlnet_jax.model.attention import RelativeAttention, Rows, asked_for, initializer
from xlnet_jax.model.backward import PRODUCT, dense, remade
from xlnet_jax.model.config import RunConfig, XLNetConfig

LAYER_NORM_EPSILON = 1e-12


class Output(NamedTuple):
    """What a pass returns.

    Attributes:
        hidden: last layer of the query stream if there is one, else of the content stream.
        memory: per layer, for the next segment; None if `mem_len` is 0.
        layers: with `all_layers`, of the content stream: the embedding, then the output of each
            layer in turn, all before the last dropout; else None.
    """

    hidden: Float[Array, "B I D"]
    memory: Float[Array, "Y B m D"] | None
    layers: Float[Array, "Y+1 B T D"] | None = None


class LayerNorm(nn.Module):
    """Normalization over the last axis in float32, epsilon 1e-12; returns the dtype of `x`."""

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], residual: Array | float = 0.0) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        total = x.astype(jnp.float32) + residual
        centred = total - total.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
        return (normal * scale + bias).astype(x.dtype)


class FeedForward(nn.Module):
    """Dense, activation, dense, position by position; x begins with row `first` of all."""

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B Q D"], train: bool, first: int = 0
    ) -> Float[Array, "B Q D"]:
        cfg, dtype, init = self.config, self.run.dtype, initializer(self.run)
        zeros = nn.initializers.zeros
        kernel_1 = self.param("kernel_1", init, (cfg.d_model, cfg.d_inner)).astype(dtype)
        kernel_1 = layout.named(kernel_1, "DF")
        bias_1 = self.param("bias_1", zeros, (cfg.d_inner,)).astype(dtype)
        kernel_2 = self.param("kernel_2", init, (cfg.d_inner, cfg.d_model)).astype(dtype)
        kernel_2 = layout.named(kernel_2, "FD")
        bias_2 = self.param("bias_2", zeros, (cfg.d_model,)).astype(dtype)
        inner = layout.named(dense(x, kernel_1), "BQF") + bias_1
        rate = self.run.activation_dropout if train else 0.0
        seed = None
        if rate > 0:
            words = dropout.dropout_seed(self.make_rng("dropout"), first)
            seed = dropout.row_seeds(words, len(x))
            seed = seed._replace(rows=seed.rows[:, None, None])

        def outer(inner: Array, kernel_2: Array, seed: dropout.RowSeeds | None) -> Array:
            active = dropout.dropout(_activation(cfg.ff_activation, inner), rate, seed)
            return jnp.einsum("BQF,FD->BQD", active, kernel_2)

        # Of what lies between the products only `inner` is kept for the backward pass.
        out = layout.named(
            remade(outer, inner, kernel_2, seed, in_loop=self.run.scan_layers), "BQD"
        )
        return drop(self, out + bias_2, train, first=first)


class Layer(nn.Module):
    """Attention of both streams, then feed-forward of both; LayerNorm after each sum.

    Returns the rows that `streams` asks for and, as the layer's memory of this segment, what
    `update_memory` keeps; beside it the content rows it was given, if `keeps_input`.
    """

    config: XLNetConfig
    run: RunConfig
    train: bool
    keeps_input: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        memory: Float[Array, "B M D"] | None,
        codes: Float[Array, "G R D"],
        streams: tuple[Rows, ...],
        shared_biases: tuple[Array, ...] | None,
    ) -> tuple[Float[Array, "B _ D"], tuple[Array | None, Array | None]]:
        run, train = self.run, self.train
        mem_len = 0 if memory is None else memory.shape[1]
        num_tokens = (codes.shape[1] - mem_len) // 2
        new_memory = visibility.update_memory(
            memory, x[:, :num_tokens], mem_len=run.mem_len, reuse_len=run.reuse_len
        )
        kept = x[:, :num_tokens] if self.keeps_input else None
        attended = RelativeAttention(self.config, run, name="attention")(
            x, memory, codes, streams, shared_biases, train
        )
        normalize = nn.remat(LayerNorm, prevent_cse=not run.scan_layers)  # keeps what it is given
        asked = asked_for(x, num_tokens, streams)
        first = x.shape[1] - asked.shape[1]
        x = normalize(name="attention_norm")(drop(self, attended, train, first=first), asked)
        mapped = FeedForward(self.config, run, name="feed_forward")(x, train, first)
        return normalize(name="feed_forward_norm")(mapped, x), (new_memory, kept)


class XLNet(nn.Module):
    """Transformer-XL with an optional second (query) stream. Pure: memory in, memory out."""

    config: XLNetConfig
    run: RunConfig = RunConfig()

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        padding: Bool[Array, "B T"] | None = None,
        visible: Bool[Array, "B T T"] | None = None,
        query_tokens: Int[Array, "B P"] | None = None,
        query_visible: Bool[Array, "B P T"] | None = None,
        query_predicts: Bool[Array, "B P"] | None = None,
        memory: Float[Array, "Y B M D"] | None = None,
        train: bool = False,
        all_layers: bool = False,
    ) -> Output:
        """Runs one segment.

        Args:
            tokens: ids of the content stream.
            segment_ids: compared for equality only; memory counts as segment 0. None leaves the
                segment term out.
            padding: True where a token is padding, which only it itself may see.
            visible: may token i see token j; None for all. A token always sees itself.
            query_tokens: which token each query row stands at; None for no query stream.
            query_visible: may query p see token j; needed with `query_tokens`.
            query_predicts: False where a query row starts from the token's own embedding instead
                of the mask embedding (rows that predict nothing); None for all True.
            memory: what an earlier call returned; always visible.
            train: dropout on; needs the "dropout" random stream.
            all_layers: also return the hidden states of every layer.

        Raises ValueError for an odd batch with `bi_data`.
        """
        cfg, run = self.config, self.run
        _check_batch(len(tokens), run)
        init = initializer(run)
        embedding = self.param("word_embedding", init, (cfg.n_token, cfg.d_model))
        num_tokens = tokens.shape[1]
        mem_len = 0 if memory is None else memory.shape[2]

        table = layout.named(embedding.astype(run.dtype), "VD")
        h = layout.named(jnp.take(table, tokens, axis=0), "BTD")
        x = h
        if query_tokens is not None:
            mask = self.param("mask_embedding", _mask_init, (cfg.d_model,)).astype(run.dtype)
            g = jnp.broadcast_to(mask, (*query_tokens.shape, cfg.d_model))
            if query_predicts is not None:
                own = jnp.take_along_axis(h, query_tokens[..., None], axis=1)
                g = jnp.where(query_predicts[..., None], g, own)
            x = jnp.concatenate([h, g], axis=1)
        x = layout.named(drop(self, x, train), "BQD")
        streams = make_streams(
            run, num_tokens, mem_len, segment_ids, padding, visible, query_tokens, query_visible
        )
        codes = self._codes(num_tokens, mem_len, train)
        x, (new_memory, inputs) = self._layers(x, memory, codes, streams, train, all_layers)
        layers = None if inputs is None else jnp.concatenate([inputs, x[None, :, :num_tokens]])
        hidden = x if query_tokens is None else x[:, x.shape[1] - query_tokens.shape[1] :]
        return Output(drop(self, hidden, train), new_memory, layers)

    def _codes(self, num_tokens: int, mem_len: int, train: bool) -> Float[Array, "G R D"]:
        cfg, run = self.config, self.run

        def dropped(table: Array) -> Array:
            if not train or run.dropout == 0.0:
                return table
            seed = dropout.dropout_seed(self.make_rng("dropout"))
            return dropout.dropout(table, run.dropout, dropout.no_rows(seed, table.ndim))

        codes = positions.relative_position_codes(
            num_tokens,
            mem_len + num_tokens,
            cfg.d_model,
            clamp_len=run.clamp_len,
            bi_data=run.bi_data,
            drop=dropped,
        )
        return layout.named(codes - positions.code_of_here(cfg.d_model), "GRD")

    def _layers(
        self,
        x: Array,
        memory: Array | None,
        codes: Array,
        streams: tuple[Rows, ...],
        train: bool,
        keep_inputs: bool,
    ) -> tuple[Array, tuple[Array | None, Array | None]]:
        cfg, run = self.config, self.run
        shared_biases = None
        if not cfg.untie_r:
            names = ("r_w_bias", "r_r_bias", "r_s_bias")
            shape = (cfg.n_head, cfg.d_head)
            shared_biases = tuple(self.param(name, initializer(run), shape) for name in names)
        # Parameters are stacked [Y, ...] whether scanned or unrolled: one layout of checkpoints.
        if self.is_initializing():
            stack = nn.scan(
                Layer,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=cfg.n_layer,
            )
            layers = stack(cfg, run, train, keep_inputs, name="layers")
            return layers(x, memory, codes, streams, shared_biases)
        layer = Layer(cfg, run, train, keep_inputs, parent=None)

        def apply(x: Array, of_layer: Any, streams: tuple[Rows, ...] = streams) -> Any:
            params, memory, key = of_layer
            rngs = None if key is None else {"dropout": key}
            with jax.named_scope("layers"):
                return layer.apply(
                    {"params": params}, x, memory, codes, streams, shared_biases, rngs=rngs
                )

        apply = _remat(apply, run)
        keys = None
        if train and self.has_rng("dropout"):
            keys = jax.random.split(self.make_rng("dropout"), cfg.n_layer)
        of_layers = (self.variables["params"]["layers"], memory, keys)
        if run.scan_layers or keep_inputs or len(streams) == 1:
            return jax.lax.scan(apply, x, of_layers, length=cfg.n_layer, unroll=not run.scan_layers)
        # Nobody asks for the last layer's content rows. (Scanned layers make them all the same:
        # to leave the last one out of the loop, all parameters would have to be copied.)
        before, last = _split_last(of_layers, cfg.n_layer)
        x, (new_memory, _) = jax.lax.scan(apply, x, before, unroll=True)
        x, (last_memory, _) = apply(x, last, streams[1:])
        if last_memory is not None:
            new_memory = jnp.concatenate([new_memory, last_memory[None]])
        return x, (new_memory, None)


def _remat(apply: Callable[..., Any], run: RunConfig) -> Callable[..., Any]:
    """A layer under the run's remat policy (that of "attention" is inside `RelativeAttention`)."""
    if run.remat == "full":
        policy = None
    elif run.remat == "dots":
        policy = jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            jax.checkpoint_policies.save_only_these_names(PRODUCT),
        )
    elif layout.cuts_parameters():
        # Else the backward pass would find every layer's parameters kept whole.
        policy = layout.keep_all_but_cuts
    else:
        return apply
    return jax.checkpoint(apply, policy=policy, prevent_cse=not run.scan_layers)


def _split_last(stacked: Any, number: int) -> tuple[Any, Any]:
    """Arrays [Y, ...] for Y = `number` as [Y - 1, ...], and as the last ones alone.

    By `lax.split`, whose gradient is put together in one go.
    """
    leaves, tree = jax.tree.flatten(stacked)
    pairs = [jax.lax.split(leaf, (number - 1, 1)) for leaf in leaves]
    before = jax.tree.unflatten(tree, [pair[0] for pair in pairs])
    return before, jax.tree.unflatten(tree, [pair[1][0] for pair in pairs])


def _check_batch(size: int, run: RunConfig) -> None:
    if run.bi_data and size % 2:
        raise ValueError(
            f"a batch of {size} rows with bi_data (config.data.bi_data): the batch must be even,"
            " as rows of the two directions alternate"
        )


def make_streams(
    run: RunConfig,
    num_tokens: int,
    mem_len: int,
    segment_ids: Int[Array, "B T"] | None,
    padding: Bool[Array, "B T"] | None,
    visible: Bool[Array, "B T T"] | None,
    query_tokens: Int[Array, "B P"] | None,
    query_visible: Bool[Array, "B P T"] | None,
) -> tuple[Rows, ...]:
    """Brings all restrictions of sight together, for the content rows and the query rows."""
    causal = None
    if run.causal:
        visible_TS = visibility.causal_visibility(num_tokens, mem_len, same_length=run.same_length)
        causal = visible_TS[None]
    seen_by_all = None if padding is None else ~padding[:, None, :]
    content = _all_of(visible, seen_by_all)
    if content is not None:
        content |= jnp.eye(num_tokens, dtype=bool)
    content = _all_of(_with_memory(content, mem_len), causal)
    rows = Rows(content, _other_segment(segment_ids, segment_ids, mem_len))
    if query_tokens is None:
        return (rows,)
    query = _with_memory(_all_of(query_visible, seen_by_all), mem_len)
    query = _all_of(query, None if causal is None else causal[0, query_tokens])
    own_segments = None
    if segment_ids is not None:
        own_segments = jnp.take_along_axis(segment_ids, query_tokens, axis=1)
    other = _other_segment(own_segments, segment_ids, mem_len)
    return rows, Rows(query, other, query_tokens)


def _other_segment(own: Array | None, segment_ids: Array | None, mem_len: int) -> Array | None:
    """Is each key (memory counts as segment 0) in another segment than the row?"""
    if own is None or segment_ids is None:
        return None
    keys = jnp.pad(segment_ids, ((0, 0), (mem_len, 0)))
    return own[:, :, None] != keys[:, None, :]


def _all_of(*conditions: Array | None) -> Array | None:
    given = [condition for condition in conditions if condition is not None]
    if not given:
        return None
    result = given[0]
    for condition in given[1:]:
        result = result & condition
    return result


def _with_memory(visible: Array | None, mem_len: int) -> Array | None:
    if visible is None:
        return None
    return jnp.pad(visible, ((0, 0), (0, 0), (mem_len, 0)), constant_values=True)


def drop(
    module: nn.Module, x: Array, train: bool, rate: float | None = None, first: int = 0
) -> Array:
    """Dropout inside a module, at `run.dropout` or the given rate; the identity if not `train`.

    `first` is that of `dropout.dropout_seed`.
    """
    rate = module.run.dropout if rate is None else rate
    if not train or rate == 0.0:
        return x
    return dropout.dropout(x, rate, dropout.dropout_seed(module.make_rng("dropout"), first))


def _activation(name: str, x: Array) -> Array:
    return jax.nn.relu(x) if name == "relu" else jax.nn.gelu(x, approximate=True)


def _mask_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """As the original's default initializer: uniform, limit sqrt(6 / (1 + D))."""
    limit = (6.0 / (1 + shape[0])) ** 0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)
