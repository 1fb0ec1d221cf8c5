"""A corpus whose first attempt failed, and the same command with what the error asked for."""

import json

import pytest

from tests.data.test_corpus import MODEL, build, contents
from xlnet_jax.data.corpus import CorpusConfig
from xlnet_jax.data.text_blocks import TextOptions


@pytest.fixture
def config(tmp_path):
    return CorpusConfig(
        input=(str(tmp_path / "*.txt"),), output_dir=str(tmp_path / "out"), num_workers=1,
        spiece_model=str(MODEL), progress=False, unit_bytes=1024,
    )  # fmt: skip


def test_a_start_without_any_shard_binds_to_nothing(config, tmp_path):
    (tmp_path / "a.txt").write_text('{"body": "One sentence."}\n')
    with pytest.raises(ValueError, match="no text in field 'text'"):
        build(config, text=TextOptions("jsonl"))
    manifest, _ = build(config, text=TextOptions("jsonl", text_field="body"))
    assert manifest.source["text_field"] == "body"
    with pytest.raises(ValueError, match="holds shards made otherwise"):
        build(config, text=TextOptions("jsonl"))


def test_bytes_to_replace_leave_finished_shards_valid(config, tmp_path):
    (tmp_path / "a.txt").write_text("One sentence.\n" * 100)
    (tmp_path / "b.txt").write_bytes(b"Another \xff one.\n" * 100)
    with pytest.raises(ValueError, match="--invalid_utf8=replace"):
        build(config)
    replaced = TextOptions(invalid_utf8="replace")
    _, reports = build(config, text=replaced)
    assert reports[0] == "resuming: 1 of 2 units are finished"
    assert json.loads((tmp_path / "out/build.json").read_text())["invalid_utf8"] == "replace"
    resumed = contents(config.output_dir)
    build(config, text=replaced, output_dir=str(tmp_path / "anew"))
    assert resumed == contents(tmp_path / "anew")
    with pytest.raises(ValueError, match="invalid_utf8"):
        build(config)
