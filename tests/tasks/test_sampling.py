import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.shard_files import random_sentences, write_data_dir
from tests.tasks import reference_sampling as slow
from xlnet_jax.tasks.sampling import PretrainingDataConfig, open_source

SMALL = PretrainingDataConfig(seq_len=48, reuse_len=20, num_predict=9, perm_size=8, seed=3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    shards = [random_sentences(seed, 120, longest=20) for seed in range(3)]
    for shard in shards:  # documents of ten sentences
        for number in range(9, 120, 10):
            shard[number].append(slow.EOD)
    return write_data_dir(tmp_path_factory.mktemp("sampling"), shards)


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name])
        for name in one
    )


@pytest.mark.parametrize("bi_data", [True, False])
def test_tokens_are_laid_out_as_described(data_dir, bi_data):
    config = dataclasses.replace(SMALL, bi_data=bi_data)
    source = open_source(data_dir, config, 4)
    text = source.text(0)
    rows = [np.empty(text.length, np.int32) for _ in range(4)]
    for row, out in enumerate(rows):
        text.read(row, 0, text.length, out)
    if bi_data:
        assert (rows[0] == rows[1][::-1]).all()
    for step in (0, 1, source.steps_per_epoch - 1):
        batch = source.batch(step)
        for row, (ids, segments) in enumerate(
            zip(batch["tokens"], batch["segment_ids"], strict=True)
        ):
            begin, a_end = step * 20, int((segments == 0).sum()) - 1
            assert (ids[:a_end] == rows[row][begin : begin + a_end]).all()
            assert a_end > 20
            assert ids[a_end] == ids[-2] == slow.SEP
            assert ids[-1] == slow.CLS
            assert segments.tolist() == [0] * (a_end + 1) + [1] * (46 - a_end) + [2]
            b = ids[a_end + 1 : -2]
            windows = np.lib.stride_tricks.sliding_window_view(rows[row], len(b))
            assert (windows == b).all(axis=1).any()
        assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
            "tokens": ((4, 48), "int32"),
            "segment_ids": ((4, 48), "int32"),
            "ranks": ((4, 48), "int32"),
            "target_positions": ((4, 9), "int32"),
            "target_weights": ((4, 9), "float32"),
            "reset_memory": ((4,), "bool"),
        }


@settings(max_examples=25)
@given(
    seq_len=st.integers(12, 60),
    seed=st.integers(0, 100),
    spans=st.sampled_from(["words", "pieces"]),
    bi_data=st.booleans(),
    data=st.data(),
)
def test_targets_and_ranks_always_fit(data_dir, seq_len, seed, spans, bi_data, data):
    reuse_len = data.draw(st.integers(1, seq_len - 5))
    most = min(2 * reuse_len, 2 * (seq_len - reuse_len - 3) + 1)
    num_predict = data.draw(st.one_of(st.none(), st.integers(1, most)))
    perm_size = data.draw(st.integers(1, min(reuse_len, seq_len - reuse_len)))
    config = PretrainingDataConfig(
        seq_len, reuse_len, num_predict, perm_size, spans=spans, bi_data=bi_data, seed=seed
    )
    source = open_source(data_dir, config, 4)
    batch = source.batch(data.draw(st.integers(0, 3 * source.steps_per_epoch)))
    positions, weights = batch["target_positions"], batch["target_weights"]
    chosen = np.take_along_axis(batch["tokens"], positions, axis=1)
    assert not (np.isin(chosen, (slow.SEP, slow.CLS)) & (weights > 0)).any()
    if num_predict is not None and spans == "words":
        assert weights.min() == 1
    for at, weight, ranks, ids in zip(
        positions, weights, batch["ranks"], batch["tokens"], strict=True
    ):
        at = at[weight > 0]
        assert (np.diff(at) > 0).all()
        if num_predict is not None and spans == "words":
            assert (at < reuse_len).sum() == num_predict - num_predict // 2
        for part, lowest in (
            (slice(0, reuse_len), 0),
            (slice(reuse_len, None), ranks[reuse_len:].min()),
        ):
            hidden = np.zeros(seq_len, bool)
            hidden[at] = True
            hidden |= np.isin(ids, (slow.SEP, slow.CLS))
            assert (ranks[part][~hidden[part]] == lowest).all()
            own = ranks[part][hidden[part]]
            assert len(set(own.tolist())) == len(own)
            assert (own > lowest).all() if hidden[part].sum() < len(hidden[part]) else True
        assert ranks[:reuse_len].max() < ranks[reuse_len:].min()


@settings(max_examples=25)
@given(
    first=st.integers(0, 120),
    steps=st.integers(1, 9),
    begin=st.integers(0, 5),
    count=st.integers(1, 6),
)
def test_blocks_rows_and_processes_change_nothing(data_dir, first, steps, begin, count):
    config = dataclasses.replace(SMALL, reset_memory="document")
    source = open_source(data_dir, config, 6)
    assert 10 < source.steps_per_epoch < 110  # blocks below reach over the end of an epoch
    rows = slice(begin, min(begin + count, 6))
    block = source.block(first, steps, rows)
    fresh = open_source(data_dir, config, 6)
    for step in range(first, first + steps):
        whole = fresh.batch(step)
        wanted = {name: array[rows] for name, array in whole.items()}
        assert equal({name: array[step - first] for name, array in block.items()}, wanted)


def test_seeds_epochs_rows_and_steps_differ(data_dir):
    source = open_source(data_dir, SMALL, 4)
    steps = source.steps_per_epoch
    other = open_source(data_dir, dataclasses.replace(SMALL, seed=4), 4)
    batches = [source.batch(0), source.batch(1), source.batch(steps), other.batch(0)]
    ranks = {array.tobytes() for batch in batches for array in batch["ranks"]}
    assert len(ranks) == 16
    assert not (source.batch(0)["tokens"] == source.batch(steps)["tokens"]).all()


def test_one_epoch_reads_every_row_to_its_end(data_dir):
    source = open_source(data_dir, SMALL, 4)
    text = source.text(0)
    left = text.length - ((source.steps_per_epoch - 1) * 20 + 48)
    assert 0 <= left < 20


def test_memory_is_reset_behind_documents_and_at_the_start_of_an_epoch(data_dir):
    config = dataclasses.replace(SMALL, reset_memory="document")
    source = open_source(data_dir, config, 4)
    steps = source.steps_per_epoch
    blocks = source.block(0, steps + 2)
    entered = (blocks["tokens"][:, :, :20] == slow.EOD).any(axis=2)
    resets = blocks["reset_memory"]
    assert resets[0].all()
    assert resets[steps].all()
    assert (resets[1:steps] == entered[: steps - 1]).all()
    assert entered.any()
    assert not entered.all()
    never = open_source(data_dir, SMALL, 4).block(0, steps + 2)
    assert not never["reset_memory"].any()
    assert equal({**never, "reset_memory": resets}, blocks)


@pytest.mark.parametrize(("batch_size", "bi_data"), [(3, True), (0, True), (0, False), (-2, False)])
def test_a_batch_size_that_cannot_be_is_named(data_dir, batch_size, bi_data):
    config = dataclasses.replace(SMALL, bi_data=bi_data)
    wanted = "even and at least 2 with config.data.bi_data" if bi_data else "at least 1"
    with pytest.raises(
        ValueError, match=f"config.train.batch_size is {batch_size}; it must be {wanted}"
    ):
        open_source(data_dir, config, batch_size)


@pytest.mark.parametrize("bi_data", [True, False])
def test_too_little_text_says_how_much_there_is_and_what_would_work(data_dir, bi_data):
    config = dataclasses.replace(SMALL, bi_data=bi_data)
    source = open_source(data_dir, config, 2)
    tokens = len(source.shards)
    with pytest.raises(
        ValueError, match=f"the data hold {tokens}; the largest that works is"
    ) as caught:
        open_source(data_dir, config, 1000, batch_key="--eval_batch_size")
    assert str(caught.value).startswith(
        f"--eval_batch_size is 1000, which needs {48 * (500 if bi_data else 1000)} tokens"
    )
    most = int(str(caught.value).rsplit(" ", 1)[-1])
    assert open_source(data_dir, config, most).steps_per_epoch >= 1
    with pytest.raises(ValueError, match="the largest that works is"):
        open_source(data_dir, config, most + 2)
    long = dataclasses.replace(config, seq_len=10**6)
    with pytest.raises(ValueError, match="no batch size works"):
        open_source(data_dir, long, 2)


def test_a_config_that_does_not_fit_is_refused_first(data_dir):
    with pytest.raises(ValueError, match="perm_size is 21"):
        open_source(data_dir, dataclasses.replace(SMALL, perm_size=21), 4)


def test_the_two_kinds_of_spans_differ_in_what_they_choose_alone(data_dir):
    words = open_source(data_dir, SMALL, 4).block(0, 20)
    pieces = open_source(data_dir, dataclasses.replace(SMALL, spans="pieces"), 4).block(0, 20)
    for name in ("tokens", "segment_ids", "reset_memory"):
        assert np.array_equal(words[name], pieces[name])
    assert words["target_weights"].all()
    assert not pieces["target_weights"].all()  # some places fell on separators


def test_backward_rows_choose_whole_words_of_the_text(data_dir):
    source = open_source(data_dir, SMALL, 2)
    starts = source.starts_word
    examples = source.draw(0, 0, source.steps_per_epoch, np.array([1]))
    part = slice(0, 20)
    ids, masked = examples.tokens[:, part][:, ::-1], examples.masked[:, part][:, ::-1]
    splits = (masked[:, 1:] != masked[:, :-1]) & ~starts[ids[:, 1:]]
    assert splits.sum(axis=1).max() <= 1  # the word that is cut at the goal
    ids, masked = ids[:, ::-1], masked[:, ::-1]
    splits = (masked[:, 1:] != masked[:, :-1]) & ~starts[ids[:, 1:]]
    assert splits.sum(axis=1).max() > 1  # in reading order they are not
