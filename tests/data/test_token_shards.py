import json
import os

import numpy as np
import pytest
from etils.epath import testing as epath_testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.shard_files import random_sentences, write_data_dir
from tests.training import bucket
from xlnet_jax.data import shard_writer, staging
from xlnet_jax.data.token_shards import TokenShards


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks in a small file."""
    monkeypatch.setattr(shard_writer, "BLOCK_BYTES", 256)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    shards = [random_sentences(seed, 10 + 7 * seed) for seed in range(5)]
    return write_data_dir(tmp_path_factory.mktemp("shards"), shards)


def slow_stream(folder, stream) -> tuple[np.ndarray, np.ndarray]:
    """All tokens and all sentence starts of a stream, by the order of its shards."""
    tokens, starts, length = [], [], 0
    for index in stream._order:
        name = TokenShards(folder).names[index]
        tokens.append(np.fromfile(folder / f"{name}.tokens", "<u2"))
        starts.append(np.fromfile(folder / f"{name}.starts", "<u4").astype(np.int64) + length)
        length += len(tokens[-1])
    return np.concatenate(tokens), np.concatenate(starts)


@settings(max_examples=30)
@given(st.data())
def test_any_stretch_is_that_of_the_joined_shards(data_dir, data):
    max_open = data.draw(st.sampled_from([1, 2, 256]))
    stream = TokenShards(data_dir, max_open=max_open).epoch(3, data.draw(st.integers(0, 9)))
    tokens, starts = slow_stream(data_dir, stream)
    assert len(stream) == len(tokens)
    assert stream.sentences == len(starts)
    begin = data.draw(st.integers(0, len(tokens)))
    end = data.draw(st.integers(begin, len(tokens)))
    out = np.empty(end - begin, np.int32)
    stream.copy(begin, end, out)
    assert (out == tokens[begin:end]).all()
    backward = np.empty(end - begin, np.int64)
    stream.copy(begin, end, backward[::-1])
    assert (backward == tokens[begin:end][::-1]).all()
    at = np.array(data.draw(st.lists(st.integers(0, len(tokens)), min_size=1, max_size=20)))
    assert (stream.starts_before(at) == [(starts < p).sum() for p in at]).all()
    assert stream.starts_before(np.array([0, len(tokens)])).tolist() == [0, len(starts)]
    numbers = np.array(data.draw(st.lists(st.integers(0, len(starts)), min_size=1, max_size=20)))
    assert (stream.start_at(numbers) == np.append(starts, len(tokens))[numbers]).all()


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(data_dir):
    orders = {
        (seed, epoch): tuple(TokenShards(data_dir).epoch(seed, epoch)._order)
        for seed in range(4)
        for epoch in range(6)
    }
    again = tuple(TokenShards(data_dir).epoch(2, 4)._order)
    assert again == orders[2, 4]
    assert {tuple(sorted(order)) for order in orders.values()} == {(0, 1, 2, 3, 4)}
    assert len(set(orders.values())) > 15


def test_every_shard_comes_first_about_as_often(data_dir):
    shards = TokenShards(data_dir)
    first = np.bincount([shards.epoch(0, epoch)._order[0] for epoch in range(500)], minlength=5)
    assert first.min() > 60  # 100 expected, standard deviation 9


def read_all(folder):
    stream = TokenShards(folder).epoch(0, 0)
    stream.copy(0, len(stream), np.empty(len(stream), np.int32))


@pytest.mark.usefixtures("small_blocks")
def test_a_flipped_bit_is_named_with_file_and_offset_and_only_when_touched(tmp_path):
    folder = write_data_dir(tmp_path, [random_sentences(0, 40)])
    path = folder / "shard-00000.tokens"
    content = bytearray(path.read_bytes())
    content[700] ^= 4
    path.write_bytes(content)
    stream = TokenShards(folder).epoch(0, 0)
    stream.copy(0, 200, np.empty(200, np.int32))  # blocks before the flipped bit
    with pytest.raises(
        ValueError, match=r"shard-00000.tokens: damaged between byte 512 and 768 .*corpus"
    ):
        stream.copy(190, 300, np.empty(110, np.int32))
    content[700] ^= 4
    path.write_bytes(content)
    read_all(folder)


@pytest.mark.usefixtures("small_blocks")
def test_a_flipped_bit_in_the_sentence_starts_is_named(tmp_path):
    folder = write_data_dir(tmp_path, [random_sentences(0, 400)])
    path = folder / "shard-00000.starts"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    end = len(content)
    with pytest.raises(
        ValueError, match=rf"shard-00000.starts: damaged between byte {end // 256 * 256} and {end}"
    ):
        TokenShards(folder).epoch(0, 0).starts_before(np.array([3]))


@pytest.mark.parametrize("left", [0, 1, 101])
@pytest.mark.parametrize("kind", ["tokens", "starts"])
def test_a_truncated_file_is_named_with_its_length(tmp_path, kind, left):
    folder = write_data_dir(tmp_path, [random_sentences(0, 40)])
    path = folder / f"shard-00000.{kind}"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"shard-00000.{kind}: truncated at byte {left} of "):
        read_all(folder)


def test_a_file_that_is_too_long_is_named(tmp_path):
    folder = write_data_dir(tmp_path, [random_sentences(0, 40)])
    with (folder / "shard-00000.tokens").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(ValueError, match=r"shard-00000.tokens: longer than stated"):
        read_all(folder)


@pytest.mark.parametrize("kind", ["tokens", "starts", "json"])
def test_a_missing_file_is_named(tmp_path, kind):
    folder = write_data_dir(tmp_path, [random_sentences(0, 40)])
    (folder / f"shard-00000.{kind}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"shard-00000.{kind}: missing.*xlnet-jax corpus"):
        read_all(folder)


def test_a_shard_that_is_not_the_manifests_is_named(tmp_path):
    folder = write_data_dir(tmp_path, [random_sentences(0, 40)])
    path = folder / "shard-00000.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "tokens": info["tokens"] + 1}))
    with pytest.raises(
        ValueError, match=r"shard-00000.json: \d+ tokens, but the manifest says \d+"
    ):
        read_all(folder)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"shard-00000.json: not JSON"):
        read_all(folder)


def test_no_tokens_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no tokens in the manifest; run `xlnet-jax corpus`"):
        TokenShards(write_data_dir(tmp_path, []))


def test_shards_in_a_bucket_are_copied_once(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)  # mocked instead
    opened = []

    def open_there(original, path, mode):
        opened.append(path.rsplit("/", 1)[-1])
        return original(path.replace("gs://bucket", str(data_dir)), mode)

    def exists_there(original, path):
        return original(path.replace("gs://bucket", str(data_dir)))

    local = TokenShards(data_dir).epoch(1, 1)
    wanted, found = np.empty(len(local), np.int32), np.empty(len(local), np.int32)
    local.copy(0, len(local), wanted)
    with epath_testing.mock_epath(open=open_there, exists=exists_there, stat=exists_there):
        for _ in range(2):
            TokenShards("gs://bucket", cache_dir=tmp_path).epoch(1, 1).copy(0, len(local), found)
            assert (found == wanted).all()
        with pytest.raises(FileNotFoundError, match="gs://bucket/none"):
            TokenShards("gs://bucket/none", cache_dir=tmp_path)
    assert sum(name.endswith((".tokens", ".starts")) for name in opened) == 10
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_a_copy_of_a_file_that_has_changed_is_made_anew(tmp_path, monkeypatch):
    source = tmp_path / "bucket" / "a.tfrecords"
    source.parent.mkdir()
    with bucket.serve(source.parent, monkeypatch):
        for content, changed in ((b"one", 1000), (b"two", 2000)):  # as long as each other
            source.write_bytes(content)
            os.utime(source, (changed, changed))
            path = f"{bucket.BUCKET}/a.tfrecords"
            assert staging.local_copy(path, cache_dir=tmp_path / "cache").read_bytes() == content
        with pytest.raises(FileNotFoundError, match=r"gs://bucket/none: no such file"):
            staging.local_copy(f"{bucket.BUCKET}/none", cache_dir=tmp_path / "cache")
