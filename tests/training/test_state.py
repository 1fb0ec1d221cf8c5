import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.toy import WIDTH, ToyTask
from xlnet_jax.training.state import fingerprints, make_state


def arrays():
    random = np.random.default_rng(0)
    return {
        "float": random.normal(size=(5, 3)).astype(np.float32),
        # Few bits set: sums weighted by an index would miss a swap of these.
        "simple": np.array([1.0, 2.0, 4.0, 0.0, -1.0, 8.0], np.float32),
        "half": random.normal(size=(2, 2, 2)).astype(jnp.bfloat16),
        "step": np.array(12, np.int32),
    }


def changed(before, after):
    before, after = fingerprints(before), fingerprints(after)
    return {path for path in before if int(before[path]) != int(after[path])}


def unseen(name, variants):
    """Indexes of the variants of an array whose checksum is that of the array itself."""
    before = fingerprints({name: arrays()[name]})[f"['{name}']"]
    sums = jax.jit(jax.vmap(fingerprints))({name: np.stack(variants)})[f"['{name}']"]
    return np.flatnonzero(sums == before).tolist()


@pytest.mark.parametrize("name", list(arrays()))
def test_a_fingerprint_sees_every_flipped_bit(name):
    array = arrays()[name]
    variants = []
    for bit in range(8 * array.nbytes):
        flipped = bytearray(array.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        variants.append(np.frombuffer(bytes(flipped), array.dtype).reshape(array.shape))
    assert unseen(name, variants) == []


@pytest.mark.parametrize("name", ["float", "simple"])
def test_a_fingerprint_sees_every_swap(name):
    variants = []
    for i in range(arrays()[name].size):
        for j in range(i):
            variants.append(arrays()[name])
            variants[-1].flat[[i, j]] = variants[-1].flat[[j, i]]
    assert unseen(name, variants) == []


def test_a_fingerprint_says_which_array():
    tree = arrays()
    assert changed(tree, {**tree, "step": np.array(13, np.int32)}) == {"['step']"}


def test_a_fingerprint_tells_zeros_of_either_sign_apart():
    assert changed({"a": jnp.array([0.0])}, {"a": jnp.array([-0.0])}) == {"['a']"}


def test_a_fresh_state_counts_from_nothing():
    task = ToyTask(global_batch_size=6)
    state = make_state(task, optax.sgd(0.1), seed=3)
    assert int(state.step) == 0
    assert int(state.bad_step) == -1
    assert state.memory.shape == (1, 6, 1, WIDTH)
    assert all(not leaf.any() for leaf in jax.tree.leaves(state.window))
    other = make_state(task, optax.sgd(0.1), seed=4)
    assert changed(state.params, other.params) == {"['dense']['kernel']"}
