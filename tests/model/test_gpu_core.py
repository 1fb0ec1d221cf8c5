"""The core for GPUs gives what the plain one does; its kernels run here interpreted."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model import gpu_check
from tests.model.gpu_in_parts import MESHES
from tests.model.test_attention import FORMS, Form, assert_close, random_inputs
from xlnet_jax.model import core, dropout
from xlnet_jax.model.gpu import core as gpu_core
from xlnet_jax.model.gpu import forward as kernels

LONGER = {
    "content, several blocks of rows and keys": Form(2, 1, 200, 130, None, True, 0.2),
    "query, several blocks of rows and keys": Form(1, 1, 90, 70, 70, True, 0.2),
}


def both_cores(form, inputs):
    """Outputs, probabilities and gradients of the plain core and of that for GPUs."""

    @jax.jit
    def plain(inputs):
        out, kept = core.forward(core.PLAIN, form.rate, *inputs)
        return out, kept[7] / kept[8], core.backward(core.PLAIN, form.rate, kept, jnp.cos(out))

    @jax.jit
    def gpu(inputs):
        out, kept = gpu_core.forward(form.rate, *inputs, interpret=True)
        gradients = gpu_core.backward(form.rate, kept, jnp.cos(out), interpret=True)
        return out, jnp.abs(kept[7]) / kept[8], gradients

    return plain(inputs), gpu(inputs)


@pytest.mark.parametrize("name", [*FORMS, *LONGER])
def test_the_whole_core(name):
    form = {**FORMS, **LONGER}[name]
    wanted, got = both_cores(form, random_inputs(form))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert_close(one, np.asarray(other))


def test_scores_far_from_those_of_the_first_keys():
    """Where the first guess of the highest score is useless, rows are made anew."""
    form = Form(1, 2, 100, 60, None, True, 0.3)
    q_content, q_position, k, v, r, step, masks = random_inputs(form)
    far = 60.0 * (jnp.arange(k.shape[-2]) >= 2 * kernels.KEYS)[:, None] + 1
    visible = masks.visible.at[:, :, 1, :, : kernels.KEYS].set(False)  # nothing to guess from
    inputs = (q_content, q_position, k * far, v, r, step, masks._replace(visible=visible))
    wanted, got = both_cores(form, inputs)
    assert wanted[1].max() > 0.99, "scores don't differ enough"
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert_close(one, np.asarray(other))
    out, kept = gpu_core.forward(form.rate, *inputs, interpret=True)
    assert np.isfinite(out).all()
    assert ((kept[8] > 2.0**-40) & (kept[8] < 2.0**40)).all()


def test_a_row_that_sees_nothing_has_equal_probabilities_on_a_gpu_too():
    """The kernel's fused multiplication and addition, done in more digits."""
    log2_e = np.float32(kernels._LOG2_E)
    assert log2_e.view(np.uint32).tobytes()[::-1].hex() == kernels._LOG2_E_BITS
    rounded = np.float32(-kernels.MASKED) * log2_e
    assert np.float64(kernels.MASKED) * np.float64(log2_e) + np.float64(rounded) == 0


def test_dropout_is_in_the_sign_of_what_is_kept():
    form = FORMS["content, two directions, dropout"]
    inputs = random_inputs(form)
    _, kept = gpu_core.forward(form.rate, *inputs, interpret=True)
    mask = dropout.keep_mask(inputs[-1].seed, kept[7].shape, form.rate)
    seen = np.abs(kept[7]) > 0
    np.testing.assert_array_equal((kept[7] > 0)[seen], np.asarray(mask)[seen])


def test_on_several_devices_each_has_its_part_of_batch_and_heads():
    command = [sys.executable, "-m", "tests.model.gpu_in_parts"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [json.loads(line) for line in output.splitlines()]
    assert len(found) == len(FORMS) * len(MESHES)
    for one in found:
        assert one["error"] < 1e-5, one
        assert one["gathers"] == [], one


@pytest.mark.parametrize(
    ("dtype", "head_size", "capability", "kernels"),
    [
        ("bfloat16", 64, None, 4),  # forward, rescaling, gradients of rows and of keys
        ("bfloat16", 64, 9.0, 4),
        ("bfloat16", 64, 7.5, 0),
        ("bfloat16", 48, None, 0),
        ("float32", 64, None, 0),
    ],
)
def test_what_is_lowered_for_cuda(monkeypatch, dtype, head_size, capability, kernels):
    if capability is not None:
        monkeypatch.setattr(gpu_core, "_compute_capability", lambda: capability)
    form = FORMS["query, two directions, dropout"]

    def cast(x):
        return x.astype(dtype) if x.dtype == jnp.float32 else x

    *arrays, step, masks = random_inputs(form, head_size)
    inputs = (*map(cast, arrays), step, masks)

    def loss(*inputs):
        return core.attend(*inputs, form.rate).astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(loss)).trace(*inputs).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("xla.gpu.triton") == kernels


def test_a_jax_without_this_backend_of_pallas():
    program = """
import sys
sys.modules["jax.experimental.pallas.triton"] = None
import jax, jax.numpy as jnp
from xlnet_jax.model import core
x = jnp.zeros((1, 1, 1, 8, 64), jnp.bfloat16)
inputs = (x, x, x, x, jnp.zeros((1, 1, 16, 64), jnp.bfloat16), None, core.Masks(*[None] * 4), 0.0)
traced = jax.jit(core.attend, static_argnums=7).trace(*inputs)
print(traced.lower(lowering_platforms=("cuda",)).as_text().count("xla.gpu.triton"))
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"0\n"


def test_the_program_that_checks_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "FORMS", {"small": Form(1, 1, 9, 4, 3, True, 0.1)})
    monkeypatch.setattr(gpu_check, "HEAD_SIZE", 16)
    assert gpu_check.main() == 0
    assert "small" in capsys.readouterr().out
    monkeypatch.setattr(gpu_check, "ALLOWED", 0.5)
    assert gpu_check.main() == 1
