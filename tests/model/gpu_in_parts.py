"""The core for GPUs on meshes of four CPU devices, as a program: one line of JSON a mesh and form.

The error is against the same on one device, relative to the largest value of an array.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

import tests.quick_compiles  # noqa: F401
from tests.model.test_attention import FORMS, random_inputs
from xlnet_jax.model.gpu import core
from xlnet_jax.training import sharding

MESHES = [{"data": 2, "model": 2}, {"data": 2, "fsdp": 2}]


def run(mesh, form):
    """Error, and the operations that bring arrays together."""
    inputs = random_inputs(form)

    def both(*inputs):
        out, kept = core.forward(form.rate, *inputs, interpret=True)
        return out, core.backward(form.rate, kept, jnp.cos(out), interpret=True)

    program = jax.jit(sharding.on_mesh(both, mesh)).lower(*inputs).compile()
    pairs = zip(jax.tree.leaves(program(*inputs)), jax.tree.leaves(both(*inputs)), strict=True)
    error = max(np.abs(one - other).max() / np.abs(other).max() for one, other in pairs)
    gathers = [op for op in ("all-gather", "all-to-all") if f" {op}(" in program.as_text()]
    return {"error": float(error), "gathers": gathers}


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)
    for shape in MESHES:
        mesh = sharding.make_mesh(sharding.MeshConfig(**shape))
        for name, form in FORMS.items():
            print(json.dumps({"form": name, "mesh": shape, **run(mesh, form._replace(batch=4))}))
