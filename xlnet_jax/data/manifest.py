"""What a data set was made with, and the field-by-field check before it is used."""

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.storage import read_object, write_atomic
from xlnet_jax.data.tokenizer import Tokenizer

FORMAT = 1
MANIFEST_NAME = "manifest.json"
MODEL_NAME = "spiece.model"

_SHOWN = 60  # a value longer than this many characters is cut where differences are printed
_MISSING = "(missing)"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The manifest of a folder of token shards, kept in its manifest.json.

    `totals` has tokens, sentences, documents, files and bytes (of text as read). `counts` has
    everything odd that was met: `corpus_units.COUNTS` and empty_files. Each shard has at least
    name, tokens, sentences and documents; shards without tokens are not listed. `source` says where
    the text came from and which version of this package read it.
    """

    vocab_size: int
    tokenizer_sha256: str
    normalization: dict[str, Any]
    use_eod: bool
    line_rules: str
    special_ids: dict[str, int]
    dtype: str
    totals: dict[str, int]
    counts: dict[str, int]
    shards: list[dict[str, Any]]
    source: dict[str, Any]
    heldout_every: int = 0
    part: str = "train"
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """All fields, ready for json."""
        return dataclasses.asdict(self)

    def write(self, data_dir: epath.Path) -> None:
        """Writes DATA_DIR/manifest.json in one piece."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_atomic(data_dir / MANIFEST_NAME, [text.encode()])

    @classmethod
    def read(cls, data_dir: str | os.PathLike[str]) -> "Manifest":
        """Reads DATA_DIR/manifest.json.

        Raises FileNotFoundError if there is none, ValueError if it can't be understood.
        """
        path = epath.Path(data_dir) / MANIFEST_NAME
        if not path.exists():
            raise FileNotFoundError(
                f"no {MANIFEST_NAME} in {os.fspath(data_dir)}: it is no folder of token shards, or "
                "`xlnet-jax corpus` did not finish there (the same command again resumes)"
            )
        values = read_object(path)
        if (found := values.get("format")) != FORMAT:
            raise ValueError(
                f"{os.fspath(path)} has format {found}, this version reads {FORMAT}: make the "
                "shards again with `xlnet-jax corpus`"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(known ^ set(values)))
            raise ValueError(f"{os.fspath(path)} has missing or unknown fields: {odd}")
        return cls(**values)

    def tokenizer(self, data_dir: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer the shards were made with, from the model kept beside them."""
        tokenizer = Tokenizer(
            epath.Path(data_dir) / MODEL_NAME, Normalization.from_json(self.normalization)
        )
        check_tokenizer(self, tokenizer)
        return tokenizer


def differences(manifest: Manifest, wanted: Mapping[str, Any]) -> list[str]:
    """One printable line for each field of `wanted` that the manifest holds otherwise.

    Fields may be nested: ``{"normalization": {"form": "nfc"}}`` looks at that one key only.
    """
    return mapping_differences(manifest.to_json(), wanted, "the data have", "wanted")


def check_tokenizer(manifest: Manifest, tokenizer: Tokenizer) -> None:
    """Raises ValueError with every difference between a data set's vocabulary and a tokenizer."""
    found = differences(
        manifest,
        {
            "tokenizer_sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "special_ids": dataclasses.asdict(tokenizer.special),
            "normalization": tokenizer.normalization.to_json(),
        },
    )
    if found:
        raise ValueError(
            f"the vocabulary {os.fspath(tokenizer.model_path)} is not the one the shards were made "
            f"with: {'; '.join(found)}"
        )


def mapping_differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], found_label: str, wanted_label: str
) -> list[str]:
    """One line a differing key of `wanted`, nested keys joined by points, lists entry by entry."""
    lines: list[str] = []
    _collect("", found, wanted, lines, (found_label, wanted_label))
    return lines


def _collect(name: str, found: Any, wanted: Any, lines: list[str], labels: tuple[str, str]) -> None:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in wanted:
            inner = f"{name}.{key}" if name else str(key)
            _collect(inner, found.get(key, _MISSING), wanted[key], lines, labels)
    elif isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        if len(found) != len(wanted):
            lines.append(f"{name}: {labels[0]} {len(found)} entries, {labels[1]} {len(wanted)}")
        for i, (one, other) in enumerate(zip(found, wanted, strict=False)):
            _collect(f"{name}[{i}]", one, other, lines, labels)
    elif found != wanted:
        lines.append(f"{name}: {labels[0]} {_show(found)}, {labels[1]} {_show(wanted)}")


def _show(value: Any) -> str:
    text = value if value == _MISSING else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def code_version() -> str:
    """The version of this package as installed."""
    try:
        return importlib.metadata.version("xlnet-jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
