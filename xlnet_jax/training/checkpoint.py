"""Saving and restoring the training state with Orbax: asynchronous, atomic, verified.

A checkpoint is one folder per step, complete or not there: Orbax writes under another name and
renames. It holds `params`, the `rest` of the state, and `info`: the run's config and a checksum of
every array, computed on the devices before saving and again after restoring.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from xlnet_jax.convert import orbax_folder
from xlnet_jax.data import storage
from xlnet_jax.training import agreement
from xlnet_jax.training.state import TrainState, fingerprints

FORMAT = 1
_HANDLERS = {
    "params": ocp.StandardCheckpointHandler,
    "rest": ocp.StandardCheckpointHandler,
    "info": ocp.JsonCheckpointHandler,
}
DAMAGED_FOLDER = "damaged_checkpoints"

Info = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Section `checkpoint` of a config.

    Attributes:
        save_every: steps between checkpoints; one is also saved at the end and on SIGTERM.
        keep: newest checkpoints kept; 0 for all.
        keep_every: checkpoints at multiples of this many steps are kept for good; 0 for none.
        asynchronous: train on while the files are written.
        best_metric: held-out metric whose best checkpoint is kept apart, in WORKDIR/best; "" for
            none. The higher the better, but for names that end in "loss", "perplexity" or "error".
    """

    save_every: int = 1000
    keep: int = 3
    keep_every: int = 0
    asynchronous: bool = True
    best_metric: str = ""

    def __post_init__(self) -> None:
        if self.save_every < 1:
            raise ValueError(f"checkpoint.save_every must be at least 1, got {self.save_every}")
        for name in ("keep", "keep_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"checkpoint.{name} must be 0 or more, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Restored:
    """What was restored and what lay beside it.

    Attributes:
        step: of the checkpoint.
        tree: the state or the parameters, whichever was asked for.
        stored: what was given to `save` beside the state.
        skipped: why newer checkpoints were not used, a line each.
    """

    step: int
    tree: Any
    stored: Mapping[str, Any]
    skipped: tuple[str, ...]


class DamagedCheckpointError(ValueError):
    """No checkpoint of those asked for can be used."""


class Checkpointer:
    """The checkpoints of one work directory."""

    def __init__(self, workdir: str, config: CheckpointConfig, *, read_only: bool = False):
        self.directory = storage.absolute(workdir) / orbax_folder.CHECKPOINTS
        self._unfinished = _unfinished(self.directory)  # before they are swept
        if read_only and not self.directory.is_dir():
            raise FileNotFoundError(f"no checkpoints in --workdir={workdir}; train first")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else config.keep or None,
            keep_period=None if read_only else config.keep_every or None,
            enable_async_checkpointing=config.asynchronous,
            create=not read_only,
            cleanup_tmp_directories=not read_only,  # what a killed process left half-written
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except ImportError as error:
            raise OSError(
                f"--workdir={workdir}: checkpoints in a bucket need another package: {error};"
                " pip install google-cloud-storage"
            ) from error
        self._fingerprints = jax.jit(fingerprints)
        self._damaged: list[int] = []

    def save(self, state: TrainState, stored: Mapping[str, Any]) -> None:
        """Starts saving, with `stored` (plain JSON) beside; nothing if this step is saved.

        Newer checkpoints that `restore` could not read are moved out of the way first.

        Raises OSError if this save or the one before fails; older checkpoints are then intact.
        """
        self.set_aside(self._damaged, DAMAGED_FOLDER)
        self._damaged = []
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        parts = _parts(state)
        checksums = {k: int(v) for k, v in jax.device_get(self._fingerprints(parts)).items()}
        leaves = jax.tree_util.tree_leaves_with_path(parts)
        info = {
            "format": FORMAT,
            "checksums": checksums,
            "dtypes": {jax.tree_util.keystr(path): str(leaf.dtype) for path, leaf in leaves},
            "stored": dict(stored),
        }
        items = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
        with self._save_errors():
            args = ocp.args.Composite(**items, info=ocp.args.JsonSave(info))
            if not self._manager.save(step, args=args):
                raise ValueError(f"step {step} is not newer than those of {self.steps()}")

    def steps(self) -> list[int]:
        """Steps of complete checkpoints, ascending."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def stored(self, step: int) -> Info | str:
        """What was given to `save` beside a state; if that is damaged, one line that says how."""
        info = self._attempt(step, lambda: self._info(step))
        return agreement.first_problem(info) or info["stored"]

    def set_aside(self, steps: Sequence[int], folder: str) -> None:
        """Moves checkpoints to a folder beside that of all; the same steps on all processes."""
        if not steps:
            return
        if jax.process_index() == 0:
            aside = self.directory.parent / folder
            aside.mkdir(exist_ok=True)
            for step in steps:
                target = aside / str(step)
                if target.exists():
                    target.rmtree()
                (self.directory / str(step)).rename(target)
        multihost_utils.sync_global_devices("checkpoints are set aside")
        self._manager.reload()

    def restore(
        self,
        abstract: TrainState,
        *,
        check: Callable[[Mapping[str, Any]], None] = lambda stored: None,
    ) -> Restored | None:
        """The state of the newest checkpoint that is whole; None if there is none at all.

        `abstract` gives shapes, types and shardings; types and shardings need not be those of the
        save. `check` raises ValueError if what was stored beside the state rules it out.

        Raises DamagedCheckpointError if there are checkpoints and none can be used, with reasons;
        OSError if one cannot be read now but need not be damaged: older ones are not taken then.
        """
        found = self._newest(self.steps()[::-1], _parts(abstract), check)
        if found is None:
            return None
        tree = found.tree
        state = TrainState(params=tree["params"], **tree["rest"])
        unfinished = [
            f"checkpoint of step {step}: its save did not come to an end"
            for step in self._unfinished
            if step > found.step
        ]
        return dataclasses.replace(found, tree=state, skipped=(*unfinished, *found.skipped))

    def restore_params(
        self,
        abstract: Any,
        *,
        step: int | None = None,
        check: Callable[[Mapping[str, Any]], None] = lambda stored: None,
    ) -> Restored:
        """The parameters alone, of the newest checkpoint that is whole or of that of `step`.

        Raises:
            FileNotFoundError: there is no checkpoint (of that step).
            DamagedCheckpointError: there are checkpoints, but none can be used.
            OSError: one cannot be read now, but need not be damaged.
        """
        candidates = self.steps()[::-1]
        if step is not None and step not in candidates:
            raise FileNotFoundError(
                f"no checkpoint of step {step} in {self.directory}; there are {candidates[::-1]}"
            )
        candidates = candidates if step is None else [step]
        found = self._newest(candidates, {"params": abstract}, check)
        if found is None:
            raise FileNotFoundError(f"no complete checkpoint in {self.directory}; train first")
        return dataclasses.replace(found, tree=found.tree["params"])

    def check(self) -> None:
        """Raises OSError if what is being written has failed; costs nothing."""
        with self._save_errors():
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Returns when nothing is being written; raises OSError if that failed."""
        with self._save_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees threads."""
        with self._save_errors():
            self._manager.close()

    def _newest(
        self, candidates: list[int], wanted: Any, check: Callable[[Mapping[str, Any]], None]
    ) -> Restored | None:
        skipped: list[str] = []
        for candidate in agreement.of_process_0(candidates):
            found = self._restored(candidate, wanted, check)
            if isinstance(found, Restored):
                self._damaged = [step for step in candidates if step > candidate]
                return dataclasses.replace(found, skipped=tuple(skipped))
            skipped.append(found)
        if others := sorted(set(self.steps()) - set(candidates)):
            raise DamagedCheckpointError(
                f"{self.directory}: {'; '.join(skipped)}. There are also those of"
                f" {', '.join(map(str, others))}"
            )
        if skipped:
            raise DamagedCheckpointError(
                f"no checkpoint in {self.directory} can be used: {'; '.join(skipped)}. Move the"
                " folder away to start anew, or give another --workdir"
            )
        return None

    def _restored(
        self, step: int, wanted: Any, check: Callable[[Mapping[str, Any]], None]
    ) -> Restored | str:
        """The wanted parts of one checkpoint or, if it is damaged, one line that says how."""
        info = self._attempt(step, lambda: self._info(step))
        if problem := agreement.first_problem(info):
            return problem
        check(info["stored"])
        parts = self._attempt(step, lambda: self._read(step, wanted, info))
        if problem := agreement.first_problem(parts):
            return problem
        tree = self._attempt(step, lambda: self._verify(parts, wanted, info))
        return agreement.first_problem(tree) or Restored(step, tree, info["stored"], ())

    def _attempt(self, step: int, read: Callable[[], Any]) -> Any:
        """What `read` gives or, if the files of a step are damaged, one line that says how."""
        found, damage = storage.attempt(f"checkpoint {self.directory / str(step)}", read)
        return f"checkpoint of step {step}: {damage}" if damage else found

    def _info(self, step: int) -> Info:
        args = ocp.args.Composite(info=ocp.args.JsonRestore())
        info = self._restore(step, args)["info"]
        if info.get("format") != FORMAT:
            raise ValueError(f"format {info.get('format')}, this program reads format {FORMAT}")
        if missing := {"checksums", "dtypes", "stored"} - info.keys():
            raise ValueError(f"info lacks {', '.join(sorted(missing))}")
        return info

    def _restore(self, step: int, args: ocp.args.Composite) -> Any:
        """Reads without waiting for other processes, which may fail where this one does not."""
        if jax.process_count() == 1:
            return self._manager.restore(step, args=args)
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(own, {own}, f"process_{own}")
        handlers = {
            name: _HANDLERS[name](multiprocessing_options=alone)
            for name in args.keys()  # noqa: SIM118
        }
        handler = ocp.CompositeCheckpointHandler(**handlers)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(self.directory / str(step), args=args)

    def _read(self, step: int, wanted: Any, info: Info) -> Any:
        """The wanted parts as they were saved, in the places wanted."""
        abstract = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                info["dtypes"].get(jax.tree_util.keystr(path), leaf.dtype),
                sharding=leaf.sharding,
            ),
            wanted,
        )
        items = {name: ocp.args.StandardRestore(part) for name, part in abstract.items()}
        restored = self._restore(step, ocp.args.Composite(**items))
        return {name: restored[name] for name in items}

    def _verify(self, parts: Any, wanted: Any, info: Info) -> Any:
        """The parts in the types wanted, if they are what was saved."""
        got = jax.device_get(self._fingerprints(parts))
        wrong = [path for path, sum_ in got.items() if int(sum_) != info["checksums"].get(path)]
        if wrong:
            raise ValueError(f"checksums differ, the files are damaged: {', '.join(wrong)}")
        return jax.tree.map(lambda leaf, want: leaf.astype(want.dtype), parts, wanted)

    @contextlib.contextmanager
    def _save_errors(self) -> Iterator[None]:
        """Turns whatever saving raises into one line that says what is still there."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
            if (full := os.strerror(errno.ENOSPC)) in str(error):
                reason = full  # which stands behind long paths
            steps = self.steps()
            newest = (
                f"the newest complete one is of step {steps[-1]}" if steps else "none is complete"
            )
            raise OSError(
                f"a checkpoint could not be saved in {self.directory}: {reason}; {newest}. Free"
                " disk space or fix the cause, then run the same command again"
            ) from error


def _unfinished(directory: epath.Path) -> list[int]:
    """Steps of saves that were cut off, ascending."""
    names = [path.name.split(".") for path in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name[0]) for name in names if len(name) > 1 and name[0].isdecimal())


def abstract_state(state: Any, shardings: Any) -> Any:
    """Shapes and types of a state (or a part), with where its arrays are to live."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        state,
        shardings,
    )


def _parts(state: TrainState) -> dict[str, Any]:
    """The state as what a checkpoint's items are made of."""
    rest = {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name != "params"
    }
    return {"params": state.params, "rest": rest}
