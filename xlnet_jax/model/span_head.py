"""Span extraction: where an answer starts, where it ends, and whether there is one.

Source: `get_qa_outputs` in function_builder.py of the original; the Chinese fork's has no
answerability output.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model.attention import initializer
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.core import MASKED
from xlnet_jax.model.heads import logits_layer
from xlnet_jax.model.transformer import LayerNorm, XLNet, drop


class SpanLogits(NamedTuple):
    """Logits, about -1e30 where no answer may start or end.

    Attributes:
        start: of each token to be the first of the answer.
        end: of each token to be the last one, given the true start.
        answer: of the question to have no answer (high means none); None without that output.
    """

    start: Float[Array, "B T"]
    end: Float[Array, "B T"]
    answer: Float[Array, "B"] | None


class SpanBeams(NamedTuple):
    """The best K starts and, for each, the best L ends; best first, of equals the lower token.

    Attributes:
        start_log_probs, starts: log probability and token of each start.
        end_log_probs, ends: the same for the ends given that start.
        answer_logits: as `SpanLogits.answer`.
    """

    start_log_probs: Float[Array, "B K"]
    starts: Int[Array, "B K"]
    end_log_probs: Float[Array, "B K L"]
    ends: Int[Array, "B K L"]
    answer_logits: Float[Array, "B"] | None


class SpanExtractor(nn.Module):
    """XLNet with start logits, end logits that know the start, and answerability.

    Parameters: "xlnet"; "start_logits" {"kernel" [D, 1], "bias"}; "end_logits" {"dense_0"
    {"kernel" [2D, D], "bias"}, "norm" {"scale", "bias"}, "dense_1" {"kernel" [D, 1], "bias"}};
    with `answerability` also "answer_class" {"dense_0" {"kernel" [2D, D], "bias"}, "dense_1"
    {"kernel" [D, 1]}}.

    Arguments of both calls: `cannot_answer` is True where no answer may start or end (None: it may
    anywhere); `cls_positions` [B], the tokens that answerability reads, are needed with it.
    """

    config: XLNetConfig
    run: RunConfig
    answerability: bool = True

    def setup(self) -> None:
        """Builds network and outputs."""
        self.xlnet = XLNet(self.config, self.run)
        self.start_logits = logits_layer(1, self.run)
        self.end_logits = EndLogits(self.config, self.run)
        if self.answerability:
            self.answer_class = AnswerClass(self.config, self.run)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        start_positions: Int[Array, "B"],
        segment_ids: Int[Array, "B T"] | None = None,
        padding: Bool[Array, "B T"] | None = None,
        cannot_answer: Bool[Array, "B T"] | None = None,
        cls_positions: Int[Array, "B"] | None = None,
        train: bool = False,
    ) -> SpanLogits:
        """Logits for training: the end is conditioned on the true start, `start_positions`."""
        hidden = self.xlnet(tokens, segment_ids=segment_ids, padding=padding, train=train).hidden
        start = _masked(self.start_logits(hidden)[..., 0], cannot_answer)
        end = self.end_logits(hidden, _rows(hidden, start_positions[:, None]))[:, 0]
        answer = self._answer(hidden, start, cls_positions, train)
        return SpanLogits(start, _masked(end, cannot_answer), answer)

    def beams(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        padding: Bool[Array, "B T"] | None = None,
        cannot_answer: Bool[Array, "B T"] | None = None,
        cls_positions: Int[Array, "B"] | None = None,
        num_starts: int = 5,
        num_ends: int = 5,
    ) -> SpanBeams:
        """The best spans: `num_starts` starts, and `num_ends` ends for each (at most T)."""
        hidden = self.xlnet(tokens, segment_ids=segment_ids, padding=padding).hidden
        num_tokens = tokens.shape[1]
        start = _masked(self.start_logits(hidden)[..., 0], cannot_answer)
        log_probs = jax.nn.log_softmax(start)
        start_log_probs, starts = jax.lax.top_k(log_probs, min(num_starts, num_tokens))
        end = self.end_logits(hidden, _rows(hidden, starts))
        allowed = None if cannot_answer is None else cannot_answer[:, None]
        end_log_probs = jax.nn.log_softmax(_masked(end, allowed))
        end_log_probs, ends = jax.lax.top_k(end_log_probs, min(num_ends, num_tokens))
        answer = self._answer(hidden, start, cls_positions, False)
        return SpanBeams(start_log_probs, starts, end_log_probs, ends, answer)

    def _answer(
        self, hidden: Array, start: Array, cls_positions: Array | None, train: bool
    ) -> Array | None:
        if not self.answerability:
            return None
        if cls_positions is None:
            raise ValueError("answerability=True needs cls_positions, got None")
        return self.answer_class(hidden, start, cls_positions, train)


class EndLogits(nn.Module):
    """Dense, tanh, LayerNorm, dense over [token; start token], for K starts at once.

    The first product is taken apart into its token and its start half, so that tokens are projected
    once for all starts.
    """

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B T D"], starts: Float[Array, "B K D"]
    ) -> Float[Array, "B K T"]:
        of_token, of_start = PairDense(self.config, self.run, name="dense_0")(hidden, starts)
        inner = jnp.tanh(of_token[:, None] + of_start[:, :, None])
        inner = LayerNorm(name="norm")(inner)
        dense_1 = nn.Dense(1, dtype=jnp.float32, kernel_init=initializer(self.run), name="dense_1")
        return dense_1(inner)[..., 0]


class AnswerClass(nn.Module):
    """Dense, tanh, dropout, dense over [mean of tokens by start probability; `<cls>` token]."""

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        start_logits: Float[Array, "B T"],
        cls_positions: Int[Array, "B"],
        train: bool,
    ) -> Float[Array, "B"]:
        p = jax.nn.softmax(start_logits)
        start = jnp.einsum("BT,BTD->BD", p, hidden.astype(jnp.float32))
        cls = _rows(hidden, cls_positions[:, None])[:, 0]
        of_start, of_cls = PairDense(self.config, self.run, name="dense_0")(start, cls)
        inner = drop(self, jnp.tanh(of_start + of_cls), train)
        dense_1 = nn.Dense(
            1,
            use_bias=False,
            dtype=jnp.float32,
            kernel_init=initializer(self.run),
            name="dense_1",
        )
        return dense_1(inner)[..., 0]


class PairDense(nn.Module):
    """A dense layer over two vectors side by side, as two terms to be added; float32.

    The kernel is [2D, D], first vector first; the bias is in the second term.
    """

    config: XLNetConfig
    run: RunConfig

    @nn.compact
    def __call__(
        self, first: Float[Array, "... D"], second: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
        width, dtype = self.config.d_model, self.run.dtype
        kernel = self.param("kernel", initializer(self.run), (2 * width, width)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (width,))

        def product(x: Array, part: Array) -> Array:
            return jnp.einsum(
                "...D,DF->...F", x.astype(dtype), part, preferred_element_type=jnp.float32
            )

        return product(first, kernel[:width]), product(second, kernel[width:]) + bias


def _rows(hidden: Float[Array, "B T D"], tokens: Int[Array, "B K"]) -> Float[Array, "B K D"]:
    """Picks tokens by a one-hot product, which runs everywhere at full speed; gathers do not."""
    chosen = jax.nn.one_hot(tokens, hidden.shape[1], dtype=hidden.dtype)
    return jnp.einsum("BKT,BTD->BKD", chosen, hidden)


def _masked(logits: Array, cannot_answer: Array | None) -> Array:
    return logits if cannot_answer is None else jnp.where(cannot_answer, MASKED, logits)
