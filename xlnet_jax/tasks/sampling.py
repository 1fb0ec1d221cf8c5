"""Pretraining examples drawn on the fly, each a function of (seed, epoch, row, step) alone.

An example of row r at step k of an epoch lays out `seq_len` tokens:

    part                                                        segment
    tokens [k * reuse_len, (k + 1) * reuse_len) of the row      0
    A, which goes on from there, and <sep>                      0
    B, what follows A or text from elsewhere, and <sep>         1
    <cls>                                                       2

Tokens to predict are chosen in the first part (which also enters the memory) and in the rest
separately, half of `num_predict` in each, and each gets its own factorization order
(`data/factorization.py`). Blocks of many steps and rows are drawn together; batch size, process
count and block size only say which (row, step) are asked for. Source: `create_tfrecords` in the
original's `data_utils.py`.
"""

import dataclasses

import numpy as np
from etils import epath

from xlnet_jax.data import counter_random, factorization
from xlnet_jax.data.token_shards import TokenShards
from xlnet_jax.data.tokenizer import SpecialIds
from xlnet_jax.tasks import pairs, spans
from xlnet_jax.tasks.data_config import PretrainingDataConfig as PretrainingDataConfig

_PAIR, _FIRST_SPANS, _SECOND_SPANS, _RANKS = range(4)
_EXAMPLES = 0x4558  # keeps the draws of examples apart from all others


@dataclasses.dataclass(frozen=True)
class Examples:
    """N drawn examples: tokens and segment_ids int32 [N, T], masked bool [N, T], keys uint64 [N].

    `masked` marks chosen tokens, which with spans="pieces" can be <sep> or <cls>; `keys` address
    the draws of each example.
    """

    tokens: np.ndarray
    segment_ids: np.ndarray
    masked: np.ndarray
    pairs: pairs.Pairs
    keys: np.ndarray


class PretrainingSource:
    """Batches from token shards; steps count on through epochs of `steps_per_epoch`.

    The last tokens of a row that fill no example are left out. `starts_word` is bool [vocabulary],
    the pieces that start a word; `batch_key` is what error messages call the batch size.

    Raises ValueError where the configuration does not fit or the text is too short.
    """

    def __init__(
        self,
        shards: TokenShards,
        config: PretrainingDataConfig,
        *,
        starts_word: np.ndarray,
        special: SpecialIds,
        global_batch_size: int,
        batch_key: str = "config.train.batch_size",
    ):
        config.validate()
        self.config = config
        self.global_batch_size = global_batch_size
        self.manifest = shards.manifest
        self.shards = shards
        self.starts_word = starts_word
        self.special = special
        self._rule = spans.SpanRule(
            config.mask_alpha,
            config.mask_beta,
            config.max_gram,
            whole_words=config.spans == "words",
        )
        _check_batch_size(batch_key, global_batch_size, len(shards), config)
        row_length = pairs.row_length(len(shards), global_batch_size, bi_data=config.bi_data)
        self.steps_per_epoch = (row_length - config.seq_len) // config.reuse_len + 1
        self._rows_of_epoch: dict[int, pairs.TextRows] = {}

    def batch(self, step: int, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """One batch; arrays [B, …] for the chosen rows of the global batch."""
        return {name: array[0] for name, array in self.block(step, 1, rows).items()}

    def block(
        self, first_step: int, steps: int, rows: slice = slice(None)
    ) -> dict[str, np.ndarray]:
        """`steps` batches in a row, stacked: arrays [steps, B, …] for the chosen rows.

        tokens, segment_ids, ranks int32 [steps, B, T]; target_positions int32 and target_weights
        float32 [steps, B, P]; reset_memory bool [steps, B].
        """
        row = np.arange(self.global_batch_size)[rows]
        parts = []
        step, end = first_step, first_step + steps
        while step < end:
            epoch, offset = divmod(step, self.steps_per_epoch)
            count = min(end - step, self.steps_per_epoch - offset)
            parts.append(self._features(epoch, offset, count, row))
            step += count
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {
            name: array.reshape(steps, len(row), *array.shape[1:]) for name, array in joined.items()
        }

    def draw(self, epoch: int, first: int, steps: int, row: np.ndarray) -> Examples:
        """Examples of steps [first, first + steps) of an epoch for the given rows, step-major."""
        config, text = self.config, self.text(epoch)
        step = np.repeat(np.arange(first, first + steps), len(row))
        row = np.tile(row, steps)
        keys = counter_random.make_key(_EXAMPLES, config.seed, epoch, row, step)
        begin = step * config.reuse_len
        drawn = pairs.draw(
            counter_random.make_key(keys, _PAIR),
            text,
            row,
            begin + config.reuse_len,
            config.pair_len,
        )
        tokens, segment_ids = self._lay_out(text, row, begin, drawn)
        masked = self._choose(keys, tokens, text.backward(row))
        return Examples(tokens, segment_ids, masked, drawn, keys)

    def _features(
        self, epoch: int, first: int, steps: int, row: np.ndarray
    ) -> dict[str, np.ndarray]:
        config = self.config
        examples = self.draw(epoch, first, steps, row)
        functional = (examples.tokens == self.special.sep) | (examples.tokens == self.special.cls)
        positions, weights = factorization.target_list(
            examples.masked & ~functional, config.num_predict
        )
        ranks = factorization.draw_ranks(
            counter_random.make_key(examples.keys, _RANKS),
            examples.masked | functional,
            config.reuse_len,
            config.perm_size,
        )
        return {
            "tokens": examples.tokens,
            "segment_ids": examples.segment_ids,
            "ranks": ranks,
            "target_positions": positions,
            "target_weights": weights,
            "reset_memory": self._resets(epoch, first, steps, row),
        }

    def text(self, epoch: int) -> pairs.TextRows:
        """The rows of text of an epoch."""
        text = self._rows_of_epoch.get(epoch)
        if text is None:
            stream = self.shards.epoch(self.config.seed, epoch)
            text = pairs.TextRows(stream, self.global_batch_size, bi_data=self.config.bi_data)
            self._rows_of_epoch = {
                **{k: v for k, v in self._rows_of_epoch.items() if k == epoch - 1},
                epoch: text,
            }
        return text

    def _lay_out(
        self, text: pairs.TextRows, row: np.ndarray, begin: np.ndarray, drawn: pairs.Pairs
    ) -> tuple[np.ndarray, np.ndarray]:
        config = self.config
        last = config.seq_len - 1
        tokens = np.empty((len(row), config.seq_len), np.int32)
        a_end = config.reuse_len + drawn.a_length
        columns = (row, begin, a_end, drawn.b_begin, drawn.b_length)
        for out, (at, first, length, other, rest) in zip(
            tokens, zip(*map(np.ndarray.tolist, columns), strict=True), strict=True
        ):
            text.read(
                at, first, first + length, out[:length]
            )  # A goes on where the reuse part ends
            text.read(at, other, other + rest, out[length + 1 : last - 1])
        tokens[np.arange(len(row)), a_end] = self.special.sep
        tokens[:, last - 1] = self.special.sep
        tokens[:, last] = self.special.cls
        segment_ids = (np.arange(config.seq_len) > a_end[:, None]).astype(np.int32)
        segment_ids[:, last] = 2
        return tokens, segment_ids

    def _choose(self, keys: np.ndarray, tokens: np.ndarray, backward: np.ndarray) -> np.ndarray:
        """Tokens to predict, bool [N, T]; backward rows are turned so that words are words."""
        config, masked = self.config, np.empty(tokens.shape, bool)
        parts = (slice(0, config.reuse_len), slice(config.reuse_len, None))
        for part, purpose, goal in zip(
            parts, (_FIRST_SPANS, _SECOND_SPANS), config.goals, strict=True
        ):
            text = tokens[:, part].copy()
            text[backward] = text[backward, ::-1]
            barred = (text == self.special.sep) | (text == self.special.cls)
            chosen = spans.choose(
                counter_random.make_key(keys, purpose),
                self.starts_word[text],
                barred,
                goal,
                self._rule,
            )
            chosen[backward] = chosen[backward, ::-1]
            masked[:, part] = chosen
        return masked

    def _resets(self, epoch: int, first: int, steps: int, row: np.ndarray) -> np.ndarray:
        resets = np.zeros((steps, len(row)), bool)
        if self.config.reset_memory == "document":
            text, reuse_len = self.text(epoch), self.config.reuse_len
            entered = np.empty(reuse_len, np.int64)
            for index, step in enumerate(range(first, first + steps)):
                for place, at in enumerate(row.tolist()):
                    if step > 0:
                        text.read(at, (step - 1) * reuse_len, step * reuse_len, entered)
                    resets[index, place] = step == 0 or (entered == self.special.eod).any()
        return resets.ravel()


def open_source(
    data_dir: epath.PathLike,
    config: PretrainingDataConfig,
    global_batch_size: int,
    *,
    batch_key: str = "config.train.batch_size",
    cache_dir: epath.PathLike | None = None,
) -> PretrainingSource:
    """The source over a data directory, with the special ids and word starts of its vocabulary.

    Raises FileNotFoundError or ValueError where data or configuration do not fit.
    """
    shards = TokenShards(data_dir, cache_dir=cache_dir)
    tokenizer = shards.manifest.tokenizer(data_dir)
    return PretrainingSource(
        shards,
        config,
        starts_word=tokenizer.word_starts,
        special=tokenizer.special,
        global_batch_size=global_batch_size,
        batch_key=batch_key,
    )


def _check_batch_size(
    key: str, batch_size: int, tokens: int, config: PretrainingDataConfig
) -> None:
    if batch_size < 1 or (config.bi_data and batch_size % 2):
        wanted = "even and at least 2 with config.data.bi_data" if config.bi_data else "at least 1"
        raise ValueError(f"{key} is {batch_size}; it must be {wanted}")
    if pairs.row_length(tokens, batch_size, bi_data=config.bi_data) < config.seq_len:
        rows_of_text = 2 if config.bi_data else 1
        needed = config.seq_len * batch_size // rows_of_text
        most = tokens // config.seq_len * rows_of_text
        advice = f"the largest that works is {most}" if most else "no batch size works"
        raise ValueError(
            f"{key} is {batch_size}, which needs {needed} tokens (config.data.seq_len "
            f"{config.seq_len} for each row of text), but the data hold {tokens}; {advice}"
        )
