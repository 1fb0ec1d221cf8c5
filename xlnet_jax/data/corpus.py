"""Raw text to token shards: many workers, streaming, resumable, the same bytes every time.

The input is cut into units of work before anything is read through (`plan_units`); a unit becomes
one shard (several only for large .gz files). Cuts and names depend on the input and the settings,
never on the number of workers, so a stopped run is resumed by doing the units whose shard is
missing, and runs with other worker counts give the same files.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from xlnet_jax.data import corpus_units, storage
from xlnet_jax.data.corpus_units import COUNTS, HELDOUT, UnitSettings
from xlnet_jax.data.line_rules import LINE_RULES
from xlnet_jax.data.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    Manifest,
    code_version,
    mapping_differences,
)
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.shard_writer import token_dtype
from xlnet_jax.data.text_blocks import Stretch, TextOptions
from xlnet_jax.data.text_sources import find_files, plan_units
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.data.workers import run_units

BUILD_NAME = "build.json"
_SMALLEST_UNIT, _LARGEST_UNIT, _WANTED_UNITS = 1 << 20, 1 << 26, 256
_MOST_DIFFERENCES = 8
_ODD_SHARE = 0.01  # shares above this are worth a warning


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """What `xlnet-jax corpus` does; every field is a flag of the same name.

    input: files, globs or folders; tfds: NAME[/CONFIG][:SPLIT] instead. line_rules "auto" follows
    the normalization: reference with reference, else fixed. unit_bytes: text per unit of work and
    shard, 0 chooses 1 to 64 MiB by the size of the input. heldout_every k > 0 puts every k-th
    document into OUTPUT_DIR/heldout instead, a data folder of its own. num_workers 0: all cores
    (processes; threads of one process for TFDS).
    """

    input: tuple[str, ...] = ()
    output_dir: str = ""
    spiece_model: str = ""
    tfds: str = ""
    normalization: Normalization = dataclasses.field(default_factory=Normalization)
    use_eod: bool = True
    line_rules: str = "auto"
    text: TextOptions = dataclasses.field(default_factory=TextOptions)
    heldout_every: int = 0
    unit_bytes: int = 0
    num_workers: int = 0
    overwrite: bool = False
    progress: bool = True

    def validate(self) -> None:
        """Raises ValueError naming the flag for settings that make no sense."""
        if bool(self.input) == bool(self.tfds):
            raise ValueError("wanted either --input (files) or --tfds (a data set), and not both")
        for flag in ("output_dir", "spiece_model"):
            if not getattr(self, flag):
                raise ValueError(f"--{flag} is missing")
        if self.line_rules not in ("auto", *LINE_RULES):
            raise ValueError(
                f"unknown line rules {self.line_rules!r}: wanted auto, {' or '.join(LINE_RULES)} "
                "(--line_rules)"
            )
        if self.heldout_every < 0 or self.heldout_every == 1:
            raise ValueError(
                f"--heldout_every is {self.heldout_every}: wanted 0 (no held-out part) or at "
                "least 2 (every second document)"
            )
        if self.unit_bytes and self.unit_bytes < 1 << 10:
            raise ValueError(f"--unit_bytes is {self.unit_bytes}: wanted 0 (automatic) or >= 1024")
        if self.num_workers < 0:
            raise ValueError(f"--num_workers is {self.num_workers}: wanted 0 (all cores) or more")


def build_corpus(config: CorpusConfig, report: Callable[[str], None] = print) -> Manifest:
    """Builds, or finishes building, the token shards in `config.output_dir`.

    Returns the manifest, which is also written there; `report` gets a line for each thing a user
    should know. Raises ValueError or OSError with one clear line for wrong input; finished shards
    stay and the same call goes on from them.
    """
    config.validate()
    tokenizer = Tokenizer(config.spiece_model, config.normalization)
    files, empty_files, unit_bytes = _find_input(config)
    output_dir = epath.Path(config.output_dir)
    storage.make_folder(output_dir, "--output_dir")
    with storage.only_writer(output_dir):
        _prepare_folder(config, tokenizer, files, len(empty_files), unit_bytes, report)
        units = _plan(config, files, unit_bytes)
        settings = UnitSettings(
            output_dir=config.output_dir,
            model_path=os.fspath(output_dir / MODEL_NAME),
            model_sha256=tokenizer.sha256,
            normalization=config.normalization,
            use_eod=config.use_eod,
            line_rules=_line_rules(config),
            text=config.text,
            heldout_every=config.heldout_every,
            unit_bytes=unit_bytes,
        )
        finished = corpus_units.finished_units(output_dir)
        todo = [number for number in range(len(units)) if number not in finished]
        if finished and todo:
            report(f"resuming: {len(units) - len(todo)} of {len(units)} units are finished")
        num_workers = config.num_workers or os.cpu_count() or 1
        if config.tfds:
            # TensorFlow takes some 0.6 GiB a process: one process, whose encoding has threads.
            settings, num_workers = dataclasses.replace(settings, num_threads=num_workers), 1
        try:
            run_units(
                settings,
                {number: units[number] for number in todo},
                num_workers=num_workers,
                done_size=sum(_size(units[number]) for number in finished if number < len(units)),
                show_progress=config.progress,
            )
        except BaseException:
            _sweep(output_dir)  # the workers have ended; theirs may be half written
            raise
        if missing := set(range(len(units))) - corpus_units.finished_units(output_dir):
            raise OSError(
                f"{len(missing)} shards went away from {config.output_dir} meanwhile, such "
                f"as {corpus_units.shard_name(min(missing), 0)}: run the same command again"
            )
        return _finish(config, tokenizer, files, empty_files, report)


def _line_rules(config: CorpusConfig) -> str:
    if config.line_rules != "auto":
        return config.line_rules
    return "reference" if config.normalization.form == "reference" else "fixed"


def _size(unit: Sequence[Stretch]) -> int:
    return sum(stretch.size for stretch in unit)


def _find_input(config: CorpusConfig) -> tuple[list[Stretch], list[str], int]:
    """The input, the empty files left out, and the unit size in bytes (examples for TFDS)."""
    if config.tfds:
        from xlnet_jax.data import tfds_text

        split, mean_bytes = tfds_text.find_examples(config.tfds, config.text)
        unit_bytes = config.unit_bytes or _automatic_unit(int(split.size * mean_bytes))
        return [split], [], max(1, round(unit_bytes / mean_bytes))
    files, empty = find_files(config.input, config.text)
    return files, empty, config.unit_bytes or _automatic_unit(_size(files))


def _automatic_unit(total_bytes: int) -> int:
    return min(max(total_bytes // _WANTED_UNITS, _SMALLEST_UNIT), _LARGEST_UNIT)


def _plan(
    config: CorpusConfig, files: Sequence[Stretch], unit_size: int
) -> list[tuple[Stretch, ...]]:
    if not config.tfds:
        return plan_units(files, unit_size, config.text.max_line_bytes)
    (split,) = files
    return [
        (dataclasses.replace(split, begin=at, end=min(at + unit_size, split.end)),)
        for at in range(0, split.end, unit_size)
    ]


def _prepare_folder(
    config: CorpusConfig,
    tokenizer: Tokenizer,
    files: Sequence[Stretch],
    empty_files: int,
    unit_size: int,
    report: Callable[[str], None],
) -> None:
    """Writes what is being built, or checks it against what the folder holds already."""
    output_dir = epath.Path(config.output_dir)
    wanted = _what_is_built(config, tokenizer, files, empty_files, unit_size)
    build_path = output_dir / BUILD_NAME
    model = tokenizer.model_path.read_bytes()
    if swept := _sweep(output_dir):
        report(f"removed {swept} unfinished files of an earlier run")
    unfinished = build_path.exists() and not (output_dir / MANIFEST_NAME).exists()
    # Of a start that failed at once nothing is worth keeping.
    afresh = config.overwrite or (unfinished and not corpus_units.finished_units(output_dir))
    if afresh:
        _remove_shards(output_dir)
    elif build_path.exists():
        held = storage.read_object(build_path)
        if unfinished and held.get("invalid_utf8") == "error":  # so its shards need no replacing
            held["invalid_utf8"] = wanted["invalid_utf8"]
        found = mapping_differences(held, wanted, "the folder has", "this run wants")
        gone = sorted(set(held.get("files", {})) - set(wanted["files"]))
        found += [f"files.{path}: the folder has it, this run does not" for path in gone]
        if found:
            shown = found[:_MOST_DIFFERENCES]
            if len(found) > len(shown):
                shown.append(f"and {len(found) - len(shown)} more differences")
            raise ValueError(
                f"{config.output_dir} holds shards made otherwise: {'; '.join(shown)} "
                "(choose another --output_dir, or --overwrite to start again)"
            )
    elif (output_dir / MANIFEST_NAME).exists():
        raise ValueError(
            f"{config.output_dir} has a {MANIFEST_NAME} but no {BUILD_NAME}: choose another "
            "--output_dir, or --overwrite to start again"
        )
    for folder in [output_dir, output_dir / HELDOUT] if config.heldout_every else [output_dir]:
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / MODEL_NAME
        if there.exists() and there.read_bytes() == model:
            continue
        if there.exists() and not afresh:
            raise ValueError(
                f"{os.fspath(there)} is another vocabulary than --spiece_model="
                f"{config.spiece_model}: choose another --output_dir, or --overwrite to replace it"
            )
        storage.write_atomic(there, [model])
    text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
    if not build_path.exists() or build_path.read_text() != text:
        storage.write_atomic(build_path, [text.encode()])


def _what_is_built(
    config: CorpusConfig,
    tokenizer: Tokenizer,
    files: Sequence[Stretch],
    empty_files: int,
    unit_size: int,
) -> dict[str, Any]:
    """Everything that the shards depend on."""
    return {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "normalization": config.normalization.to_json(),
        "use_eod": config.use_eod,
        "line_rules": _line_rules(config),
        "heldout_every": config.heldout_every,
        "unit_size": unit_size,
        **{
            field.name: getattr(config.text, field.name)
            for field in dataclasses.fields(config.text)
            if field.name in ("text_format", "text_field", "invalid_utf8")
        },
        "files": {file.path: file.size for file in files},
        "empty_files": empty_files,
    }


def _sweep(output_dir: epath.Path) -> int:
    folders = [folder for folder in (output_dir, output_dir / HELDOUT) if folder.exists()]
    return sum(storage.sweep_unfinished(folder) for folder in folders)


def _remove_shards(output_dir: epath.Path) -> None:
    """All but the vocabulary, which may be the one to build with, or the only copy of it."""
    for folder in (output_dir / HELDOUT, output_dir):
        if not folder.exists():
            continue
        for name in (MANIFEST_NAME, BUILD_NAME):
            (folder / name).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name.startswith(corpus_units.SHARD_PREFIX):
                path.unlink(missing_ok=True)


def _finish(
    config: CorpusConfig,
    tokenizer: Tokenizer,
    files: Sequence[Stretch],
    empty_files: Sequence[str],
    report: Callable[[str], None],
) -> Manifest:
    output_dir = epath.Path(config.output_dir)
    facts = corpus_units.read_facts(output_dir)
    counts = {name: sum(fact["counts"].get(name, 0) for fact in facts) for name in COUNTS}
    counts["empty_files"] = len(empty_files)
    manifests = {}
    for part in ["heldout", "train"] if config.heldout_every else ["train"]:
        part_facts = facts if part == "train" else corpus_units.read_facts(output_dir / HELDOUT)
        keys = ("name", "tokens", "sentences", "documents")
        shards = [{key: fact[key] for key in keys} for fact in part_facts if fact["tokens"]]
        totals = {key: sum(shard[key] for shard in shards) for key in keys[1:]}
        if not totals["tokens"]:
            raise ValueError(_nothing(config, part, totals, counts))
        manifests[part] = Manifest(
            vocab_size=tokenizer.vocab_size,
            tokenizer_sha256=tokenizer.sha256,
            normalization=config.normalization.to_json(),
            use_eod=config.use_eod,
            line_rules=_line_rules(config),
            special_ids=dataclasses.asdict(tokenizer.special),
            dtype=token_dtype(tokenizer.vocab_size),
            totals={**totals, "files": len(files), "bytes": counts["text_bytes"]},
            counts=counts,
            shards=shards,
            source=_source(config),
            heldout_every=config.heldout_every,
            part=part,
        )
        manifests[part].write(output_dir if part == "train" else output_dir / HELDOUT)
    for line in summary(manifests["train"], manifests.get("heldout")):
        report(line)
    return manifests["train"]


def _source(config: CorpusConfig) -> dict[str, Any]:
    return {
        "input": list(config.input),
        "tfds": config.tfds,
        "text_format": config.text.text_format,
        "text_field": config.text.text_field,
        "code_version": code_version(),
    }


def _nothing(
    config: CorpusConfig, part: str, totals: dict[str, int], counts: dict[str, int]
) -> str:
    if part == "heldout":
        return (
            f"no document was held out: the input has too few (a blank line ends one) for"
            f" --heldout_every={config.heldout_every}; give a smaller number (and --overwrite)"
        )
    return (
        f"the input gave no token: {counts['lines']} lines, {counts['blank_lines']} of them blank, "
        f"{counts['lines_without_pieces']} without pieces (--input)"
    )


def summary(manifest: Manifest, heldout: Manifest | None = None) -> list[str]:
    """What was built, and a warning for each thing that is often a mistake."""
    totals, counts = manifest.totals, manifest.counts
    lines = [
        f"{totals['tokens']:,} tokens, {totals['sentences']:,} sentences, "
        f"{totals['documents']:,} documents in {len(manifest.shards):,} shards from "
        f"{totals['files']:,} inputs ({totals['bytes']:,} bytes of text)"
    ]
    if heldout:
        lines.append(
            f"held out: {heldout.totals['tokens']:,} tokens, "
            f"{heldout.totals['documents']:,} documents"
        )
    dropped = ("blank_lines", "lines_without_pieces", "documents_without_text", "empty_files")
    lines.append(", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in dropped))
    tokens = totals["tokens"] + (heldout.totals["tokens"] if heldout else 0)
    unknown = counts["unknown_pieces"] / max(tokens, 1)
    changed = counts["changed_code_points"] / max(counts["code_points"], 1)
    lines.append(f"unknown pieces {unknown:.3%}, code points changed by clean-up {changed:.3%}")
    if unknown > _ODD_SHARE:
        lines.append(
            f"warning: {unknown:.1%} of the pieces are <unk>: the vocabulary does not fit the text"
        )
    if changed > _ODD_SHARE:
        form = manifest.normalization["form"]
        lines.append(
            f"warning: --normalization={form} replaces or drops {changed:.1%} of the code points: "
            "right for the released models only; nfc keeps them"
        )
    return lines
