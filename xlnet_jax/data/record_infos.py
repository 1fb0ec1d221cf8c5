"""Which record files of the original's `data_utils.py` there are, and what they were made with.

Each run of that program leaves one TFRecord file of whole batches, a
`record_info-SPLIT-TASK-PASS….json` beside it, and a `corpus_info.json` in the folder above. All
settings that matter to training are in the file names.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from xlnet_jax.data.manifest import mapping_differences

_INFO_NAME = re.compile(
    r"record_info-(?P<split>[^.]+)-(?P<task>\d+)-(?P<pass_id>\d+)\.bsz-(?P<bsz_per_host>\d+)"
    r"\.seqlen-(?P<seq_len>\d+)\.(reuse-(?P<reuse_len>\d+)\.)?(?P<uncased>uncased\.)?(?P<bi_data>bi|uni)"
    r"\.alpha-(?P<mask_alpha>\d+)\.beta-(?P<mask_beta>\d+)\.(fnp-(?P<num_predict>\d+)\.)?json"
)


def format_filename(
    prefix: str,
    bsz_per_host: int,
    seq_len: int,
    bi_data: bool,
    suffix: str,
    mask_alpha: int | None = 5,
    mask_beta: int | None = 1,
    reuse_len: int | None = None,
    uncased: bool = False,
    fixed_num_predict: int | None = None,
) -> str:
    """The original's file name for these settings (its function and argument names)."""
    parts = [prefix, f"bsz-{bsz_per_host}", f"seqlen-{seq_len}"]
    if reuse_len is not None:
        parts.append(f"reuse-{reuse_len}")
    if uncased:
        parts.append("uncased")
    parts += ["bi" if bi_data else "uni", f"alpha-{mask_alpha}", f"beta-{mask_beta}"]
    if fixed_num_predict is not None:
        parts.append(f"fnp-{fixed_num_predict}")
    return ".".join([*parts, suffix])


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """The settings in a file name; lengths in tokens."""

    bsz_per_host: int
    seq_len: int
    reuse_len: int | None
    bi_data: bool
    mask_alpha: int
    mask_beta: int
    num_predict: int | None
    uncased: bool

    def file_name(self, prefix: str, suffix: str) -> str:
        """`prefix` and `suffix` with the settings between."""
        values = dataclasses.asdict(self)
        values["fixed_num_predict"] = values.pop("num_predict")
        return format_filename(prefix=prefix, suffix=suffix, **values)


@dataclasses.dataclass(frozen=True)
class RecordInfo:
    """One json beside the records: which files, how many batches in all, made in which run."""

    folder: epath.Path
    name: str
    split: str
    task: int
    pass_id: int
    settings: RecordSettings
    filenames: tuple[str, ...]
    num_batch: int


def find_infos(folders: Sequence[epath.PathLike], split: str) -> list[RecordInfo]:
    """All record infos of a split, folder by folder, by name within a folder.

    File names are rebased on the folder they are read from, as in the original.
    Raises FileNotFoundError if there are none.
    """
    found = []
    for folder in map(epath.Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of records")
        for path in sorted(
            folder.glob(f"record_info-{split}-*.json"), key=lambda entry: entry.name
        ):
            match = _INFO_NAME.fullmatch(path.name)
            if match and match["split"] == split:
                found.append(_read_info(folder, path, match))
    if not found:
        places = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(
            f"no file record_info-{split}-*.json in {places}; give the `tfrecords` folders that "
            "the original's data_utils.py made"
        )
    return found


def splits_in(folder: epath.PathLike) -> set[str]:
    """The splits of which a folder holds records; empty if it holds none or does not exist."""
    if not epath.Path(folder).is_dir():
        return set()
    paths = epath.Path(folder).glob("record_info-*.json")
    return {match["split"] for path in paths if (match := _INFO_NAME.fullmatch(path.name))}


def _read_info(folder: epath.Path, path: epath.Path, match: re.Match[str]) -> RecordInfo:
    try:
        contents = json.loads(path.read_text())
        names, batches = [str(name) for name in contents["filenames"]], int(contents["num_batch"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no record info ({type(error).__name__}: {error})") from None
    values = match.groupdict()
    numbers: dict[str, Any] = {
        key: None if values[key] is None else int(values[key])
        for key in (
            "bsz_per_host", "seq_len", "reuse_len", "mask_alpha", "mask_beta", "num_predict"
        )
    }  # fmt: skip
    settings = RecordSettings(
        bi_data=values["bi_data"] == "bi", uncased=values["uncased"] is not None, **numbers
    )
    filenames = tuple(str(folder / name.rsplit("/", 1)[-1]) for name in names)
    return RecordInfo(
        folder,
        path.name,
        match["split"],
        int(match["task"]),
        int(match["pass_id"]),
        settings,
        filenames,
        batches,
    )


def select(
    infos: Sequence[RecordInfo], wanted: Mapping[str, Any], num_passes: int | None = None
) -> list[RecordInfo]:
    """The infos whose settings have all `wanted` values, of passes 0 … num_passes - 1 (None: all).

    The original means to leave out later passes but never does: it gets what None gives. Raises
    ValueError with every difference if nothing fits.
    """
    misfits: dict[str, str] = {}
    chosen = []
    for info in infos:
        lines = mapping_differences(
            dataclasses.asdict(info.settings), wanted, "the records have", "the config"
        )
        if lines:
            misfits.setdefault("; ".join(lines), str(info.folder / info.name))
        elif num_passes is None or info.pass_id < num_passes:
            chosen.append(info)
    if not chosen and misfits:
        raise ValueError(
            "no records fit the config: "
            + " | ".join(f"{name}: {lines}" for lines, name in misfits.items())
        )
    if not chosen:
        raise ValueError(f"all records are of later passes than the {num_passes} wanted")
    return chosen


def cores_per_host(infos: Sequence[RecordInfo]) -> int:
    """Cores per host, which fix the order of the rows, from `corpus_info.json` above each folder.

    Raises FileNotFoundError if one is missing, ValueError if it is of other settings or they
    disagree.
    """
    found = {}
    for info in infos:
        path = info.folder.parent / "corpus_info.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: missing; say how many cores a host had instead (num_core_per_host)"
            )
        contents = json.loads(path.read_text())
        wanted = dataclasses.asdict(info.settings)
        if lines := mapping_differences(contents, wanted, "it has", f"{info.name} has"):
            raise ValueError(
                f"{path} is of other records: {'; '.join(lines)}; say how many cores a host had "
                "(num_core_per_host)"
            )
        found[str(path)] = int(contents["num_core_per_host"])
    if len(set(found.values())) > 1:
        raise ValueError(f"records of several core counts cannot be mixed: {found}")
    return next(iter(found.values()))
