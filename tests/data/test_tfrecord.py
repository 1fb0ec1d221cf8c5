import numpy as np
import pytest
import tensorflow as tf

from xlnet_jax.data import tfrecord

LENGTHS = [0, 1, 2, 3, 5, 31, 4095, 4096, 10_001]


@pytest.fixture
def records():
    numbers = np.random.default_rng(0)
    return [numbers.bytes(length) for length in LENGTHS]


def test_a_published_checksum():
    # The check value of CRC-32C: that of "123456789" is e3069283, masked as TFRecord does it.
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    assert tfrecord.masked_crc32c(b"123456789") == masked
    assert tfrecord.masked_crc32c(b"123456788") != masked


def test_files_are_tensorflows_byte_for_byte(records, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    tfrecord.write_records(tmp_path / "ours", records)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    file = tfrecord.RecordFile(tmp_path / "theirs")
    assert list(file) == records
    assert [file.read(index) for index in (7, 0, 4)] == [records[7], records[0], records[4]]


def test_an_empty_file_has_no_records(tmp_path):
    tfrecord.write_records(tmp_path / "empty", [])
    assert len(tfrecord.RecordFile(tmp_path / "empty")) == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (50, "damaged at byte 46 "),  # in the length of record 1
        (54, "damaged at byte 46 "),  # in the checksum of that length
        (60, "record 1 at byte 46 is damaged"),  # in its bytes
        (46 + 12 + 40, "record 1 at byte 46 is damaged"),  # in the checksum of its bytes
    ],
)
def test_a_flipped_bit_is_named_with_file_and_offset(place, message, tmp_path):
    path = tmp_path / "x.tfrecords"
    tfrecord.write_records(path, [b"a" * 30, b"b" * 40, b"c" * 50])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x.tfrecords: {message}"):
        list(tfrecord.RecordFile(path))


@pytest.mark.parametrize("left", [1, 12, 45, 47, 60, 101])
def test_a_truncated_file_is_named_with_its_offset(left, tmp_path):
    path = tmp_path / "x.tfrecords"
    tfrecord.write_records(path, [b"a" * 30, b"b" * 40])
    path.write_bytes(path.read_bytes()[:left])
    start = 0 if left < 46 else 46
    with pytest.raises(
        ValueError, match=rf"x.tfrecords: truncated at byte {left}, .* starts at byte {start};"
    ):
        len(tfrecord.RecordFile(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        tfrecord.RecordFile(tmp_path / "y.tfrecords")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def broken():
        yield b"a"
        raise ValueError("the source is damaged")

    with pytest.raises(ValueError, match="the source is damaged"):
        tfrecord.write_records(tmp_path / "x", broken())
    assert not list(tmp_path.iterdir())
