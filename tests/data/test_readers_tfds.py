"""A TFDS data set made on the spot; nothing is downloaded."""

import dataclasses

import numpy as np
import pytest

from xlnet_jax.data.readers import Columns
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.data.readers_tfds import class_names, open_builder, read_tfds
from xlnet_jax.tasks.text_config import TextDataConfig
from xlnet_jax.tasks.text_splits import find_labels, open_split

COLUMNS = Columns(("sentence",), ("other",), "label")
TEXTS = ["fine film", "dull é", "no"]


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    path = tmp_path_factory.mktemp("tfds")
    text = tfds.features.Text()
    label = tfds.features.ClassLabel(names=["bad", "good"])
    features = {
        "sentence": text,
        "other": text,
        "label": label,
        "idx": np.int32,
        "score": np.float32,
    }
    rows = {"sentence": TEXTS, "other": TEXTS[::-1], "idx": [7, 8, 9], "score": [0.5, 1.0, 2.5]}
    splits = {
        "train": tf.data.Dataset.from_tensor_slices({**rows, "label": [1, 0, 1]}),
        "test": tf.data.Dataset.from_tensor_slices({**rows, "label": [-1, -1, -1]}),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_reviews", version="1.0.0", data_dir=path, split_datasets=splits,
        features=tfds.features.FeaturesDict(features),
    )  # fmt: skip
    return open_builder("tiny_reviews", str(path))


def by_number(builder, split, columns, **options):
    """TFDS shuffles when it writes, so examples are found by their own number."""
    numbered = dataclasses.replace(columns, guid="idx")
    found = {e.guid: e for e in read_tfds(builder, split, numbered, **options)}
    return [found[number] for number in ("7", "8", "9")]


def test_classes_by_name(builder):
    assert class_names(builder, "label") == ("bad", "good")
    assert class_names(builder, "idx") == ()
    found = by_number(builder, "train", COLUMNS)
    assert [e.text_a for e in found] == TEXTS
    assert [e.text_b for e in found] == TEXTS[::-1]
    assert [e.label for e in found] == ["good", "bad", "good"]


def test_names_and_places(builder):
    found = list(read_tfds(builder, "train", COLUMNS))
    assert [e.guid for e in found] == ["train-0", "train-1", "train-2"]
    assert found[1].place == "tfds:tiny_reviews/1.0.0:train:1"


def test_slices_hidden_labels_and_numbers(builder):
    assert [e.label for e in by_number(builder, "test", COLUMNS)] == [None] * 3
    every = list(read_tfds(builder, "test", COLUMNS))
    (second,) = read_tfds(builder, "test[1:2]", COLUMNS)
    assert second.text_a == every[1].text_a
    scores = Columns(("sentence",), (), "score")
    assert [e.label for e in by_number(builder, "train", scores, read_label=float)] == [0.5, 1, 2.5]


def test_a_config_names_it(builder):
    config = TextDataConfig(
        name="tfds:tiny_reviews", tfds_data_dir=str(builder.data_path.parent.parent), train="train",
        dev="test", text_a="sentence", text_b="other",
    )  # fmt: skip
    config.validate()
    assert find_labels(config) == ("bad", "good")
    assert len(list(open_split(config, "train", Oddities()))) == 3
    with pytest.raises(
        ValueError, match=r"config.data.test is empty; give a split of tfds:tiny_re"
    ):
        open_split(config, "test", Oddities())
    numbers = dataclasses.replace(config, label="score", kind="regression")
    assert find_labels(numbers) == ()
    assert {e.label for e in open_split(numbers, "train", Oddities())} == {0.5, 1.0, 2.5}


def test_what_is_not_there_is_named(builder, tmp_path):
    with pytest.raises(ValueError, match="has no feature 'text', it has idx, label, other, score,"):
        list(read_tfds(builder, "train", Columns(("text",))))
    with pytest.raises(ValueError, match="has no split 'dev', it has train, test"):
        list(read_tfds(builder, "dev", COLUMNS))
    with pytest.raises(ValueError, match="feature 'idx' is not text"):
        list(read_tfds(builder, "train", Columns(("idx",))))
    with pytest.raises(ValueError, match=r"no data set 'tiny_nothing' \(config.data.name\)"):
        open_builder("tiny_nothing", str(tmp_path))
    with pytest.raises(ValueError, match=r"'imdb_reviews' is not prepared in .*config.data.tfds_d"):
        open_builder("imdb_reviews", str(tmp_path))
