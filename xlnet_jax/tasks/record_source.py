"""Pretraining batches from records of the original code.

Text, pairs and tokens to predict are as frozen in the records; factorization orders are drawn at
training time, keyed by (seed, epoch, row, step) as always.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from xlnet_jax.data import counter_random, factorization, original_records, record_infos
from xlnet_jax.data.manifest import Manifest
from xlnet_jax.data.original_records import RecordBatches
from xlnet_jax.data.record_infos import RecordInfo
from xlnet_jax.data.tokenizer import SpecialIds
from xlnet_jax.tasks.data_config import PretrainingDataConfig

_FILES, _RANKS = 0x4646, 0x4652  # keep these draws apart from all others
ORIGINAL_SPECIAL = SpecialIds(unk=0, bos=1, eos=2, cls=3, sep=4, pad=5, mask=6, eod=7, eop=8)
ORIGINAL_VOCAB_SIZE = 32_000  # fixed in the original, whatever the vocabulary


class RecordSource:
    """Batches with the face of `PretrainingSource`, from the files that `infos` list.

    `manifest` holds what the records tell; `vocab_size` is that of the vocabulary they were made
    with, which they do not (the original's fixed 32,000 if None).

    The global batch is `global_batch_size / bsz_per_host` host batches side by side, each from its
    own files (as in the original, where each host had its own); an epoch is as long as the shortest
    host's files, in an order that is a function of (seed, epoch). Raises ValueError where batch
    size or files do not fit.
    """

    def __init__(
        self,
        infos: Sequence[RecordInfo],
        config: PretrainingDataConfig,
        *,
        global_batch_size: int,
        special: SpecialIds = ORIGINAL_SPECIAL,
        vocab_size: int | None = None,
        num_core_per_host: int | None = None,
        batch_key: str = "config.train.batch_size",
        cache_dir: epath.PathLike | None = None,
    ):
        config.validate()
        self.config = config
        self.global_batch_size = global_batch_size
        self.special = special
        settings = infos[0].settings
        if any(info.settings != settings for info in infos):
            raise ValueError(
                "the records are of several settings: " + ", ".join(info.name for info in infos)
            )
        self._host_rows = settings.bsz_per_host
        if config.bi_data and num_core_per_host is None:
            num_core_per_host = record_infos.cores_per_host(infos)
        self._records = original_records.alternating_rows(
            settings.bsz_per_host, num_core_per_host or 1, bi_data=config.bi_data
        )
        files = [
            RecordBatches(
                name, settings, info.num_batch if len(info.filenames) == 1 else None, cache_dir
            )
            for info in infos
            for name in info.filenames
        ]
        hosts, rest = divmod(global_batch_size, self._host_rows)
        if rest or not 1 <= hosts <= len(files):
            raise ValueError(
                f"{batch_key} is {global_batch_size}; it must be a multiple of {self._host_rows}, "
                f"the records' own, and at most {self._host_rows * len(files)}, for each of these "
                "needs a file of its own"
            )
        share = len(files) // hosts
        self._hosts = [
            files[h * share : (h + 1) * share if h < hosts - 1 else None] for h in range(hosts)
        ]
        self.steps_per_epoch = min(sum(map(len, group)) for group in self._hosts)
        self.manifest = self._describe(infos, vocab_size or ORIGINAL_VOCAB_SIZE)

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """One batch; arrays [B, …] for the chosen rows of the global batch."""
        return {name: array[0] for name, array in self.block(step, 1, rows).items()}

    def block(
        self, first_step: int, steps: int, rows: slice = slice(None)
    ) -> dict[str, np.ndarray]:
        """`steps` batches in a row, stacked: arrays [steps, B, …] for the chosen rows."""
        config, row = self.config, np.arange(self.global_batch_size)[rows]
        epoch, offset = np.divmod(np.arange(first_step, first_step + steps), self.steps_per_epoch)
        features = self.records(first_step, steps, row)
        tokens = features["input"].astype(np.int32)
        if (largest := tokens.max()) >= self.manifest.vocab_size:
            raise ValueError(
                f"config.model.n_token is {self.manifest.vocab_size}, but the records of"
                f" {', '.join(self.manifest.source['records'])} hold the token {largest}; set it to"
                " the size of the vocabulary that they were made with"
            )
        masked = features["is_masked"] > 0
        functional = (tokens == self.special.sep) | (tokens == self.special.cls)
        positions, weights = factorization.target_list(masked & ~functional, config.num_predict)
        key = counter_random.make_key(_RANKS, config.seed, epoch[:, None], row, offset[:, None])
        hidden = masked | functional
        arrays = {
            "tokens": tokens,
            "segment_ids": features["seg_id"].astype(np.int32),
            "ranks": factorization.draw_ranks(
                key.ravel(), hidden, config.reuse_len, config.perm_size
            ),
            "target_positions": positions,
            "target_weights": weights,
        }
        shape = steps, len(row)
        return {
            **{name: array.reshape(*shape, -1) for name, array in arrays.items()},
            "reset_memory": self._resets(first_step, steps, row, tokens.reshape(*shape, -1)),
        }

    def _describe(self, infos: Sequence[RecordInfo], vocab_size: int) -> Manifest:
        """What is known of these records, in the form of a manifest of shards."""
        settings = infos[0].settings
        listed = [
            {"name": info.name, "batches": info.num_batch, "files": len(info.filenames)}
            for info in infos
        ]
        batches = sum(info.num_batch for info in infos)
        tokens = batches * settings.bsz_per_host * self.config.reuse_len
        return Manifest(
            vocab_size=vocab_size,
            tokenizer_sha256="",
            normalization={"lower": settings.uncased},
            use_eod=True,
            line_rules="reference",
            special_ids=dataclasses.asdict(self.special),
            dtype="int64",
            totals={"tokens": tokens, "files": sum(len(info.filenames) for info in infos)},
            counts={},
            shards=listed,
            source={"records": sorted({str(info.folder) for info in infos})},
        )

    def records(self, first_step: int, steps: int, row: np.ndarray) -> dict[str, np.ndarray]:
        """Features of the records of our rows (int64, ascending): int64 [steps * len(row), …]."""
        found: list[bytes] = []
        files = ""
        for step in range(first_step, first_step + steps):
            for host in np.unique(row // self._host_rows).tolist():
                file, batch = self._place(host, step)
                local = row[row // self._host_rows == host] % self._host_rows
                found += file.raw(batch, self._records[local])
                files = file.path
        return original_records.parse(found, self.config.seq_len, files)

    def _place(self, host: int, step: int) -> tuple[RecordBatches, int]:
        """The file and the batch in it that a host reads at a step."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        files = self._hosts[host]
        key = counter_random.make_key(_FILES, self.config.seed, epoch, host)
        for index in counter_random.permutations(key, len(files))[0].tolist():
            if offset < len(files[index]):
                return files[index], offset
            offset -= len(files[index])
        raise AssertionError("steps_per_epoch is beyond the last file")

    def _resets(
        self, first_step: int, steps: int, row: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        resets = np.zeros((steps, len(row)), bool)
        if self.config.reset_memory == "never":
            return resets
        ended = (tokens[:, :, : self.config.reuse_len] == self.special.eod).any(axis=2)
        resets[1:] = ended[:-1]
        if first_step:
            before = self.records(first_step - 1, 1, row)["input"][:, : self.config.reuse_len]
            resets[0] = (before == self.special.eod).any(axis=1)
        for step in range(steps):  # another file: the memory is of text from elsewhere
            for host in np.unique(row // self._host_rows).tolist():
                if self._place(host, first_step + step)[1] == 0:
                    resets[step, row // self._host_rows == host] = True
        return resets


def open_records(
    folders: Sequence[epath.PathLike],
    config: PretrainingDataConfig,
    global_batch_size: int,
    *,
    special: SpecialIds = ORIGINAL_SPECIAL,
    vocab_size: int | None = None,
    split: str = "train",
    num_passes: int | None = None,
    uncased: bool | None = None,
    num_core_per_host: int | None = None,
    batch_key: str = "config.train.batch_size",
    cache_dir: epath.PathLike | None = None,
) -> RecordSource:
    """The source over folders of records whose settings are those of the config.

    Raises ValueError with every differing field, FileNotFoundError if there are no records.
    """
    keys = ("seq_len", "reuse_len", "bi_data", "mask_alpha", "mask_beta", "num_predict")
    wanted = {key: getattr(config, key) for key in keys}
    if uncased is not None:
        wanted["uncased"] = uncased
    infos = record_infos.select(record_infos.find_infos(folders, split), wanted, num_passes)
    return RecordSource(
        infos,
        config,
        global_batch_size=global_batch_size,
        special=special,
        vocab_size=vocab_size,
        num_core_per_host=num_core_per_host,
        batch_key=batch_key,
        cache_dir=cache_dir,
    )
