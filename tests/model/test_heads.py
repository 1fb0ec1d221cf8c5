"""The language-model head, tied to the word embedding."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.model import small
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.heads import PermutationLanguageModel

MODEL = PermutationLanguageModel(small.CONFIG, RunConfig(**small.EXACT))
UNUSED = small.CONFIG.n_token - 1  # a word that the inputs do not hold; so is the one before


def test_logits_and_gradients_go_through_the_word_embedding():
    inputs = small.two_stream_inputs()
    assert UNUSED not in inputs["tokens"].ravel()
    bias = jax.random.normal(jax.random.key(1), (small.CONFIG.n_token,))
    xlnet = small.parameters()["params"]
    table = xlnet["word_embedding"]

    def logit(table):
        params = {"xlnet": xlnet | {"word_embedding": table}, "lm_bias": bias}
        logits, output = MODEL.apply({"params": params}, **inputs)
        return logits[0, 0, UNUSED], (logits, output.hidden)

    gradient, (logits, hidden) = jax.jit(jax.grad(logit, has_aux=True))(table)
    assert logits.dtype == jnp.float32
    small.assert_close(logits, hidden @ table.T + bias)
    # As output: the word of the logit alone, by the hidden state. As input: what was seen.
    small.assert_close(gradient[UNUSED], hidden[0, 0])
    assert not gradient[UNUSED - 1].any()
    assert not gradient[inputs["tokens"][1]].any()  # the other example
    seen = np.flatnonzero(inputs["query_visible"][0, 0])
    assert (np.abs(gradient[inputs["tokens"][0, seen]]).max(axis=-1) > 1e-4).all()
