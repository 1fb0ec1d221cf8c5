"""Pretraining batches from records of the original code, and records from our own examples.

Text, pairs and tokens to predict are as frozen in the records; factorization orders are drawn at
training time, keyed by (seed, epoch, row, step) as always.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from xlnet_jax.data import counter_random, factorization, original_records, record_infos
from xlnet_jax.data.original_records import RecordBatches
from xlnet_jax.data.record_infos import RecordInfo, RecordSettings
from xlnet_jax.data.tokenizer import SpecialIds
from xlnet_jax.tasks.data_config import PretrainingDataConfig
from xlnet_jax.tasks.sampling import Examples, PretrainingSource

_FILES, _RANKS = 0x4646, 0x4652  # keep these draws apart from all others


class RecordSource:
    """Batches with the face of `PretrainingSource`, from the files that `infos` list.

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
        special: SpecialIds,
        global_batch_size: int,
        num_core_per_host: int | None = None,
        batch_key: str = "config.train.batch_size",
        cache_dir: epath.PathLike | None = None,
    ):
        config.validate()
        self.config = config
        self.global_batch_size = global_batch_size
        self._special = special
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

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """One batch; arrays [B, …] for the chosen rows of the global batch."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        row = np.arange(self.global_batch_size)[rows]
        features = self._read(epoch, offset, row)
        tokens = features["input"].astype(np.int32)
        masked = features["is_masked"] > 0
        functional = (tokens == self._special.sep) | (tokens == self._special.cls)
        positions, weights = factorization.target_list(
            masked & ~functional, self.config.num_predict
        )
        key = counter_random.make_key(_RANKS, self.config.seed, epoch, row, offset)
        hidden = masked | functional
        return {
            "tokens": tokens,
            "segment_ids": features["seg_id"].astype(np.int32),
            "ranks": factorization.draw_ranks(
                key, hidden, self.config.reuse_len, self.config.perm_size
            ),
            "target_positions": positions,
            "target_weights": weights,
            "reset_memory": self._resets(epoch, offset, row),
        }

    def block(
        self, first_step: int, steps: int, rows: slice = slice(None)
    ) -> dict[str, np.ndarray]:
        """`steps` batches in a row, stacked: arrays [steps, B, …] for the chosen rows."""
        batches = [self.batch(step, rows) for step in range(first_step, first_step + steps)]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    def _read(self, epoch: int, offset: int, row: np.ndarray) -> dict[str, np.ndarray]:
        parts = []
        for host in np.unique(row // self._host_rows).tolist():
            file, batch = self._place(host, epoch, offset)
            local = row[row // self._host_rows == host] % self._host_rows
            parts.append(file.read(batch, self._records[local]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _place(self, host: int, epoch: int, offset: int) -> tuple[RecordBatches, int]:
        """The file and the batch in it for a step of an epoch."""
        files = self._hosts[host]
        key = counter_random.make_key(_FILES, self.config.seed, epoch, host)
        for index in counter_random.permutations(key, len(files))[0].tolist():
            if offset < len(files[index]):
                return files[index], offset
            offset -= len(files[index])
        raise AssertionError("steps_per_epoch is beyond the last file")

    def _resets(self, epoch: int, offset: int, row: np.ndarray) -> np.ndarray:
        if self.config.reset_memory == "never":
            return np.zeros(len(row), bool)
        first_in_file = np.array(
            [self._place(int(r) // self._host_rows, epoch, offset)[1] == 0 for r in row]
        )
        resets = first_in_file.copy()
        if not first_in_file.all():
            before = row[~first_in_file]
            entered = self._read(epoch, offset - 1, before)["input"][:, : self.config.reuse_len]
            resets[~first_in_file] = (entered == self._special.eod).any(axis=1)
        return resets


def open_records(
    folders: Sequence[epath.PathLike],
    config: PretrainingDataConfig,
    global_batch_size: int,
    *,
    special: SpecialIds,
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
        special=special,
        global_batch_size=global_batch_size,
        num_core_per_host=num_core_per_host,
        batch_key=batch_key,
        cache_dir=cache_dir,
    )


def write_examples(
    source: PretrainingSource,
    save_dir: epath.PathLike,
    *,
    epoch: int = 0,
    max_steps: int | None = None,
    num_core_per_host: int = 1,
    uncased: bool = False,
    use_eod: bool = True,
    vocab_size: int,
    sp_path: str = "",
    input_glob: str = "",
    split: str = "train",
) -> RecordInfo:
    """Writes an epoch of examples as the original's records, one pass per epoch; see `write_run`.

    Raises ValueError if the rows cannot be shared out to `num_core_per_host` cores.
    """
    config = source.config
    settings = RecordSettings(
        bsz_per_host=source.global_batch_size,
        seq_len=config.seq_len,
        reuse_len=config.reuse_len,
        bi_data=config.bi_data,
        mask_alpha=config.mask_alpha,
        mask_beta=config.mask_beta,
        num_predict=config.num_predict,
        uncased=uncased,
    )
    steps = min(source.steps_per_epoch, max_steps or source.steps_per_epoch)
    return original_records.write_run(
        save_dir,
        settings,
        record_batches(source, epoch, steps, num_core_per_host),
        split=split,
        pass_id=epoch,
        corpus_info={
            "vocab_size": vocab_size,
            "num_core_per_host": num_core_per_host,
            "use_eod": use_eod,
            "sp_path": sp_path,
            "input_glob": input_glob,
        },
    )


def record_batches(
    source: PretrainingSource, epoch: int, steps: int, num_core_per_host: int
) -> Iterator[dict[str, np.ndarray]]:
    """Features of the first `steps` batches of an epoch, rows as in the original's records."""
    size = source.global_batch_size
    rows = original_records.alternating_rows(size, num_core_per_host, bi_data=source.config.bi_data)
    place = np.argsort(rows)
    for step in range(steps):
        examples = source.draw(epoch, step, 1, np.arange(size))
        features = {
            "input": examples.tokens,
            "target": _next_tokens(source, examples, epoch, step),
            "seg_id": examples.segment_ids,
            "is_masked": examples.masked.astype(np.int64),
            "label": examples.pairs.label[:, None],
        }
        yield {name: array[place] for name, array in features.items()}


def _next_tokens(
    source: PretrainingSource, examples: Examples, epoch: int, step: int
) -> np.ndarray:
    """The token that follows each one in its text, <cls> where there is none: int32 [B, T].

    At <sep> behind A it is the first of B; so the original can shift the whole row by one later.
    """
    config, text, drawn = source.config, source.text(epoch), examples.pairs
    target = np.roll(examples.tokens, -1, axis=1)
    target[:, -2:] = source.special.cls
    a_begin = (step + 1) * config.reuse_len
    found = np.empty(1, np.int32)
    for row in range(len(target)):
        for place, position in (
            (config.reuse_len + drawn.a_length[row] - 1, a_begin + drawn.a_length[row]),
            (config.seq_len - 3, drawn.b_begin[row] + drawn.b_length[row]),
        ):
            found[0] = source.special.cls
            if position < text.length:
                text.read(row, int(position), int(position) + 1, found)
            target[row, place] = found[0]
    return target
