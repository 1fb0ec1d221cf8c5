"""The right source of pretraining batches for a folder."""

from etils import epath

from xlnet_jax.data.manifest import MANIFEST_NAME
from xlnet_jax.data.record_infos import splits_in
from xlnet_jax.tasks import record_source, sampling
from xlnet_jax.tasks.data_config import PretrainingDataConfig
from xlnet_jax.tasks.record_source import RecordSource
from xlnet_jax.tasks.sampling import PretrainingSource

Source = PretrainingSource | RecordSource


def open_source(
    data: str,
    config: PretrainingDataConfig,
    global_batch_size: int,
    *,
    vocab_size: int | None = None,
    batch_key: str = "config.train.batch_size",
    cache_dir: epath.PathLike | None = None,
) -> Source:
    """Token shards, or folders of the original's records joined by commas as in its own flag.

    Of records, those of the split "train" are taken, or those of the only other split there is;
    `vocab_size` is for records alone (see `RecordSource`).

    Raises FileNotFoundError or ValueError, naming folder or config key, where something is missing
    or does not fit.
    """
    folders = [epath.Path(part) for part in data.split(",") if part]
    splits = set()
    if folders and not (folders[0] / MANIFEST_NAME).exists():
        splits = set().union(*map(splits_in, folders))
    if not splits:
        return sampling.open_source(
            data, config, global_batch_size, batch_key=batch_key, cache_dir=cache_dir
        )
    if "train" not in splits and len(splits) > 1:
        raise ValueError(f"{data} holds records of several splits: {', '.join(sorted(splits))}")
    return record_source.open_records(
        folders, config, global_batch_size, split="train" if "train" in splits else splits.pop(),
        vocab_size=vocab_size, batch_key=batch_key, cache_dir=cache_dir,
    )  # fmt: skip
