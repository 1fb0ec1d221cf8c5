"""Useful operations of a training step, the numerator of MFU."""

from xlnet_jax.model.config import XLNetConfig


def useful_flops(
    config: XLNetConfig, seq_len: int, mem_len: int = 0, num_predict: int = 0
) -> float:
    """Forward and backward operations of one example that the objective needs.

    Two per multiply-add, times three for forward and backward; T + P query rows, keys and values
    of T + M tokens, three products with the S keys per row and head (content, position, value),
    one logit product per target. Not counted: the position projection (shared by the batch),
    lookups, normalizations, heads of fine-tuning, anything recomputed. XLNet-Base at T = 512,
    M = 384, P = 85 gives 0.431e12, XLNet-Large 1.425e12; fine-tuning has M = P = 0.
    """
    width, heads = config.d_model, config.n_head * config.d_head
    keys, rows = mem_len + seq_len, seq_len + num_predict
    projections = width * heads * (2 * rows + 2 * keys)
    feed_forward = 2 * rows * width * config.d_inner
    scores = 3 * rows * keys * heads
    logits = num_predict * config.n_token * width
    return 6.0 * (config.n_layer * (projections + feed_forward + scores) + logits)
