"""Who may see whom, and what the memory keeps.

True means "may be seen". Axis letters are those of `transformer.py`.

In permutation language modelling one integer a token, its rank in the factorization order, says
everything: a token of the content stream sees all ranks up to its own (so itself too), the query
of the same token sees strictly lower ranks only. Tokens that are not predicted share the lowest
rank of their part of the segment, so that all see them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def content_visibility(ranks_BT: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """[b, i, j]: may token i see token j in the content stream?"""
    return ranks_BT[:, None, :] <= ranks_BT[:, :, None]


def query_visibility(
    ranks_BT: Int[Array, "B T"], positions_BP: Int[Array, "B P"]
) -> Bool[Array, "B P T"]:
    """[b, p, j]: may the query of token `positions_BP[b, p]` see token j?"""
    own_BP = jnp.take_along_axis(ranks_BT, positions_BP, axis=1)
    return ranks_BT[:, None, :] < own_BP[:, :, None]


def causal_visibility(
    num_tokens: int, mem_len: int, *, same_length: bool = False
) -> Bool[Array, "T S"]:
    """[i, j]: the past and oneself; with `same_length` only the M + 1 nearest keys.

    Source: `_create_mask` in the original's modeling.py (`attn_type=uni`).
    """
    query = jnp.arange(num_tokens)[:, None]
    key = jnp.arange(mem_len + num_tokens)[None, :]
    visible = key <= query + mem_len
    return visible & (key >= query) if same_length else visible


def update_memory(
    memory: Float[Array, "B M D"] | None,
    hidden: Float[Array, "B T D"],
    *,
    mem_len: int,
    reuse_len: int,
) -> Float[Array, "B m D"] | None:
    """The last `mem_len` of [old memory, first `reuse_len` tokens of a layer's input].

    No gradient flows into the result. `reuse_len` 0 takes the whole input, `mem_len` 0 keeps no
    memory (None). Source: `_cache_mem` in the original's modeling.py.
    """
    if mem_len == 0:
        return None
    if reuse_len > 0:
        hidden = hidden[:, :reuse_len]
    if memory is not None:
        hidden = jnp.concatenate([memory, hidden.astype(memory.dtype)], axis=1)
    return jax.lax.stop_gradient(hidden[:, -mem_len:])
