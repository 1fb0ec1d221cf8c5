"""Factorization orders as one rank per token, and the list of target positions.

A rank says all that the original's float mask of T x T per example says (`_local_perm` of its
`data_utils.py`): content row i sees j where ranks[j] <= ranks[i], query row i where ranks[j] <
ranks[i]. Within a part of the sequence, ordinary tokens that are not predicted have the lowest
rank, so everybody sees them and they see no predicted token; predicted tokens, <sep> and <cls> have
a distinct rank each. All ranks of the second part are above all of the first: the second part sees
the whole first part and the first nothing of the second.
"""

import numpy as np

from xlnet_jax.data import counter_random


def block_order(order: np.ndarray, length: int) -> np.ndarray:
    """Factorization index of each position of a part: int64 [..., length], distinct in a row.

    `order` [..., perm_size] is one permutation; the part is cut into blocks of perm_size, every
    block is ordered by the same permutation, and earlier blocks come first. A shorter last block
    uses the beginning of the permutation (the original demands that perm_size divides the length).
    """
    perm_size = order.shape[-1]
    blocks = -(-length // perm_size)
    starts = np.repeat(np.arange(blocks) * perm_size, perm_size)
    return (np.tile(order, blocks) + starts)[..., :length]


def part_ranks(order: np.ndarray, hidden: np.ndarray, offset: int = 0) -> np.ndarray:
    """Ranks of one part: `offset` for visible tokens, 1 + index + `offset` for hidden ones.

    `hidden` is bool [..., length]: predicted, <sep> or <cls>. Returns int32 of the same shape.
    """
    index = block_order(order, hidden.shape[-1])
    return np.where(hidden, index + 1 + offset, offset).astype(np.int32)


def sequence_ranks(
    first_order: np.ndarray, second_order: np.ndarray, hidden: np.ndarray, reuse_len: int
) -> np.ndarray:
    """Ranks of sequences [..., T] whose first `reuse_len` tokens are the first part: int32."""
    first = part_ranks(first_order, hidden[..., :reuse_len])
    perm_size = first_order.shape[-1]
    highest = -(-reuse_len // perm_size) * perm_size  # a short last block may skip some indices
    second = part_ranks(second_order, hidden[..., reuse_len:], offset=highest + 1)
    return np.concatenate([first, second], axis=-1)


def draw_ranks(key: np.ndarray, hidden: np.ndarray, reuse_len: int, perm_size: int) -> np.ndarray:
    """Ranks under random orders, one order per part and per key: int32 [len(key), T]."""
    orders = [
        counter_random.permutations(counter_random.make_key(key, part), perm_size)
        for part in (0, 1)
    ]
    return sequence_ranks(orders[0], orders[1], hidden, reuse_len)


def target_list(is_target: np.ndarray, num_predict: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions to predict and their weights: int32 and float32 [N, P], from bool [N, T].

    Positions ascend; places left over have position 0 and weight 0. With num_predict None every
    position has a place (P = T) and the weights say which count.

    Raises ValueError where a row has more targets than places.
    """
    rows, length = is_target.shape
    if num_predict is None:
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()
        return positions, is_target.astype(np.float32)
    counts = is_target.sum(axis=1)
    if counts.max(initial=0) > num_predict:
        raise ValueError(
            f"an example has {counts.max()} tokens to predict, but config.data.num_predict is "
            f"{num_predict}; raise it to the value the data were made with"
        )
    weights = (np.arange(num_predict) < counts[:, None]).astype(np.float32)
    positions = np.zeros((rows, num_predict), np.int32)
    positions[weights > 0] = np.nonzero(is_target)[1]
    return positions, weights
