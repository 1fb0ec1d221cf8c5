"""Our own pretraining examples as records that the original code reads."""

from collections.abc import Iterator

import numpy as np
from etils import epath

from xlnet_jax.data import original_records
from xlnet_jax.data.record_infos import RecordInfo, RecordSettings
from xlnet_jax.tasks.sampling import Examples, PretrainingSource


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
