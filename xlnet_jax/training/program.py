"""The compiled programs of a run, for whichever devices: those at hand, or those of a named slice.

Nothing here touches a device before `train_step` or `new_state` is called, so the same program can
be compiled for a TPU slice on a machine without one: `program.lower().compile()`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from xlnet_jax.tasks.task import Task
from xlnet_jax.training import sharding
from xlnet_jax.training.optimizer import make_optimizer
from xlnet_jax.training.settings import Settings
from xlnet_jax.training.state import TrainState, make_state, state_shardings
from xlnet_jax.training.step import make_train_step


class Program(NamedTuple):
    """What `make_program` makes.

    Attributes:
        train_step: jitted (state, batch) -> state; the state is donated.
        new_state: jitted () -> a fresh state, placed.
        state: shapes, types and places of a state.
        mesh: the devices.
    """

    train_step: Any
    new_state: Any
    state: TrainState
    mesh: Mesh

    @property
    def shardings(self) -> TrainState:
        """Where the parts of a state live."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def lower(self, batch: Mapping[str, Any]) -> Any:
        """The train step, lowered for a global batch of these shapes and types (or arrays)."""
        cut = sharding.batch_sharding(self.mesh)
        abstract = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=cut)
            for name, array in batch.items()
        }
        return self.train_step.lower(self.state, abstract)


def make_program(settings: Settings, task: Task, mesh: Mesh) -> Program:
    """The train step and the fresh state of a run on a mesh.

    `settings.train.steps` must be known. Raises ValueError if an axis of the mesh has nothing that
    it could cut.
    """
    sharding.check_network(task.network, mesh)
    shapes = jax.eval_shape(task.init_params, jax.random.key(settings.seed))
    optimizer = make_optimizer(settings.optimizer, settings.train.steps, shapes)
    new_state = functools.partial(make_state, task, optimizer, settings.seed)
    abstract = jax.eval_shape(new_state)
    places = state_shardings(abstract, mesh)
    run = settings.run
    step = make_train_step(
        task,
        optimizer,
        seed=settings.seed,
        accumulation_steps=settings.train.accumulation_steps,
        report_every=settings.report.log_every,
        dropout=max(run.dropout, run.activation_dropout, run.attention_dropout) > 0,
    )

    return Program(
        train_step=jax.jit(
            sharding.on_mesh(step, mesh),
            donate_argnums=0,
            in_shardings=(places, sharding.batch_sharding(mesh)),
            out_shardings=places,
        ),
        new_state=jax.jit(new_state, out_shardings=places),
        state=jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract,
            places,
        ),
        mesh=mesh,
    )
