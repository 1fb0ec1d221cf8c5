"""Saving and restoring the training state with Orbax: asynchronous, atomic, verified.

A checkpoint is one folder per step, complete or not there: Orbax writes under another name and
renames. Beside the arrays lies `info`: the run's config and a checksum of every array, computed on
the devices before saving and again after restoring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from xlnet_jax.training.state import TrainState, fingerprints

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Section `checkpoint` of a config.

    Attributes:
        save_every: steps between checkpoints; one is also saved at the end and on SIGTERM.
        keep: newest checkpoints kept; 0 for all.
        keep_every: checkpoints at multiples of this many steps are kept for good; 0 for none.
        asynchronous: train on while the files are written.
    """

    save_every: int = 1000
    keep: int = 3
    keep_every: int = 0
    asynchronous: bool = True

    def __post_init__(self) -> None:
        if self.save_every < 1:
            raise ValueError(f"checkpoint.save_every must be at least 1, got {self.save_every}")
        for name in ("keep", "keep_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"checkpoint.{name} must be 0 or more, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored state and what lay beside it; `skipped` says why newer checkpoints were not used."""

    state: TrainState
    config: Mapping[str, Any]
    skipped: tuple[str, ...]


class Checkpointer:
    """The checkpoints of one work directory."""

    def __init__(self, workdir: str, config: CheckpointConfig, *, read_only: bool = False):
        self.directory = epath.Path(workdir) / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep or None,
            keep_period=config.keep_every or None,
            enable_async_checkpointing=config.asynchronous,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._fingerprints = jax.jit(fingerprints)

    def save(self, state: TrainState, config: Mapping[str, Any]) -> None:
        """Starts saving; errors of the save before surface here. Nothing if this step is saved."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        checksums = {k: int(v) for k, v in jax.device_get(self._fingerprints(state)).items()}
        info = {"format": FORMAT, "checksums": checksums, "config": dict(config)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), info=ocp.args.JsonSave(info)
            ),
        )

    def steps(self) -> list[int]:
        """Steps of complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def config_of(self, step: int) -> Mapping[str, Any]:
        """The config stored in a checkpoint."""
        return self._info(step)["config"]

    def restore(
        self,
        abstract_state: TrainState,
        *,
        step: int | None = None,
        check_config: Callable[[Mapping[str, Any]], None] = lambda config: None,
    ) -> Restored | None:
        """The newest checkpoint that is whole (or that of `step`); None if there is none at all.

        `abstract_state` gives shapes, types and shardings, which need not be those of the save.
        `check_config` raises ValueError if the checkpoint's config rules it out.

        Raises:
            FileNotFoundError: no checkpoint of that step.
            ValueError: there are checkpoints, but none can be used; says why for each.
        """
        candidates = self.steps()[::-1]
        if step is not None:
            if step not in candidates:
                raise FileNotFoundError(
                    f"no checkpoint of step {step} in {self.directory}; there are {candidates[::-1]}"
                )
            candidates = [step]
        skipped: list[str] = []
        for candidate in candidates:
            try:
                info = self._info(candidate)
                check_config(info["config"])
                state = self._read(candidate, abstract_state, info)
            except Exception as error:  # whatever is wrong with it, an older one may do
                reason = str(error).strip().split("\n")[0][:300]
                skipped.append(f"checkpoint of step {candidate}: {type(error).__name__}: {reason}")
                logging.warning("not used: %s", skipped[-1])
                continue
            return Restored(state, info["config"], tuple(skipped))
        if skipped:
            raise ValueError(
                f"no checkpoint in {self.directory} can be used: {'; '.join(skipped)}. Move the"
                " folder away to start anew, or give another --workdir"
            )
        return None

    def wait(self) -> None:
        """Returns when nothing is being written; raises what went wrong."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees threads."""
        self._manager.close()

    def _info(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(info=ocp.args.JsonRestore())
        info = self._manager.restore(step, args=args)["info"]
        if info.get("format") != FORMAT:
            raise ValueError(f"format {info.get('format')}, this program reads format {FORMAT}")
        return info

    def _read(self, step: int, abstract: TrainState, info: Mapping[str, Any]) -> TrainState:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        state = self._manager.restore(step, args=args)["state"]
        got = jax.device_get(self._fingerprints(state))
        wrong = [k for k, v in got.items() if int(v) != info["checksums"].get(k)]
        if wrong or len(got) != len(info["checksums"]):
            raise ValueError(f"checksums differ: the files are damaged ({', '.join(wrong)[:200]})")
        return state


def abstract_state(state: TrainState, shardings: TrainState) -> TrainState:
    """Shapes and types of a state, with where its arrays are to live."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=where),
        state,
        shardings,
    )
