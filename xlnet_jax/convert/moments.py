"""Adam's state, so that a run can go on where another program, or another run, left it."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from etils import epath

from xlnet_jax.convert import orbax_folder, pretrained, rules, tensorflow, workdirs
from xlnet_jax.convert.rules import STRICT, Allowed
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import XLNetConfig


@dataclasses.dataclass(frozen=True)
class Moments:
    """Running averages of gradients and of their squares.

    Attributes:
        step: updates so far.
        mu, nu: first and second moments by path of the parameter ("xlnet/word_embedding").
        decayed: whether they are those of the original's Adam with weight decay ("adam_m") or of
            TensorFlow's own ("Adam"), which has other names and keeps powers of beta.
        powers: beta_1 and beta_2 to the power of step + 1, as TensorFlow keeps them; None for
            `decayed`.
        notes: what was left aside and why, a line each.
    """

    step: int
    mu: Mapping[str, np.ndarray]
    nu: Mapping[str, np.ndarray]
    decayed: bool
    powers: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def from_tensorflow(
    prefix: str,
    config: XLNetConfig,
    params: Mapping[str, np.ndarray],
    head: Head | None = None,
    allowed: Allowed = STRICT,
) -> Moments:
    """The slots of a checkpoint for these parameters.

    The original keeps none for a variable without a gradient: name it by `allowed.missing`, and
    its moments are zero. Raises ValueError if there are no slots, or as `rules.to_params`.
    """
    variables = tensorflow.read_checkpoint(prefix, rules.is_optimizer_slot)
    first, second = rules.slots_of(variables, "m"), rules.slots_of(variables, "v")
    if not first or not second or "global_step" not in variables:
        raise ValueError(
            f"{prefix} has no optimizer slots (adam_m, adam_v or Adam, Adam_1) and step; leave out"
            " --with_optimizer"
        )
    shapes = {path: array.shape for path, array in params.items()}
    moments = []
    notes: list[str] = []
    for slots in (first, second):
        matched = rules.to_params(
            slots, config, "tensorflow", head=head, wanted=shapes, allowed=allowed
        )
        zeros = {path: np.zeros(shapes[path], np.float32) for path in matched.missing}
        moments.append({**matched.arrays, **zeros})
        notes += [f"optimizer: {note}" for note in matched.notes()]
    powers = None
    if "beta1_power" in variables:
        powers = float(variables["beta1_power"]), float(variables["beta2_power"])
    decayed = any(name.endswith("/adam_m") for name in variables)
    step = int(variables["global_step"])
    return Moments(step, moments[0], moments[1], decayed, powers, tuple(dict.fromkeys(notes)))


def to_tensorflow(
    moments: Moments,
    config: XLNetConfig,
    head: Head | None = None,
    allowed: Allowed = STRICT,
) -> dict[str, np.ndarray]:
    """The original's slots, powers of beta and step counter."""
    names = ("/adam_m", "/adam_v") if moments.decayed else ("/Adam", "/Adam_1")
    variables: dict[str, np.ndarray] = {"global_step": np.array(moments.step, np.int64)}
    for ending, params in zip(names, (moments.mu, moments.nu), strict=True):
        slots = rules.from_params(params, config, "tensorflow", head=head, allowed=allowed).arrays
        variables |= {f"{name}{ending}": array for name, array in slots.items()}
    if not moments.decayed:
        if moments.powers is None:
            raise ValueError("Adam's powers of beta are not known")
        for name, power in zip(("beta1_power", "beta2_power"), moments.powers, strict=True):
            variables[name] = np.array(power, np.float32)
    return variables


def load_moments(path: str | os.PathLike[str]) -> Moments:
    """Adam's state of a folder of `convert --with_optimizer`, or of a run of ours.

    Raises ValueError or OSError if there is none.
    """
    kind = pretrained.kind_of(path)
    if kind == "jax":
        return _from_folder(epath.Path(path))
    if kind == "workdir":
        return _from_workdir(os.fspath(path))
    raise ValueError(
        f"{os.fspath(path)} is no folder with the optimizer's state; make one with xlnet-jax"
        " convert --with_optimizer"
    )


def to_arrays(moments: Moments) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `_from_folder` reads: arrays by path, and what stands beside them."""
    arrays = {
        f"{orbax_folder.OPTIMIZER}/{name}/{path}": array
        for name, tree in (("mu", moments.mu), ("nu", moments.nu))
        for path, array in tree.items()
    }
    return arrays, {"step": moments.step, "decayed": moments.decayed, "powers": moments.powers}


def _from_folder(folder: epath.Path) -> Moments:
    checkpoint = orbax_folder.read(folder, optimizer=True)
    said = checkpoint.info["optimizer"]
    powers = tuple(said["powers"]) if said["powers"] else None
    mu, nu = (_below(checkpoint.arrays, orbax_folder.OPTIMIZER, name) for name in ("mu", "nu"))
    return Moments(said["step"], mu, nu, said["decayed"], powers)


def _from_workdir(path: str) -> Moments:
    name, wanted = workdirs.split_step(path)
    found, checkpoint, notes = workdirs.read_newest(epath.Path(name), wanted, optimizer=True)
    mu = _below(checkpoint.arrays, "rest/opt_state", "mu")
    nu = _below(checkpoint.arrays, "rest/opt_state", "nu")
    if not mu:
        raise ValueError(f"{name}@{found} has no moments of Adam")
    optimizer = checkpoint.info["config"]["optimizer"]
    decayed = optimizer["weight_decay"] > 0
    betas = optimizer["beta_1"], optimizer["beta_2"]
    powers = None if decayed else (betas[0] ** (found + 1), betas[1] ** (found + 1))
    return Moments(found, mu, nu, decayed, powers, notes)


def _below(
    arrays: Mapping[str, np.ndarray], prefix: str, name: Literal["mu", "nu"]
) -> dict[str, np.ndarray]:
    """Arrays whose path goes through `name`, by what follows it."""
    inside = re.compile(rf"{prefix}/(?:.*?/)?{name}/(.*)")
    found = ((inside.fullmatch(path), array) for path, array in arrays.items())
    return {match[1]: array for match, array in found if match}
