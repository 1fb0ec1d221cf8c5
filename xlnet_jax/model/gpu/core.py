"""`core.forward` and `core.backward` around the kernels.

XLA makes the products with the position codes, in blocks of query rows as on other platforms; the
kernels do all between. The exponentials of scores (`exp_scores`, probabilities times the sum of
their row) that are kept carry the dropout mask in their sign.

Axis letters are those of `blocks.py`, with C the codes of a block and J = ROWS its rows.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from xlnet_jax.model import dropout, layout

try:
    from xlnet_jax.model.gpu import backward as kernels_backward
    from xlnet_jax.model.gpu import forward as kernels_forward
    from xlnet_jax.model.gpu.blocks import KEYS, ROWS, WORD, Rows
except ImportError:  # JAX means to give up this backend of Pallas (deprecated in 0.11)
    HAS_KERNELS = False
else:
    HAS_KERNELS = True


def fits(k: Float[Array, "G N b S H"]) -> bool:
    """Whether the kernels can do this: bfloat16, a head size they can hold, a GPU of 2020 or later.

    Without a GPU here, as when a program is compiled for another machine, it is taken for new.
    """
    suits = k.dtype == jnp.bfloat16 and k.shape[-1] in (16, 32, 64, 128)
    return HAS_KERNELS and suits and _compute_capability() >= 8.0


@functools.cache
def _compute_capability() -> float:
    try:
        return min(float(gpu.compute_capability) for gpu in jax.local_devices(backend="cuda"))
    except RuntimeError:  # no such backend
        return float("inf")


class _Cut(NamedTuple):
    """How I query rows and S keys are filled up, and their codes cut.

    Attributes:
        rows, keys: how many are appended.
        blocks: E, blocks of rows.
        stride: a block has every so many-th row.
        content: rows are the tokens in order; else each stands at a token of its own.
    """

    rows: int
    keys: int
    blocks: int
    stride: int
    content: bool

    @property
    def span(self) -> int:
        """Tokens from the first row of a block to the first of the next one of its kind."""
        return ROWS * self.stride


def _cut(num_rows: int, num_keys: int, content: bool) -> _Cut:
    stride = 2 if content else 1
    rows, keys = -num_rows % (ROWS * stride), -num_keys % KEYS
    return _Cut(rows, keys, (num_rows + rows) // ROWS, stride, content)


def forward(
    rate: float,
    q_content: Array,
    q_position: Array,
    k: Array,
    v: Array,
    r: Array,
    step: Array | None,
    masks: Any,
    *,
    interpret: bool = False,
) -> tuple[Array, Any]:
    """As `core.forward`."""
    num_rows, num_keys = q_content.shape[-2], k.shape[-2]
    cut = _cut(num_rows, num_keys, masks.tokens is None)
    codes = _codes(r, cut)
    raw = _product(_RAW[cut.content], _in_blocks(q_position, cut), codes).astype(k.dtype)
    rows = _rows(step, masks, rate, r, cut, (*q_content.shape[:-1], num_keys))

    def attend(q: Array, k: Array, v: Array, raw: Array, rows: Rows) -> Any:
        same: dict[str, Any] = {"rate": rate, "stride": cut.stride, "interpret": interpret}
        return kernels_forward.attend(q, k, v, raw, rows, num_keys=num_keys, **same)

    out, total, exp_scores = layout.in_parts(
        attend,
        (
            _batch_first(_more(q_content, -2, cut.rows)),
            _batch_first(_more(k, -2, cut.keys)),
            _batch_first(_more(v, -2, cut.keys)),
            raw.reshape(*raw.shape[:4], -1),
            rows,
        ),
        ("BINH", "BSNH", "BSNH", "GNEbC", rows.letters()),
        ("BINH", "GNbI", "GNbIS"),
    )
    out = _heads_first(out, r.shape[0])[..., :num_rows, :]
    total = total[..., :num_rows, None]
    exp_scores = exp_scores[..., :num_rows, :num_keys]
    return out, (q_content, q_position, k, v, r, step, masks, exp_scores, total, out)


def backward(
    rate: float, kept: Any, d_out: Array, *, interpret: bool = False
) -> tuple[Array | None, ...]:
    """As `core.backward`."""
    q_content, q_position, k, v, r, step, masks, exp_scores, total, out = kept
    num_rows, num_keys = exp_scores.shape[-2:]
    cut = _cut(num_rows, num_keys, masks.tokens is None)
    codes = _codes(r, cut)
    rows = _rows(step, masks, 0.0, r, cut, exp_scores.shape)._replace(visible=None)
    mean = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1) / total[..., 0]
    share = 1.0 if masks.seed is None else 1.0 - rate
    d_out = (d_out / (total * share)).astype(v.dtype)

    def gradients(
        q: Array, k: Array, v: Array, exp_scores: Array, d_out: Array, mean: Array, rows: Rows
    ) -> tuple[Array, ...]:
        same: dict[str, Any] = {"stride": cut.stride, "interpret": interpret}
        d_q, d_raw, d_step = kernels_backward.row_gradients(
            k, v, exp_scores, d_out, mean, rows, columns=codes.shape[-2], **same
        )
        d_k, d_v = kernels_backward.key_gradients(q, v, exp_scores, d_out, mean, **same)
        return d_q, d_raw, d_k, d_v, *([] if d_step is None else [d_step])

    d_q_content, d_raw, d_k, d_v, *d_step = layout.in_parts(
        gradients,
        (
            _batch_first(_more(q_content, -2, cut.rows)),
            _batch_first(_more(k, -2, cut.keys)),
            _batch_first(_more(v, -2, cut.keys)),
            _more(_more(exp_scores, -2, cut.rows), -1, cut.keys),
            _batch_first(_more(d_out, -2, cut.rows)),
            _more(mean, -1, cut.rows),
            rows,
        ),
        ("BINH", "BSNH", "BSNH", "GNbIS", "BINH", "GNbI", rows.letters()),
        ("BINH", "GNEbC", "BSNH", "BSNH", *(["GNbI"] if rows.step is not None else [])),
    )
    directions = r.shape[0]
    d_raw = d_raw.reshape(*d_raw.shape[:4], -1, codes.shape[-2])
    d_q_position = _product(_D_Q[cut.content], d_raw, codes).astype(k.dtype)
    d_codes = _product(_D_CODES[cut.content], d_raw, _in_blocks(q_position, cut))
    return (
        _heads_first(d_q_content, directions)[..., :num_rows, :],
        _in_order(d_q_position, cut)[..., :num_rows, :],
        _heads_first(d_k, directions)[..., :num_keys, :],
        _heads_first(d_v, directions)[..., :num_keys, :],
        _of_codes(d_codes, r, cut).astype(r.dtype),
        d_step[0][..., :num_rows] if d_step else None,
    )


# Products with codes: of content rows each block has its own, query rows share all.
_RAW = {True: "GNEbJH,GNECH->GNEbJC", False: "GNEbJH,GNCH->GNEbJC"}
_D_Q = {True: "GNEbJC,GNECH->GNEbJH", False: "GNEbJC,GNCH->GNEbJH"}
_D_CODES = {True: "GNEbJC,GNEbJH->GNECH", False: "GNEbJC,GNEbJH->GNCH"}


def _rows(
    step: Array | None, masks: Any, rate: float, r: Array, cut: _Cut, shape: tuple[int, ...]
) -> Rows:
    """What the kernels want to know of scores of this shape [G, N, b, I, S]."""
    num_rows, num_keys = shape[-2:]
    batch = shape[0] * shape[2]
    start = lines = None
    if masks.tokens is not None:
        start = (r.shape[-2] - num_keys - masks.tokens).astype(jnp.int32)
    if rate > 0 and masks.seed is not None:
        lines = dropout.line_keys(masks.seed, (*shape[:-1], 1))[..., 0]
        lines = _more(jnp.broadcast_to(lines, shape[:-1]), -1, cut.rows)

    def words(mask: Array | None, *, filled_with: bool) -> Array | None:
        if mask is None:
            return None
        mask = jnp.broadcast_to(mask[:, 0], (shape[0], *shape[2:]))
        mask = mask.swapaxes(0, 1).reshape(batch, num_rows, num_keys)
        mask = _more(_more(mask, 2, cut.keys), 1, cut.rows, filled_with)
        bits = mask.reshape(*mask.shape[:2], -1, WORD).astype(jnp.uint32)
        return (bits << jnp.arange(WORD, dtype=jnp.uint32)).sum(-1, dtype=jnp.uint32)

    return Rows(
        None if start is None else _more(start, 1, cut.rows),
        words(masks.visible, filled_with=True),
        words(masks.other_segment, filled_with=False),
        None if step is None or masks.other_segment is None else _more(step, -1, cut.rows),
        lines,
    )


def _codes(r: Float[Array, "G N R H"], cut: _Cut) -> Array:
    """The codes that each block of content rows needs [G, N, E, C, H]; for query rows all, once."""
    if not cut.content:
        return _more(r, -2, cut.keys)
    starts, width, front = _windows(r, cut)
    r = jnp.pad(r, ((0, 0), (0, 0), (front, cut.keys), (0, 0)))
    return jnp.stack([r[:, :, first : first + width] for first in starts], axis=2)


def _of_codes(d_codes: Array, r: Array, cut: _Cut) -> Float[Array, "G N R H"]:
    """The transpose of `_codes`."""
    codes = jax.ShapeDtypeStruct(r.shape, jnp.float32)
    (d_r,) = jax.linear_transpose(lambda codes: _codes(codes, cut), codes)(d_codes)
    return d_r


def _windows(r: Array, cut: _Cut) -> tuple[list[int], int, int]:
    """Where each block's codes begin, how many they are, and how many go before the first code."""
    front = cut.rows + cut.stride - 1
    kinds = cut.blocks // cut.stride
    width = r.shape[-2] + cut.rows + cut.keys - (kinds - 1) * cut.span
    first = [
        (kinds - 1 - block // cut.stride) * cut.span + cut.stride - 1 - block % cut.stride
        for block in range(cut.blocks)
    ]
    return first, width, front


def _in_blocks(q: Float[Array, "G N b I H"], cut: _Cut) -> Float[Array, "G N E b J H"]:
    q = _more(q, -2, cut.rows)
    lead, width = q.shape[:3], q.shape[-1]
    q = q.reshape(*lead, -1, ROWS, cut.stride, width).transpose(0, 1, 3, 5, 2, 4, 6)
    return q.reshape(*lead[:2], cut.blocks, lead[2], ROWS, width)


def _in_order(q: Float[Array, "G N E b J H"], cut: _Cut) -> Float[Array, "G N b I H"]:
    """The inverse of `_in_blocks`, but for the rows appended."""
    lead, width = q.shape[:2], q.shape[-1]
    q = q.reshape(*lead, -1, cut.stride, *q.shape[3:]).transpose(0, 1, 4, 2, 5, 3, 6)
    return q.reshape(*lead, q.shape[2], -1, width)


def _batch_first(x: Float[Array, "G N b I H"]) -> Float[Array, "B I N H"]:
    """As the rows came: in `attention.py` they were moved the other way, so nothing is moved."""
    x = x.transpose(2, 0, 3, 1, 4)
    return x.reshape(-1, *x.shape[2:])


def _heads_first(x: Float[Array, "B I N H"], directions: int) -> Float[Array, "G N b I H"]:
    return x.reshape(-1, directions, *x.shape[1:]).transpose(1, 3, 0, 2, 4)


def _more(x: Array, axis: int, number: int, value: bool | float = 0) -> Array:
    """With so many zeros, or others, appended."""
    sides = [(0, 0)] * x.ndim
    sides[axis] = (0, number)
    return jnp.pad(x, sides, constant_values=value) if number else x


def _product(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=jnp.float32)
