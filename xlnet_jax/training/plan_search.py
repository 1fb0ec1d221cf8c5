"""Searches over plans: the most rows that fit, layouts side by side.

Each step of a search compiles a program, which takes a minute or more, so there are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xlnet_jax.model.config import REMAT_POLICIES
from xlnet_jax.training import plan, topologies
from xlnet_jax.training.plan import Memory, Plan
from xlnet_jax.training.plan_inputs import plan_inputs

CLOSE = 0.02  # share of the rows that is not worth another try

Tell = Callable[[Plan], object]


def _nothing(made: Plan) -> None:
    """For those who need not be told."""


def largest_rows(
    config: Mapping[str, Any], topology: str, remat: str, tell: Tell = _nothing, **options: Any
) -> Plan | None:
    """The plan with most batch rows a device under a policy, or None if not even the fewest fit.

    The most to within `CLOSE`, unless six compilations did not come that near; `tell` is given
    every plan on the way.
    """
    config = {**config, "model": {**config["model"], "remat": remat}}
    group = plan_inputs(config, **options).task.rows_per_group
    tried: dict[int, Plan] = {}
    for _ in range(6):
        memory = {rows: made.memory for rows, made in tried.items()}
        rows = next_rows(memory, group, first=4 * group)
        if rows in tried or rows == 0:
            break
        tried[rows] = plan.make_plan(config, topology, rows=rows, **options)
        tell(tried[rows])
    fitting = [made for made in tried.values() if made.memory.fits]
    return max(fitting, key=lambda made: made.rows) if fitting else None


def next_rows(tried: Mapping[int, Memory], group: int, first: int) -> int:
    """Where to look next for the most rows that fit, a multiple of `group`; 0 if none can.

    Memory grows nearly in a line with the rows. A number tried before means that the search is
    over: the next one does not fit, or what there is to gain is less than `CLOSE`.
    """
    if not tried:
        return first
    fitting = max((n for n, memory in tried.items() if memory.fits), default=0)
    failing = min((n for n, memory in tried.items() if not memory.fits), default=0)
    if failing and failing - fitting <= max(group, CLOSE * fitting):
        return fitting
    points = sorted(tried)
    known = [n for n in (fitting, failing) if n] if fitting and failing else points[-2:]
    last = known[-1]
    if len(known) == 1:
        slope = tried[last].temporaries / last
    else:
        one, other = known
        slope = (tried[other].needed - tried[one].needed) / (other - one)
    guess = last + (tried[last].limit - tried[last].needed) / max(slope, 1.0)
    rows = math.floor(guess / group) * group
    if failing:
        rows = min(rows, failing - group)
    rows = max(rows, fitting + group)
    return fitting if rows - fitting <= CLOSE * fitting and not failing else rows


def fitting_plan(
    config: Mapping[str, Any], topology: str, tell: Tell = _nothing, **options: Any
) -> Plan | None:
    """Where a config does not fit: the most rows with its own policy, else with the next stricter.

    None if nothing fits.
    """
    own = config["model"]["remat"]
    for remat in REMAT_POLICIES[REMAT_POLICIES.index(own) :]:
        if found := largest_rows(config, topology, remat, tell, **options):
            return found
    return None


def in_more_parts(
    config: Mapping[str, Any], topology: str, fitting: Plan, tell: Tell = _nothing, **options: Any
) -> Plan | None:
    """The config's batch under the policy of `fitting`, in the fewest parts that fit.

    None if it cannot be cut into parts of at most as many rows, or still does not fit so: several
    parts need a sum of gradients beside them, for which one part alone has no use.
    """
    remat, most = fitting.planned.settings.run.remat, fitting.rows
    train, group = config["train"], fitting.planned.task.rows_per_group
    shards = train["batch_size"] // (fitting.mesh["data"] * fitting.mesh["fsdp"])
    for parts in range(train["accumulation_steps"], shards // group + 1):
        if shards % (parts * group) or shards // parts > most:
            continue
        changed = {**config, "model": {**config["model"], "remat": remat}}
        changed["train"] = {**train, "accumulation_steps": parts}
        tell(made := plan.make_plan(changed, topology, **options))
        if made.memory.fits:
            return made
    return None


def layouts(config: Mapping[str, Any], num_devices: int) -> Iterator[dict[str, int]]:
    """Meshes to compare: data parallel; fsdp over a host, over all; with a model axis of 2 or 4."""
    heads = config["model"].get("n_head", 4)
    for fsdp in sorted({1, min(8, num_devices), num_devices}):
        for model in (1, 2, 4):
            if num_devices % (fsdp * model) == 0 and heads % model == 0 and fsdp * model > 0:
                yield {"data": num_devices // (fsdp * model), "fsdp": fsdp, "model": model}


def sweep(config: Mapping[str, Any], topology: str, **options: Any) -> Iterator[Plan | str]:
    """A plan for each layout, or why there is none; of the same batch, or of `rows` a device."""
    devices = topologies.devices_of(topology)
    for mesh in layouts(config, len(devices)):
        try:
            yield plan.make_plan(
                {**config, "mesh": {**config["mesh"], **mesh}}, topology, **options
            )
        except ValueError as error:
            shown = ", ".join(f"{axis} {size}" for axis, size in mesh.items())
            yield f"{shown}: {error}"
