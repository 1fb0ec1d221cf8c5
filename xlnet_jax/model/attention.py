"""Relative attention: one core for the content stream, the query stream, and fine-tuning.

For one head, with keys k_j and values v_j of [memory, this segment], relative codes r of the
distance M + i - j, and s = 1 where tokens i and j lie in different segments:

    score_ij = ((q_i + u)·k_j + (q_i + w)·r_(M+i-j) + (q_i + z)·e_s) / sqrt(H)
    out_i    = sum_j softmax_j(score_ij | j visible to i) v_j

u, w, z are the biases `r_w_bias`, `r_r_bias`, `r_s_bias` and e_0, e_1 the rows of `seg_embed`. The
two streams (Yang et al. 2019, section 2.3) differ in their query rows and in what is visible:

    content:  h_i = Attention(q = h_i, kv = [memory, h_j : rank_j <= rank_i])
    query:    g_i = Attention(q = g_i, kv = [memory, h_j : rank_j <  rank_i])
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from xlnet_jax.model import core, dropout, layout, positions
from xlnet_jax.model.backward import dense, dense_transposed
from xlnet_jax.model.config import RunConfig, XLNetConfig

_SCORES = 2**20  # a core's usual share of a CPU's last cache, 4 MB, in float32 numbers


class Rows(NamedTuple):
    """What the attention core must know of one stream's query rows, the same in every layer.

    Attributes:
        visible: may row i see key j; None if all may see all.
        other_segment: is key j in another segment than row i; None without segments.
        tokens: which token of the segment each row belongs to; None for all tokens in order.
    """

    visible: Bool[Array, "#B I S"] | None
    other_segment: Bool[Array, "B I S"] | None
    tokens: Int[Array, "B I"] | None = None


def asked_for(
    x: Float[Array, "B Q D"], num_tokens: int, streams: tuple[Rows, ...]
) -> Float[Array, "B _ D"]:
    """The rows of x that `streams` are about: all, or the query rows after the content rows."""
    return x if streams[0].tokens is None else x[:, num_tokens:]


class HeadBiases(NamedTuple):
    """Learned vectors per head that enter the scores (see the module's equations)."""

    r_w_bias: Float[Array, "N H"]
    r_r_bias: Float[Array, "N H"]
    r_s_bias: Float[Array, "N H"]
    seg_embed: Float[Array, "2 N H"]


def relative_attention(
    q: Float[Array, "B I N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    r: Float[Array, "G R N H"],
    biases: HeadBiases,
    rows: Rows,
    *,
    rate: float = 0.0,
    seed: UInt32[Array, "2"] | None = None,
) -> Float[Array, "B I N H"]:
    """The attention core of the module's equations for the I query rows of one stream.

    Products are in the dtype of `q`, their sums, the softmax and the masks in float32. With two
    directions (G = 2) even batch rows use `r[0]`, odd ones `r[1]`. The segment term enters as
    s·((q + z)·(e_1 - e_0)): what all keys of a row share cancels in the softmax. On one CPU heads
    whose scores would overflow the cache are worked off in groups, with the same result.
    """
    directions = r.shape[0]
    masks = core.Masks(
        visible=_masks_first(rows.visible, directions),
        other_segment=_masks_first(rows.other_segment, directions),
        tokens=rows.tokens,
        seed=None if rate == 0.0 or seed is None else _rows_first(seed, q.shape[0], directions),
    )
    of_heads = (q, k, v, r, biases)
    groups = _head_groups(k, r.shape[1], layout.cpu_cores())
    if groups == 1:
        return _attention(of_heads, masks, rate)
    arrays, tree = jax.tree.flatten(of_heads)
    split = zip(*(jnp.split(x, groups, axis=-2) for x in arrays), strict=True)
    lines = q.shape[1] * q.shape[2] // groups  # of probabilities, for one group and batch row
    outputs = []
    for number, of_group in enumerate(split):
        own = masks._replace(seed=masks.seed and masks.seed.from_line(number * lines))
        outputs.append(_attention(jax.tree.unflatten(tree, of_group), own, rate))
    return jnp.concatenate(outputs, axis=-2)


def _head_groups(k: Float[Array, "B S N H"], num_codes: int, cpu_cores: int) -> int:
    """In how many groups a CPU works off the heads, one group after the other.

    So many that a group's scores stay in the cache from one operation to the next. The query rows
    are fewer, but gain by it too.
    """
    if not cpu_cores:
        return 1
    batch, num_keys, heads, _ = k.shape
    most = cpu_cores * _SCORES // (batch * (num_codes - num_keys) * num_keys)
    return next(n for n in range(1, heads + 1) if heads % n == 0 and heads // n <= max(1, most))


def _attention(
    of_heads: tuple[Array, Array, Array, Array, HeadBiases], masks: core.Masks, rate: float
) -> Float[Array, "B I N H"]:
    """`relative_attention` for all heads at once, or for one group: their q, k, v, r, biases."""
    q, k, v, r, biases = of_heads
    directions, scale = r.shape[0], 1.0 / math.sqrt(q.shape[-1])
    step = None
    if masks.other_segment is not None:
        step_NH = biases.seg_embed[1] - biases.seg_embed[0]
        step = _einsum("BINH,NH->BIN", (q + biases.r_s_bias) * scale, step_NH)
        step = _heads_first(step, directions)
    out = core.attend(
        _heads_first((q + biases.r_w_bias) * scale, directions),
        _heads_first((q + biases.r_r_bias) * scale, directions),
        _heads_first(k, directions),
        _heads_first(v, directions),
        r.transpose(0, 2, 1, 3),
        step,
        masks,
        rate,
    )
    return out.transpose(2, 0, 3, 1, 4).reshape(q.shape)


def _heads_first(x: Float[Array, "B I N ..."], directions: int) -> Float[Array, "G N b I ..."]:
    """Batch row 2b + g becomes row b of direction g (directions alternate along the batch)."""
    x = x.reshape(-1, directions, *x.shape[1:])
    return x.transpose(1, 3, 0, 2, *range(4, x.ndim))


def _rows_first(seed: UInt32[Array, "2"], rows: int, directions: int) -> dropout.RowSeeds:
    """Seeds of the probabilities [G, N, b, I, S]: rows [G, 1, b, 1, 1]."""
    seeds = dropout.row_seeds(seed, rows)
    return seeds._replace(rows=seeds.rows.reshape(-1, directions).T[:, None, :, None, None])


def _masks_first(
    mask: Bool[Array, "#B I S"] | None, directions: int
) -> Bool[Array, "G 1 b I S"] | None:
    if mask is None:
        return None
    if mask.shape[0] == 1:
        return mask[None, None]
    return mask.reshape(-1, directions, 1, *mask.shape[1:]).transpose(1, 2, 0, 3, 4)


def _einsum(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)


def initializer(run: RunConfig) -> nn.initializers.Initializer:
    """The run's initializer for all weights but LayerNorm and dense biases."""
    if run.init == "normal":
        return nn.initializers.normal(run.init_std)

    def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -run.init_range, run.init_range)

    return uniform


class RelativeAttention(nn.Module):
    """Projections around the core; both streams at once, with shared keys and values."""

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        memory: Float[Array, "B M D"] | None,
        codes: Float[Array, "G R D"],
        streams: tuple[Rows, ...],
        shared_biases: tuple[Array, ...] | None,
        train: bool,
    ) -> Float[Array, "B _ D"]:
        """x: the T content rows, then the P query rows if there is a second stream.

        streams: what is asked for: the content rows, the query rows, or both in this order.
        """
        cfg, dtype = self.config, self.run.dtype
        init = initializer(self.run)
        per_head = (cfg.n_head, cfg.d_head)

        def project(name: str) -> Array:
            kernel = self.param(name, init, (cfg.d_model, *per_head))
            return layout.named(kernel.astype(dtype), "DNH")

        wq, wk, wv, wr, wo = (project(name) for name in ("q", "k", "v", "r", "o"))
        names = ("r_w_bias", "r_r_bias", "r_s_bias")
        head_biases = shared_biases or tuple(self.param(name, init, per_head) for name in names)
        seg_embed = self.param("seg_embed", init, (2, *per_head))
        biases = HeadBiases(*(b.astype(dtype) for b in (*head_biases, seg_embed)))

        mem_len = 0 if memory is None else memory.shape[1]
        num_tokens = (codes.shape[1] - mem_len) // 2
        content = x[:, :num_tokens]

        def keys_of(kernel: Array) -> Array:
            own = layout.named(dense(content, kernel), "BTNH")
            if memory is None:
                return own
            # Apart from `own`, so that no gradient of the memory is computed.
            old = dense(jax.lax.stop_gradient(memory).astype(dtype), kernel)
            return jnp.concatenate([old, own], axis=1)

        k, v = keys_of(wk), keys_of(wv)
        r = layout.named(positions.project_codes(codes.astype(dtype), wr, num_tokens), "GRNH")
        asked = asked_for(x, num_tokens, streams)
        q = layout.named(dense(asked, wq), "BQNH")
        each = [num_tokens] if len(streams) == 2 else []
        outputs = []
        # Drawn for both, so that the query rows have the same one with and without content rows.
        of_content, of_query = (self._seed(train) for _ in range(2))
        for rows, q_rows in zip(streams, jnp.split(q, each, axis=1), strict=True):
            seed = of_content if rows.tokens is None else of_query
            attend = functools.partial(
                relative_attention, rate=self.run.attention_dropout, seed=seed
            )
            outputs.append(
                jax.checkpoint(attend)(q_rows, k, v, r, biases, rows)
                if self.run.remat == "attention"
                else attend(q_rows, k, v, r, biases, rows)
            )
        out = dense_transposed(jnp.concatenate(outputs, axis=1), wo)
        return layout.named(out, "BQD")

    def _seed(self, train: bool) -> Array | None:
        if not train or self.run.attention_dropout == 0.0:
            return None
        return dropout.dropout_seed(self.make_rng("dropout"))
