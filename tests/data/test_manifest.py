import dataclasses
import json
from pathlib import Path

import pytest

from xlnet_jax.data.manifest import Manifest, check_tokenizer, differences, mapping_differences
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer

ENGLISH = Path(__file__).parents[1] / "goldens/tokenization/en/spiece.model"
CHINESE = Path(__file__).parents[1] / "goldens/tokenization/zh/spiece.model"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(ENGLISH, Normalization("reference", lower=True))


@pytest.fixture
def manifest(tokenizer):
    return Manifest(
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        normalization=tokenizer.normalization.to_json(),
        use_eod=True,
        line_rules="reference",
        special_ids=dataclasses.asdict(tokenizer.special),
        dtype="uint16",
        totals={"tokens": 9, "sentences": 2, "documents": 1, "files": 1, "bytes": 30},
        counts={"lines": 2},
        shards=[{"name": "shard-00000", "tokens": 9, "sentences": 2, "documents": 1}],
        source={"input": ["a.txt"]},
    )


def test_a_manifest_is_read_as_written(tmp_path, manifest):
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_unreadable_manifests_say_what_is_wrong(tmp_path, manifest):
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json in .*did not finish there"):
        Manifest.read(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not JSON"):
        Manifest.read(tmp_path)
    path.write_text(json.dumps({**manifest.to_json(), "format": 99}))
    with pytest.raises(ValueError, match=r"has format 99, this version reads 1: make the shards"):
        Manifest.read(tmp_path)
    values = manifest.to_json()
    del values["dtype"]
    path.write_text(json.dumps({**values, "color": 1}))
    with pytest.raises(ValueError, match=r"missing or unknown fields: color, dtype"):
        Manifest.read(tmp_path)


def test_every_difference_gets_a_line(manifest):
    same = {"vocab_size": 2000, "normalization": {"lower": True}, "dtype": "uint16"}
    assert differences(manifest, same) == []
    wanted = {
        "vocab_size": 32000,
        "normalization": {"lower": False, "form": "reference"},
        "shards": [{"tokens": 8}, {"tokens": 1}],
        "seq_len": 512,
        "special_ids": {"cls": 3, "sep": 5},
    }
    assert differences(manifest, wanted) == [
        "vocab_size: the data have 2000, wanted 32000",
        "normalization.lower: the data have true, wanted false",
        "shards: the data have 1 entries, wanted 2",
        "shards[0].tokens: the data have 9, wanted 8",
        "seq_len: the data have (missing), wanted 512",
        "special_ids.sep: the data have 4, wanted 5",
    ]


def test_long_values_are_cut_where_differences_are_shown():
    (line,) = mapping_differences({"a": "x" * 500}, {"a": 1}, "found", "asked for")
    assert line == f'a: found "{"x" * 59}…, asked for 1'


def test_the_tokenizer_is_checked(manifest, tokenizer):
    check_tokenizer(manifest, tokenizer)
    with pytest.raises(
        ValueError, match=r"zh/spiece\.model is not the one .*tokenizer_sha256: the"
    ):
        check_tokenizer(manifest, Tokenizer(CHINESE, tokenizer.normalization))
    with pytest.raises(ValueError, match=r"made with: normalization\.lower: the data have true, w"):
        check_tokenizer(manifest, Tokenizer(ENGLISH, Normalization("reference")))


def test_a_data_folder_knows_its_tokenizer(tmp_path, manifest):
    (tmp_path / "spiece.model").write_bytes(ENGLISH.read_bytes())
    tokenizer = manifest.tokenizer(tmp_path)
    assert tokenizer.normalization == Normalization("reference", lower=True)
    (tmp_path / "spiece.model").write_bytes(CHINESE.read_bytes())
    with pytest.raises(ValueError, match="tokenizer_sha256"):
        manifest.tokenizer(tmp_path)
