"""From settings to a task and its devices: data opened and compared, batches checked."""

from __future__ import annotations

from jax.sharding import Mesh

from xlnet_jax.data.manifest import Manifest, differences
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.tasks import sources
from xlnet_jax.tasks.pretraining import PretrainingTask
from xlnet_jax.training import sharding
from xlnet_jax.training.settings import Settings


def make_task(settings: Settings) -> PretrainingTask:
    """Opens the data, compares them with the config and with each other, and builds the model.

    Raises ValueError or OSError where something is missing or does not fit.
    """
    paths, train = settings.paths, settings.train
    source = _open(paths.train, settings, train.batch_size, "config.train.batch_size")
    heldout = None
    if paths.heldout:
        key = "config.train.eval_batch_size" if train.eval_batch_size else "config.train.batch_size"
        heldout = _open(paths.heldout, settings, eval_batch_size(settings), key)
        _compare_manifests(source.manifest, heldout.manifest, settings)
    network = settings.network(source.manifest.vocab_size)
    model = PermutationLanguageModel(network, settings.run)
    if train.eval_every and heldout is None:
        raise ValueError(
            f"train.eval_every is {train.eval_every}, but data.heldout is empty; set"
            " --config.data.heldout=DIR or --config.train.eval_every=0"
        )
    return PretrainingTask(model, source, heldout, train.eval_steps)


def make_mesh(settings: Settings, task: PretrainingTask) -> Mesh:
    """All devices; raises ValueError if a batch cannot be cut evenly over them."""
    train, group = settings.train, task.rows_per_group
    sharding.check_batch_size("train.batch_size", train.batch_size, group, train.accumulation_steps)
    if task.heldout is not None:
        check_eval_batch_size(settings, task)
    return sharding.make_mesh()


def check_eval_batch_size(settings: Settings, task: PretrainingTask) -> None:
    """Raises ValueError if a held-out batch cannot be cut evenly over all devices."""
    if settings.train.eval_batch_size:
        key = "train.eval_batch_size"
    else:
        key = "train.eval_batch_size (0: that of train.batch_size)"
    sharding.check_batch_size(key, eval_batch_size(settings), task.rows_per_group, 1)


def eval_batch_size(settings: Settings) -> int:
    """Examples of a held-out batch."""
    return settings.train.eval_batch_size or settings.train.batch_size


def _open(folder: str, settings: Settings, batch_size: int, key: str) -> sources.Source:
    return sources.open_source(
        folder,
        settings.data,
        batch_size,
        vocab_size=settings.n_token or None,
        batch_key=key,
        cache_dir=settings.paths.cache or None,
    )


def _compare_manifests(train: Manifest, heldout: Manifest, settings: Settings) -> None:
    wanted = train.to_json()
    same = ["vocab_size", "special_ids"]
    if train.tokenizer_sha256 and heldout.tokenizer_sha256:  # the original's records tell no more
        same += ["tokenizer_sha256", "normalization", "use_eod", "dtype"]
    if lines := differences(heldout, {key: wanted[key] for key in same}):
        raise ValueError(
            f"data.heldout={settings.paths.heldout} was not made like"
            f" data.train={settings.paths.train}: {'; '.join(lines)}"
        )
