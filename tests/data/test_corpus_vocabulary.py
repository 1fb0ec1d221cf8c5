"""Shards built into a folder in use: whose vocabulary cuts the text, and as which user."""

import dataclasses
import pwd
from pathlib import Path

import pytest

from tests.data.test_corpus import CONFIG, GOLDENS, MODEL, build, read
from xlnet_jax.data.manifest import Manifest


@pytest.fixture
def config(tmp_path):
    return dataclasses.replace(CONFIG, output_dir=str(tmp_path / "out"))


def test_the_vocabulary_in_the_folder_can_be_the_one_to_build_anew_with(config):
    build(config, heldout_every=3)
    kept = Path(config.output_dir) / "spiece.model"
    build(config, spiece_model=str(kept), use_eod=False, overwrite=True)
    assert kept.read_bytes() == MODEL.read_bytes()
    assert not Manifest.read(config.output_dir).use_eod


def test_another_vocabulary_in_the_folder_is_never_the_one_that_cuts_the_text(config, tmp_path):
    chinese = GOLDENS / "tokenization/zh/spiece.model"
    Path(config.output_dir).mkdir()
    there = Path(config.output_dir) / "spiece.model"
    there.write_bytes(chinese.read_bytes())
    with pytest.raises(ValueError, match=r"another vocabulary than --spiece_model=.*--overwrite"):
        build(config)
    assert there.read_bytes() == chinese.read_bytes()
    manifest, _ = build(config, overwrite=True)
    assert manifest.tokenizer(config.output_dir).sha256 == manifest.tokenizer_sha256
    build(config, output_dir=str(tmp_path / "fresh"))
    assert read(config.output_dir) == read(tmp_path / "fresh")


def test_each_build_of_a_process_cuts_the_text_with_its_own_vocabulary(config, tmp_path):
    chinese = str(GOLDENS / "tokenization/zh/spiece.model")
    build(config)
    build(config, spiece_model=chinese, overwrite=True)
    build(config, spiece_model=chinese, output_dir=str(tmp_path / "other"))
    assert read(config.output_dir) == read(tmp_path / "other")


def test_the_system_need_not_know_the_user(config, monkeypatch):
    """As in containers that run as a number."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    build(config)
