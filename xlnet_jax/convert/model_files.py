"""The small files beside weights: shape of the network, vocabulary, clean-up of text."""

from __future__ import annotations

import json
import os

from etils import epath

from xlnet_jax.data.manifest import MANIFEST_NAME, Manifest
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.storage import write_atomic
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import XLNetConfig

CONFIG_NAME = "xlnet_config.json"
VOCABULARY_NAME = "spiece.model"
NORMALIZATION_NAME = "normalization.json"


def write_model_files(
    folder: str | os.PathLike[str], config: XLNetConfig, tokenizer: Tokenizer | None
) -> None:
    """Writes the three files (or the first alone, without a tokenizer), each in one piece."""
    place = epath.Path(folder)
    write_atomic(place / CONFIG_NAME, [config.to_json().encode()])
    if tokenizer is None:
        return
    normalization = json.dumps(tokenizer.normalization.to_json(), indent=2) + "\n"
    write_atomic(place / NORMALIZATION_NAME, [normalization.encode()])
    write_atomic(place / VOCABULARY_NAME, [tokenizer.model_path.read_bytes()])


def read_config(folder: str | os.PathLike[str]) -> XLNetConfig | None:
    """What `xlnet_config.json` of a folder says; None without one.

    Raises ValueError naming the file if it cannot be understood.
    """
    path = epath.Path(folder) / CONFIG_NAME
    if not path.exists():
        return None
    try:
        return XLNetConfig.from_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer | None:
    """The vocabulary of a folder with its clean-up; None without one."""
    path = epath.Path(folder) / VOCABULARY_NAME
    return read_vocabulary(path) if path.exists() else None


def read_vocabulary(path: str | os.PathLike[str]) -> Tokenizer:
    """A SentencePiece model, with the clean-up that the files beside it say.

    `normalization.json` of a model, else `manifest.json` of token shards; without either, as
    released models come, the clean-up is the original's. Raises FileNotFoundError or ValueError
    naming the file that is missing or cannot be understood.
    """
    place = epath.Path(path).parent
    try:
        if (place / NORMALIZATION_NAME).exists():
            values = json.loads((place / NORMALIZATION_NAME).read_text())
        elif (place / MANIFEST_NAME).exists():
            values = Manifest.read(place).normalization
        else:
            return Tokenizer(path, Normalization(form="reference"))
        return Tokenizer(path, Normalization.from_json(values))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"clean-up settings beside {os.fspath(path)}: {error}") from error
