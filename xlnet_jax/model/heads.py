"""Output layers on top of the hidden states."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xlnet_jax.model.config import RunConfig, XLNetConfig
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
        logits = jnp.einsum("BPD,VD->BPV", output.hidden, table, preferred_element_type=jnp.float32)
        return logits + bias, output
