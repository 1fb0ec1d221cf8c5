"""A TFDS data set made on the spot; nothing is downloaded."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from xlnet_jax.data.corpus import CorpusConfig, build_corpus
from xlnet_jax.data.manifest import Manifest
from xlnet_jax.data.text_blocks import TextOptions
from xlnet_jax.data.tfds_text import parse_name
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

MODEL = Path(__file__).parents[1] / "goldens/tokenization/en/spiece.model"
TEXTS = [f"the old miller {i}\n\nfound é {i} apples" for i in range(40)] + ["  ", "end"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    path = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict({"body": tfds.features.Text(), "id": np.int64})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_text", version="1.2.0", data_dir=path, features=features,
        split_datasets={
            "train": tf.data.Dataset.from_tensor_slices({"body": TEXTS, "id": range(len(TEXTS))})
        },
    )  # fmt: skip
    return str(path)


@pytest.fixture
def config(data_dir, tmp_path):
    return CorpusConfig(
        tfds="tiny_text", output_dir=str(tmp_path / "out"), spiece_model=str(MODEL),
        text=TextOptions(text_field="body", tfds_data_dir=data_dir), num_workers=1, progress=False,
    )  # fmt: skip


def read(folder):
    names = [shard["name"] for shard in Manifest.read(folder).shards]
    parts = [np.fromfile(Path(folder) / f"{name}.tokens", "<u2") for name in names]
    return np.concatenate(parts).tolist()


def test_a_tfds_data_set_becomes_shards(config, tmp_path):
    manifest = build_corpus(config, print)
    tokenizer = Tokenizer(MODEL)
    wanted = []
    for text in TEXTS:
        lines = [tokenizer.encode(line) for line in text.split("\n")]
        tokens = [i for line in lines for i in line]
        wanted.append(tuple([*tokens, tokenizer.special.eod] if tokens else []))
    tokens = read(config.output_dir)
    documents, begin = [], 0
    for end in np.flatnonzero(np.array(tokens) == tokenizer.special.eod).tolist():
        documents.append(tuple(tokens[begin : end + 1]))
        begin = end + 1
    assert sorted(documents) == sorted(document for document in wanted if document)
    assert manifest.totals["documents"] == 41
    assert manifest.totals["sentences"] == 81
    assert manifest.counts["documents_without_text"] == 1
    units = dataclasses.replace(config, output_dir=str(tmp_path / "units"), unit_bytes=1024)
    assert len(build_corpus(units, print).shards) > 1
    assert read(units.output_dir) == tokens


def test_a_vocabulary_is_trained_from_a_tfds_data_set(config, tmp_path):
    path = train_vocabulary(
        VocabularyConfig(
            tfds="tiny_text:train", output_prefix=str(tmp_path / "v"), text=config.text,
            vocab_size=52, num_threads=1, progress=False,
        ),
        print,
    )  # fmt: skip
    assert "é" in Tokenizer(path).pieces


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tfds": "no_such_set"}, r"TFDS has no data set 'no_such_set' \(--tfds\)"),
        ({"tfds": "tiny_text:test"}, r"no split 'test': wanted one of train \(--tfds=NAME:SPLIT\)"),
        (
            {"tfds": "imdb_reviews"},
            r"'imdb_reviews' is not prepared in .* point --tfds_data_dir at it",
        ),
        ({"input": ("a",)}, r"either --input \(files\) or --tfds"),
    ],
)
def test_wrong_names_get_one_clear_line(config, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_corpus(dataclasses.replace(config, **changes), print)
    assert "\n" not in str(caught.value)


def test_a_wrong_field_is_named(config):
    text = dataclasses.replace(config.text, text_field="text")
    with pytest.raises(
        ValueError, match=r"no feature 'text': wanted one of body, id \(--text_field"
    ):
        build_corpus(dataclasses.replace(config, text=text), print)


@pytest.mark.parametrize(
    ("text", "name", "split"),
    [
        ("wiki40b/en", "wiki40b/en", "train"),
        ("wiki40b/en:test", "wiki40b/en", "test"),
        ("wiki40b/en:1.3.0", "wiki40b/en:1.3.0", "train"),
        ("wiki40b/en:1.3.0:validation", "wiki40b/en:1.3.0", "validation"),
    ],
)
def test_names_have_a_split(text, name, split):
    assert parse_name(text) == (name, split)
