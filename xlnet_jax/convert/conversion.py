"""From one format to another: what `xlnet-jax convert` does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util

from xlnet_jax.convert import (
    orbax_folder,
    pretrained,
    rules,
    tensorflow,
    verify,
    workdirs,
    writing,
)
from xlnet_jax.convert.averaging import mean_of
from xlnet_jax.convert.moments import Moments, from_tensorflow, load_moments
from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.convert.rules import Allowed
from xlnet_jax.convert.table import Head
from xlnet_jax.data.storage import TEMPORARY, is_local

FORMATS = ("tf", "hf", "jax")

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """One job.

    Attributes:
        source, output: what is read, as in `load_pretrained`, and the folder that is made.
        source_format, target_format: of `FORMATS`.
        spiece_model, xlnet_config, head, lower: as in `load_pretrained`; `head` also says the
            scope in a TensorFlow checkpoint that is written.
        allowed: what may be missing or unused.
        with_optimizer: take Adam's state and the step along.
        average: mean of the newest so many checkpoints of `source`; 0 for one alone.
        as_bin: weights for Hugging Face as pytorch_model.bin.
        overwrite: replace `output`.
        verify: compare both sides; `recorded` is a file as in `verify.against_recorded`.
        tolerance: largest distance that passes.
    """

    source: str
    output: str
    source_format: str
    target_format: str
    spiece_model: str | None = None
    xlnet_config: str | None = None
    head: str | None = None
    lower: bool | None = None
    allowed: Allowed = rules.STRICT
    with_optimizer: bool = False
    average: int = 0
    as_bin: bool = False
    overwrite: bool = False
    verify: bool = False
    recorded: str | None = None
    tolerance: float = 1e-5


def convert(job: Conversion, say: Say = print) -> None:
    """Writes the folder `job.output`, whole or not at all.

    Raises:
        ValueError, OSError: wrong input; the output is then as it was (in a bucket, where it can be
            replaced only by being deleted first, it may be gone).
        FloatingPointError: `verify` found a difference; likewise.
    """
    _check(job)
    sources = _sources(job)
    with _output(job) as folder:
        if job.source_format == job.target_format == "tf":
            _rewrite_tensorflow(job, sources, folder, say)
            return
        loaded = _load(job, sources)
        moments = _load_moments(job, sources[-1], loaded) if job.with_optimizer else None
        written = writing.write(
            folder,
            loaded,
            job.target_format,
            moments=moments,
            allowed=job.allowed,
            as_bin=job.as_bin,
        )
        for note in (*loaded.notes, *(moments.notes if moments else ()), *written):
            say(note)
        if job.verify:
            _verify(job, folder, loaded, say)
        say(_summary(job, loaded, moments))


def _check(job: Conversion) -> None:
    if job.with_optimizer and job.average:
        raise ValueError(
            "--average is a mean of weights, which has no optimizer state: leave out"
            " --with_optimizer"
        )
    if job.with_optimizer and "hf" in (job.source_format, job.target_format):
        raise ValueError(
            "--with_optimizer needs tf and jax on both sides: Hugging Face folders have"
            " no optimizer state"
        )
    if job.as_bin and job.target_format != "hf":
        raise ValueError(f"--weights=bin is for --to=hf, got --to={job.target_format}")
    if job.recorded and not job.verify:
        raise ValueError("--recorded is what --verify compares with: add --verify")
    if job.recorded and job.source_format == job.target_format == "tf":
        raise ValueError("--recorded needs parameters of ours on one side: from or to jax or hf")
    if job.tolerance != Conversion.tolerance and not job.verify:
        raise ValueError(f"--tolerance={job.tolerance} is that of --verify: add --verify")
    if job.source_format == job.target_format == "tf":
        given = {
            "--head": job.head,
            "--lower or --no-lower": job.lower is not None,
            "--allow_missing": job.allowed.missing,
            "--allow_unused": job.allowed.unused,
        }
        if ignored := [flag for flag, value in given.items() if value]:
            raise ValueError(
                f"{', '.join(ignored)}: from tf to tf all variables are taken as they are; leave"
                " that out, or give --to=jax"
            )
    if job.source_format == job.target_format == "jax" and job.allowed != rules.STRICT:
        raise ValueError(
            "--allow_missing, --allow_unused: from jax to jax all parameters are taken as they are;"
            " leave that out"
        )
    if job.average < 0:
        raise ValueError(f"--average must be 1 or more, got {job.average}")
    name = workdirs.split_step(job.source)[0]
    if job.source_format != "tf" and not epath.Path(name).is_dir():
        raise FileNotFoundError(f"{job.source}: no such folder")
    output = epath.Path(job.output)
    if output.exists() and not job.overwrite and not _is_empty(output):
        raise FileExistsError(f"{job.output} exists already: give another OUT, or --overwrite")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{job.output} is a file; OUT is a folder")
    if not is_local(output):  # emptied before anything is read, see `_output`
        read = [place for place in (name, job.spiece_model, job.xlnet_config) if place]
        if lost := [place for place in read if epath.Path(place).is_relative_to(output)]:
            raise ValueError(
                f"in a bucket OUT cannot take the place of what is read, and OUT is or holds"
                f" {', '.join(lost)}: give another OUT"
            )


def _is_empty(folder: epath.Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _kind(job: Conversion) -> pretrained.SourceKind:
    try:
        return pretrained.kind_of(job.source)
    except FileNotFoundError:
        if job.source_format == "tf":
            tensorflow.find_checkpoint(job.source)  # whose message says more
        raise


def _sources(job: Conversion) -> list[str]:
    """Paths for `load_pretrained`, the newest last; several where --average asks for it."""
    if not job.average:
        kind = _kind(job)
        found = "jax" if kind == "workdir" else kind
        if found != job.source_format:
            raise ValueError(
                f"--from={job.source_format}, but {job.source} holds a checkpoint of the kind"
                f" {found}; give --from={found}"
            )
        return [tensorflow.find_checkpoint(job.source) if kind == "tf" else job.source]
    place = epath.Path(job.source)
    if job.source_format == "tf":
        found_all = tensorflow.checkpoints_in(place) if place.is_dir() else []
    else:
        found_all = [f"{job.source}@{step}" for step in orbax_folder.steps_of(place)]
    if len(found_all) < job.average:
        raise ValueError(
            f"--average={job.average}, but {job.source} holds {len(found_all)} checkpoints"
            f" of the kind --from={job.source_format} (wanted: a folder that training wrote)"
        )
    return found_all[-job.average :]


def _rewrite_tensorflow(job: Conversion, sources: list[str], folder: epath.Path, say: Say) -> None:
    """Average or strip without a look at what the variables are; the original does the same."""

    def keep(name: str) -> bool:
        return job.with_optimizer or not rules.is_optimizer_slot(name)

    variables = mean_of(sources, lambda source: tensorflow.read_checkpoint(source, keep))
    dropped = len(tensorflow.variable_names(sources[-1])) - len(variables)
    variables = writing.with_step(variables)
    prefix = folder / writing.checkpoint_name(variables)
    tensorflow.write_checkpoint(prefix, variables)
    writing.copy_model_files(
        folder, epath.Path(sources[-1]).parent, job.spiece_model, job.xlnet_config
    )
    if job.verify:
        back = tensorflow.read_checkpoint(os.fspath(prefix))
        distances = {name: verify.distance(back[name], variables[name]) for name in variables}
        verify.judge(distances, job.tolerance, say)
    of = f"mean of {len(sources)} checkpoints" if len(sources) > 1 else sources[0]
    say(f"{of}: {len(variables)} variables written, {dropped} of the optimizer left out")


def _load(job: Conversion, sources: list[str]) -> Pretrained:
    def load(source: str) -> Pretrained:
        head = job.head if job.source_format == "tf" else None
        return pretrained.load_pretrained(
            source,
            spiece_model=job.spiece_model,
            xlnet_config=job.xlnet_config,
            head=head,
            lower=job.lower,
            allowed=job.allowed,
        )

    loaded = load(sources[-1])
    if len(sources) > 1:
        flat = mean_of(sources, lambda source: flatten(load(source).params))
        said = (*loaded.notes, f"mean of {len(sources)}: {', '.join(sources)}")
        params = traverse_util.unflatten_dict(flat, sep="/")
        loaded = dataclasses.replace(loaded, params=params, notes=said)
    if job.head and job.source_format != "tf":
        loaded = dataclasses.replace(loaded, head=str(Head.parse(job.head)))
    if loaded.head is None and "logits" in loaded.params:
        raise ValueError(f"{loaded.source} has logits, but nothing says of what; give --head=KIND")
    return loaded


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Nested parameters by path."""
    return traverse_util.flatten_dict(dict(params), sep="/")


def _load_moments(job: Conversion, source: str, loaded: Pretrained) -> Moments:
    if job.source_format == "jax":
        return load_moments(source)
    head = Head.parse(loaded.head) if loaded.head else None
    return from_tensorflow(source, loaded.config, flatten(loaded.params), head, job.allowed)


def _verify(job: Conversion, folder: epath.Path, loaded: Pretrained, say: Say) -> None:
    """Reads back what was written, runs what can be run, and says how far apart they are."""
    back = pretrained.load_pretrained(folder, head=loaded.head, allowed=Allowed(("*",), ()))
    verify.judge(verify.read_back(back, loaded), job.tolerance, say)
    distances: dict[str, float] = {}
    if job.source_format == "hf":
        distances |= verify.against_pytorch(epath.Path(job.source), back)
    if job.target_format == "hf":
        distances |= verify.against_pytorch(folder, loaded)
    if job.recorded:
        distances |= verify.against_recorded(job.recorded, back)
    if distances:
        verify.judge(distances, job.tolerance, say)
    else:
        say("verify: the outputs were compared with nothing; give --recorded=FILE.npz")


def _summary(job: Conversion, loaded: Pretrained, moments: Moments | None) -> str:
    flat = flatten(loaded.params)
    numbers = sum(array.size for array in flat.values())
    text = f"{loaded.source} -> {job.output}: {len(flat)} parameters, {numbers:,} numbers"
    text += f", head {loaded.head}" if loaded.head else ""
    return text + (f", Adam's state of step {moments.step:,}" if moments else "")


@contextlib.contextmanager
def _output(job: Conversion) -> Iterator[epath.Path]:
    """A folder to write in, which takes the place of the output if the block ends well.

    In a bucket, which cannot rename, it is the output itself, and is removed if the block fails.
    """
    output = epath.Path(job.output)
    if not is_local(output):
        if output.exists():
            output.rmtree()
        try:
            yield output
        except BaseException:
            output.rmtree(missing_ok=True)
            raise
        return
    output = epath.Path(os.path.abspath(job.output))
    part = output.parent / f"{TEMPORARY}{output.name}.{os.getpid()}"
    try:
        part.mkdir(parents=True)
        yield part
        if output.exists():
            aside = output.parent / f"{TEMPORARY}{output.name}.{os.getpid()}.old"
            os.rename(output, aside)
            os.rename(part, output)
            aside.rmtree()
        else:
            os.rename(part, output)
    finally:
        if part.exists():
            part.rmtree()
