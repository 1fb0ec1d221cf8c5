import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.shard_files import random_sentences, write_data_dir
from tests.tasks import reference_sampling as slow
from xlnet_jax.data.record_infos import find_infos
from xlnet_jax.tasks import sources
from xlnet_jax.tasks.record_export import write_examples
from xlnet_jax.tasks.record_source import RecordSource, open_records
from xlnet_jax.tasks.sampling import PretrainingDataConfig, PretrainingSource, open_source

RUNS = Path(__file__).parents[1] / "goldens/data_utils/runs"
CONFIG = PretrainingDataConfig(64, 32, 11, 16, spans="pieces", seed=5)


def records(run, config=CONFIG, batch_size=8, **options):
    return open_records([RUNS / run / "tfrecords"], config, batch_size, **options)


def arrays(run, file):
    with np.load(RUNS / run / "records.npz") as archive:
        return {key.rsplit("/", 1)[-1]: archive[key] for key in archive if key.startswith(file)}


def test_batches_have_the_records_in_alternating_rows():
    source = records("bi_tpu_2cores")
    wanted = arrays("bi_tpu_2cores", "train-0-0")
    assert source.steps_per_epoch == 25
    for step in (0, 7, 24, 25, 61):
        batch, first = source.batch(step), step % 25 * 8
        rows = first + np.array([0, 2, 1, 3, 4, 6, 5, 7])
        assert (batch["tokens"] == wanted["input"][rows]).all()
        assert (batch["segment_ids"] == wanted["seg_id"][rows]).all()
        functional = np.isin(batch["tokens"], (slow.SEP, slow.CLS))
        targets = (wanted["is_masked"][rows] > 0) & ~functional
        for row in range(8):
            weight = batch["target_weights"][row]
            assert (
                batch["target_positions"][row][weight > 0].tolist()
                == np.flatnonzero(targets[row]).tolist()
            )
        hidden = targets | functional
        ranks = batch["ranks"]
        assert (ranks[:, :32][~hidden[:, :32]] == 0).all()
        assert (ranks[:, 32:].min(axis=1) > ranks[:, :32].max(axis=1)).all()
        assert not batch["reset_memory"].any()


def test_tokens_beyond_the_vocabulary_are_refused():
    largest = int(arrays("bi_tpu_2cores", "train-0-0")["input"].max())
    fitting = records("bi_tpu_2cores", vocab_size=largest + 1)
    assert fitting.block(0, 25)["tokens"].max() == largest
    with pytest.raises(ValueError, match=f"n_token is {largest}, but .* hold the token {largest}"):
        records("bi_tpu_2cores", vocab_size=largest).block(0, 25)


def test_rows_continue_their_text_in_both_directions():
    source = records("bi_tpu_2cores")
    wanted = arrays("bi_tpu_2cores", "train-0-0")
    next_token = wanted["target"][:, 31]  # behind the reused part
    rows = np.array([0, 2, 1, 3, 4, 6, 5, 7])
    for step in range(24):
        assert (source.batch(step + 1)["tokens"][:, 0] == next_token[step * 8 + rows]).all()


def test_orders_are_drawn_anew_each_epoch_and_blocks_change_nothing():
    config = dataclasses.replace(CONFIG, reset_memory="document")
    source, again = records("bi_tpu_2cores", config), records("bi_tpu_2cores", config)
    block = source.block(20, 12, slice(2, 6))
    for step in range(20, 32):
        batch = again.batch(step)
        for name, array in block.items():
            assert np.array_equal(array[step - 20], batch[name][2:6])
    assert not (source.batch(0)["ranks"] == source.batch(25)["ranks"]).all()
    assert (source.batch(0)["tokens"] == source.batch(25)["tokens"]).all()


def test_files_come_in_an_order_of_the_epoch_and_hosts_have_their_own():
    source = records("two_tasks_two_passes", batch_size=4)
    assert source.steps_per_epoch == 102
    text = source.block(0, 204)["tokens"]
    assert sorted(ids.tobytes() for ids in text[:102]) == sorted(
        ids.tobytes() for ids in text[102:]
    )
    assert not (text[:102] == text[102:]).all()
    assert records("two_tasks_two_passes", batch_size=4, num_passes=1).steps_per_epoch == 51
    hosts = records("two_tasks_two_passes", batch_size=8)
    assert hosts.steps_per_epoch == 40  # the second host has the two shorter files
    files = [arrays("two_tasks_two_passes", f"train-0-{number}")["input"] for number in range(2)]
    first_host = {ids.astype(np.int32).tobytes() for file in files for ids in file}
    for step in range(hosts.steps_per_epoch):
        both = hosts.batch(step)["tokens"]
        assert {ids.tobytes() for ids in both[:4]} <= first_host
        assert not {ids.tobytes() for ids in both[4:]} & first_host


def test_memory_is_reset_behind_documents_and_between_files():
    config = dataclasses.replace(CONFIG, reset_memory="document")
    block = records("two_tasks_two_passes", config, batch_size=4).block(0, 102)
    entered = (block["tokens"][:, :, :32] == slow.EOD).any(axis=2)
    resets = block["reset_memory"]
    between = [
        step
        for step in range(102)
        if resets[step].all() and (step == 0 or not entered[step - 1].all())
    ]
    assert len(between) == 4
    inside = [step for step in range(1, 102) if step not in between]
    assert all((resets[step] == entered[step - 1]).all() for step in inside)


def test_what_does_not_fit_the_config_is_named():
    with pytest.raises(ValueError, match="num_predict: the records have 11, the config 9"):
        records("bi_tpu_2cores", dataclasses.replace(CONFIG, num_predict=9))
    with pytest.raises(ValueError, match="uncased: the records have true, the config false"):
        records("bi_tpu_2cores", uncased=False)


@pytest.mark.parametrize("batch_size", [4, 12, 16, 0])
def test_a_batch_size_that_the_records_cannot_give_is_named(batch_size):
    message = rf"batch_size is {batch_size}; it must be a multiple of 8, .* at most 8,"
    with pytest.raises(ValueError, match=message):
        records("bi_tpu_2cores", batch_size=batch_size)


def test_records_of_two_kinds_are_not_mixed():
    infos = [
        i
        for run in ("bi_tpu_2cores", "bi_tpu_1core")
        for i in find_infos([RUNS / run / "tfrecords"], "train")
    ]
    with pytest.raises(ValueError, match="of several settings"):
        RecordSource(infos, CONFIG, global_batch_size=8)


@pytest.mark.parametrize(("bi_data", "cores"), [(True, 2), (True, 1), (False, 2)])
def test_our_examples_written_as_records_are_read_back(tmp_path, bi_data, cores):
    shards = [random_sentences(seed, 60, longest=20) for seed in range(2)]
    data_dir = write_data_dir(tmp_path / "data", shards)
    config = PretrainingDataConfig(32, 12, 7, 12, bi_data=bi_data, seed=1)
    source = open_source(data_dir, config, 8)
    info = write_examples(source, tmp_path / "out", num_core_per_host=cores, vocab_size=2000)
    assert info.num_batch == source.steps_per_epoch
    corpus_info = json.loads((tmp_path / "out/corpus_info.json").read_text())
    assert corpus_info["num_core_per_host"] == cores
    read = open_records([tmp_path / "out/tfrecords"], config, 8, special=source.special)
    assert read.steps_per_epoch == source.steps_per_epoch
    text = source.text(0)
    for step in range(source.steps_per_epoch):
        ours, theirs = source.batch(step), read.batch(step)
        for name in ("tokens", "segment_ids", "target_positions", "target_weights", "reset_memory"):
            assert np.array_equal(ours[name], theirs[name])
        for row in range(8):  # next tokens of the first part, A included
            a_end = int((ours["segment_ids"][row] == 0).sum()) - 1
            wanted = np.empty(a_end, np.int32)
            text.read(row, step * 12 + 1, step * 12 + 1 + a_end, wanted)
            record = read.records(step, 1, np.array([row]))
            assert (record["target"][0, :a_end] == wanted).all()
            assert (record["target"][0, a_end:-3] == ours["tokens"][row, a_end + 1 : -2]).all()


def test_a_folder_tells_what_kind_of_data_it_holds(tmp_path):
    found = sources.open_source(str(RUNS / "bi_tpu_2cores/tfrecords"), CONFIG, 8, vocab_size=2000)
    assert isinstance(found, RecordSource)
    assert found.manifest.vocab_size == 2000
    assert found.manifest.totals["tokens"] == 25 * 8 * 32
    assert found.manifest.normalization["lower"]
    both = [str(RUNS / f"{run}/tfrecords") for run in ("two_tasks_two_passes", "from_ids")]
    assert sources.open_source(",".join(both), CONFIG, 4).steps_per_epoch == 133
    only = sources.open_source(str(RUNS / "dev_split/tfrecords"), CONFIG, 4)
    assert only.steps_per_epoch == 52
    shards = write_data_dir(tmp_path / "data", [random_sentences(0, 60)])
    assert isinstance(sources.open_source(str(shards), CONFIG, 4), PretrainingSource)
    with pytest.raises(FileNotFoundError, match=r"no manifest.json in .*none"):
        sources.open_source(str(tmp_path / "none"), CONFIG, 4)
