"""Checks the attention kernels on the GPU at hand.

    python -m tests.model.gpu_check

Output and gradients of the core in bfloat16, with the kernels and without, against float32 without.
One line a form: the largest error of any array, relative to its norm. Ends with status 1 if the
kernels' is more than `ALLOWED` times the other. Without a GPU the kernels are interpreted.
"""

import functools
import sys

import jax
import jax.numpy as jnp

from tests.model.test_attention import Form, random_inputs
from xlnet_jax.model import core
from xlnet_jax.model.gpu import core as gpu_core

HEAD_SIZE = 64
ALLOWED = 1.5
FORMS = {
    "content, as in pretraining": Form(1, 4, 512, 384, None, True, 0.1),
    "query, as in pretraining": Form(1, 4, 512, 384, 85, True, 0.1),
    "query, two directions": Form(2, 2, 256, 0, 40, True, 0.1),
    "content, odd sizes": Form(2, 1, 77, 13, None, True, 0.0),
    "content, nothing in force": Form(1, 2, 128, 0, None, False, 0.0),
}


def errors(form):
    """The largest relative error with kernels, and without."""
    *arrays, step, masks = random_inputs(form, HEAD_SIZE)
    scales = (HEAD_SIZE**-0.5, HEAD_SIZE**-0.5, 1, 1, 1)
    arrays = [(x * scale).astype(jnp.bfloat16) for x, scale in zip(arrays, scales, strict=True)]

    def run(forward, backward, dtype):
        @jax.jit
        def both(*inputs):
            out, kept = forward(form.rate, *inputs)
            return out, backward(form.rate, kept, jnp.cos(out.astype(jnp.float32)).astype(dtype))

        with jax.default_matmul_precision("highest"):
            return jax.tree.leaves(both(*(x.astype(dtype) for x in arrays), step, masks))

    plain = [functools.partial(part, core.PLAIN) for part in (core.forward, core.backward)]
    interpret = jax.default_backend() != "gpu"
    kernels = [
        functools.partial(part, interpret=interpret)
        for part in (gpu_core.forward, gpu_core.backward)
    ]
    wanted = run(*plain, jnp.float32)

    def error(got):
        pairs = zip((x.astype(jnp.float32) for x in got), wanted, strict=True)
        return max(float(jnp.linalg.norm(x - y) / jnp.linalg.norm(y)) for x, y in pairs)

    return error(run(*kernels, jnp.bfloat16)), error(run(*plain, jnp.bfloat16))


def main():
    """Exit status."""
    print(f"on {jax.devices()[0].device_kind}")
    failed = False
    for name, form in FORMS.items():
        kernels, plain = errors(form)
        failed |= not kernels <= ALLOWED * plain
        print(f"{name:28}  kernels {kernels:.2e}  without {plain:.2e}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
