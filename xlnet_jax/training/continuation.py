"""Going on where another program, or another run, left its optimizer."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util

from xlnet_jax.convert.moments import Moments
from xlnet_jax.training import sharding
from xlnet_jax.training.state import TrainState


def with_moments(state: TrainState, moments: Moments, shardings: TrainState) -> TrainState:
    """A fresh state at the step of `moments`, with Adam's averages as they were there.

    The step is also the place in the data and in the schedule; the memory begins empty, as the
    original's does when it is started again.

    Raises ValueError, naming them, if the moments are not those of the state's parameters.
    """
    shapes = traverse_util.flatten_dict(state.params, sep="/")
    wrong = [
        f"{name} of {path}: {getattr(tree.get(path), 'shape', 'missing')}, wanted {leaf.shape}"
        for name, tree in (("mu", moments.mu), ("nu", moments.nu))
        for path, leaf in shapes.items()
        if path not in tree or tree[path].shape != leaf.shape
    ]
    wrong += [f"{path}: not in this model" for path in moments.mu.keys() - shapes.keys()]
    if wrong:
        raise ValueError(
            "the optimizer's state in config.init_from is of another model:"
            f" {'; '.join(sorted(wrong))}; set config.init_optimizer to False to begin anew"
        )
    mu, nu = (
        traverse_util.unflatten_dict({path: np.asarray(tree[path]) for path in shapes}, sep="/")
        for tree in (moments.mu, moments.nu)
    )
    count: Any = np.asarray(moments.step, np.int32)

    def fill(part: Any) -> Any:
        if isinstance(part, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(count, mu, nu)
        if isinstance(part, optax.ScaleByScheduleState):
            return optax.ScaleByScheduleState(count)
        return part

    filled = jax.tree.map(fill, state.opt_state, is_leaf=_counts)
    return state.replace(
        step=sharding.place(count, shardings.step),
        opt_state=sharding.place(filled, shardings.opt_state),
    )


def _counts(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState | optax.ScaleByScheduleState)
