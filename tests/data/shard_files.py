"""Small data directories for tests, written by the library's own shard writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath

from xlnet_jax.data import shard_writer
from xlnet_jax.data.line_rules import Stream
from xlnet_jax.data.manifest import MODEL_NAME, Manifest
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer

Sentences = Sequence[Sequence[int]]
MODEL = Path(__file__).parents[1] / "goldens/data_utils/spiece.model"


def write_data_dir(folder: Path, shards: Sequence[Sentences], vocab_size: int = 2000) -> Path:
    """One shard per list of sentences; the vocabulary is the goldens' (2000 pieces)."""
    tokenizer = Tokenizer(MODEL, Normalization("reference"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_NAME).write_bytes(MODEL.read_bytes())
    dtype = shard_writer.token_dtype(vocab_size)
    listed = []
    for number, sentences in enumerate(shards):
        buffer = shard_writer.ShardBuffer(dtype)
        lengths = np.array([len(sentence) for sentence in sentences], np.int64)
        nothing = np.zeros(len(sentences), bool)
        tokens = np.array([token for sentence in sentences for token in sentence], np.int32)
        buffer.add(Stream(tokens, lengths, ~nothing, nothing.astype(np.int64), nothing))
        name = f"shard-{number:05d}"
        buffer.write(epath.Path(folder), name, {})
        listed.append(
            {"name": name, "tokens": len(tokens), "sentences": len(sentences), "documents": 1}
        )
    special = {key: int(value) for key, value in vars(tokenizer.special).items()}
    Manifest(
        vocab_size=tokenizer.vocab_size, tokenizer_sha256=tokenizer.sha256,
        normalization=tokenizer.normalization.to_json(), use_eod=True, line_rules="fixed",
        special_ids=special, dtype=dtype, totals={}, counts={}, shards=listed, source={},
    ).write(epath.Path(folder))  # fmt: skip
    return folder


def random_sentences(
    seed: int, count: int, longest: int = 40, first_id: int = 9
) -> list[list[int]]:
    """Sentences of 1 … `longest` random tokens."""
    numbers = np.random.default_rng(seed)
    lengths = numbers.integers(1, longest + 1, count)
    return [numbers.integers(first_id, 2000, length).tolist() for length in lengths]
