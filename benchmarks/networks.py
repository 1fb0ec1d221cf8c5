"""The networks that are measured: the same size for ours and for the PyTorch XLNet."""

from __future__ import annotations

from typing import Any

SIZES = {
    "small": (2, 128, 2), "base": (12, 768, 12), "large": (24, 1024, 16)
}  # Y, D, N  # fmt: skip


def ours(size: str, vocab_size: int) -> Any:
    """An `XLNetConfig` of ours; `size` is a key of SIZES."""
    from xlnet_jax.model.config import XLNetConfig

    layers, width, heads = SIZES[size]
    return XLNetConfig(vocab_size, width, layers, heads, width // heads, 4 * width, "gelu")


def peer(size: str, vocab_size: int, **others: Any) -> Any:
    """The same as a config of transformers, with `others` beside."""
    from transformers import XLNetConfig

    layers, width, heads = SIZES[size]
    return XLNetConfig(
        vocab_size=vocab_size,
        d_model=width,
        n_layer=layers,
        n_head=heads,
        d_inner=4 * width,
        ff_activation="gelu",
        untie_r=True,
        dropout=0.1,
        **others,
    )
