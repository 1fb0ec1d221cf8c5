"""Output layers on top of the hidden states; that of span extraction is in `span_head`.

All logits are float32. Every model keeps the network's own parameters under "xlnet".
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlnet_jax.model import layout
from xlnet_jax.model.attention import initializer
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.summary import SequenceSummary
from xlnet_jax.model.transformer import Output, XLNet


class PermutationLanguageModel(nn.Module):
    """XLNet with the language-model head tied to the word embedding.

    Logits are computed for the query rows alone: [B, P, V], float32, with the memory beside.
    Arguments are those of `XLNet`.
    """

    config: XLNetConfig
    run: RunConfig = RunConfig()

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B T"], **inputs: Any
    ) -> tuple[Float[Array, "B P V"], Output]:
        xlnet = XLNet(self.config, self.run, name="xlnet")
        output = xlnet(tokens, **inputs)
        bias = self.param("lm_bias", nn.initializers.zeros, (self.config.n_token,))
        table = xlnet.variables["params"]["word_embedding"].astype(self.run.dtype)
        table = layout.named(table, "VD")
        logits = jnp.einsum("BPD,VD->BPV", output.hidden, table, preferred_element_type=jnp.float32)
        return layout.named(logits, "BPV") + bias, output


class SequenceClassifier(nn.Module):
    """Logits of a sequence's summary: classes, labels of a multi-label task, or one number.

    Parameters: "xlnet", "summary" (see `SequenceSummary`), "logits" {"kernel" [D, C], "bias" [C]}.

    Attributes:
        num_outputs: C; 1 for regression.
        summary_type, use_projection, count_padding: see `SequenceSummary`.
    """

    config: XLNetConfig
    run: RunConfig
    num_outputs: int
    summary_type: str = "last"
    use_projection: bool = True
    count_padding: bool = False

    def setup(self) -> None:
        """Builds network, summary and logits."""
        self.xlnet = XLNet(self.config, self.run)
        self.summary = SequenceSummary(
            self.config, self.run, self.summary_type, self.use_projection, self.count_padding
        )
        self.logits = logits_layer(self.num_outputs, self.run)

    def __call__(self, tokens: Int[Array, "B T"], **inputs: Any) -> Float[Array, "B C"]:
        """Logits; arguments are those of `pooled`."""
        return self.logits(self.pooled(tokens, **inputs))

    def pooled(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        padding: Bool[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """The summary that the logits are made from.

        `padding` is True at padding; `train` needs the "dropout" random stream.
        """
        output = self.xlnet(tokens, segment_ids=segment_ids, padding=padding, train=train)
        return self.summary(output.hidden, padding=padding, train=train)


class MultipleChoice(SequenceClassifier):
    """One score for each of C choices, each read with its own copy of the text.

    Parameters as in `SequenceClassifier`, with one output. Source: `get_race_loss` in the
    original's function_builder.py.
    """

    num_outputs: int = 1

    def __call__(self, tokens: Int[Array, "B C T"], **inputs: Any) -> Float[Array, "B C"]:
        """Logits of the choices; arguments are those of `pooled`, arrays [B, C, T]."""

        def rows(value: Any) -> Any:
            return value.reshape(-1, value.shape[-1]) if hasattr(value, "reshape") else value

        arrays = {name: rows(value) for name, value in inputs.items()}
        return super().__call__(rows(tokens), **arrays).reshape(tokens.shape[:2])


class TokenTagger(nn.Module):
    """Logits of a label for every token.

    Parameters: "xlnet", "logits" {"kernel" [D, C], "bias" [C]}. The original has no such head; as
    in PyTorch's XLNet the logits follow the network's own output dropout.
    """

    config: XLNetConfig
    run: RunConfig
    num_labels: int

    def setup(self) -> None:
        """Builds network and logits."""
        self.xlnet = XLNet(self.config, self.run)
        self.logits = logits_layer(self.num_labels, self.run)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        padding: Bool[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T C"]:
        """`padding` is True at padding, whose logits mean nothing."""
        output = self.xlnet(tokens, segment_ids=segment_ids, padding=padding, train=train)
        return self.logits(output.hidden)


def logits_layer(num_outputs: int, run: RunConfig) -> nn.Dense:
    """A dense layer in float32, whatever the compute dtype."""
    return nn.Dense(num_outputs, dtype=jnp.float32, kernel_init=initializer(run))
