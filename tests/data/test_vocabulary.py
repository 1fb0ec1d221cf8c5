import dataclasses
import json
from pathlib import Path

import pytest

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.text_blocks import TextOptions
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.data.vocabulary import (
    CONTROL_SYMBOLS,
    VocabularyConfig,
    train_vocabulary,
)

CORPUS = Path(__file__).parents[1] / "goldens/data_utils/corpus"
LINES = 89
CONTROL = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
SPECIAL = [*CONTROL, *'.()"-–£€']


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = (CORPUS / "a_plain.txt").read_text() + (CORPUS / "f_more.txt").read_text()
    path.write_text(lines + '\n\nKäse "がぎ", (£1-€2) – x.\n  \t \n')
    return path


@pytest.fixture
def config(text, tmp_path):
    return VocabularyConfig(
        input=(str(text),), output_prefix=str(tmp_path / "v"), vocab_size=200, num_threads=2,
        character_coverage=1.0, progress=False,
    )  # fmt: skip


def test_special_symbols_have_the_released_ids(config):
    reports: list[str] = []
    path = train_vocabulary(config, reports.append)
    tokenizer = Tokenizer(path)
    assert tokenizer.pieces[:17] == SPECIAL
    assert tokenizer.vocab_size == 200
    assert reports == [f"200 pieces from {LINES} lines: {path}"]
    rows = path.with_suffix(".vocab").read_text().split("\n")
    assert [row.split("\t")[0] for row in rows[:-1]] == tokenizer.pieces
    assert all(len(tokenizer.encode_as_pieces(mark)) == 2 for mark in '()"-–£€.')


def test_defaults_are_the_originals_flags():
    config = VocabularyConfig()
    assert (config.vocab_size, config.character_coverage) == (32000, 0.99995)
    assert (config.model_type, config.input_sentence_size) == ("unigram", 10_000_000)
    assert config.shuffle_input_sentence
    assert config.control_symbols == CONTROL_SYMBOLS


def test_the_same_text_gives_the_same_bytes_wherever_it_is_written(config, tmp_path):
    first = train_vocabulary(config, print).read_bytes()
    other = dataclasses.replace(config, output_prefix=str(tmp_path / "deep/er/w"))
    assert train_vocabulary(other, print).read_bytes() == first


def stored(config):
    return json.loads(Path(f"{config.output_prefix}.json").read_text())


def test_a_vocabulary_says_how_it_was_made(config):
    train_vocabulary(config, print)
    made = stored(config)
    assert made["settings"]["vocab_size"] == 200
    assert made["settings"]["normalization"] == Normalization().to_json()
    assert made["counts"]["lines"] == LINES


def test_text_is_cleaned_before_training(config, tmp_path):
    plain = Tokenizer(train_vocabulary(config, print)).pieces
    assert {"が", "ä"} <= set(plain)
    reports: list[str] = []
    reference = dataclasses.replace(
        config, output_prefix=str(tmp_path / "r"),
        normalization=Normalization("reference", lower=True),
    )  # fmt: skip
    pieces = Tokenizer(train_vocabulary(reference, reports.append)).pieces
    assert {"か", "き"} <= set(pieces)
    assert not {"が", "ä", "K"} & set("".join(pieces[17:]))
    # ä, が and ぎ of some 5,000 code points are too few for the warning.
    assert not any("warning" in line for line in reports)


def test_json_text_trains_the_same_vocabulary(config, text, tmp_path):
    rows = [json.dumps({"body": part}) for part in text.read_text().split("\n\n")]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    other = dataclasses.replace(
        config, input=(str(tmp_path / "text.jsonl"),), output_prefix=str(tmp_path / "j"),
        text=TextOptions(text_field="body"),
    )  # fmt: skip
    assert (
        train_vocabulary(other, print).read_bytes() == train_vocabulary(config, print).read_bytes()
    )


def test_a_clean_up_that_loses_much_is_warned_about(config, tmp_path):
    (tmp_path / "ja.txt").write_text("がぎぐげご ざじずぜぞ\n" * 30)
    reports: list[str] = []
    train_vocabulary(
        dataclasses.replace(
            config, input=(str(tmp_path / "ja.txt"),), normalization=Normalization("reference"),
            vocab_size=29,
        ),
        reports.append,
    )  # fmt: skip
    assert (
        "warning: --normalization=reference replaces or drops 90.9% of the code points"
        in (reports[-1])
    )


def test_overlong_lines_are_counted(config):
    reports: list[str] = []
    train_vocabulary(dataclasses.replace(config, max_sentence_bytes=80), reports.append)
    left_out = stored(config)["counts"]["too_long"]
    assert 0 < left_out < LINES
    assert reports[1].startswith(
        f"warning: {left_out} of {LINES} lines were left out, longer than --max"
    )
    with pytest.raises(
        ValueError, match=f"no line of the text can be used: {LINES} lines, all of them lo"
    ):
        train_vocabulary(dataclasses.replace(config, max_sentence_bytes=11, overwrite=True), print)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 30000}, r"--vocab_size is 30000, more .*: give at most \d+, or more text$"),
        ({"vocab_size": 40}, r"--vocab_size is 40, less than the \d+ characters .*raise it"),
        ({"vocab_size": 17}, r"--vocab_size is 17: wanted over 17"),
        ({"control_symbols": ("<cls>", "<eod>")}, r"lacks <sep>, <pad>, <mask>"),
        ({"character_coverage": 98.0}, r"--character_coverage is 98.0: wanted 0.9 to 1.0"),
        ({"model_type": "wordpiece"}, r"'wordpiece': wanted unigram"),
        ({"input": ()}, r"wanted either --input \(files\) or --tfds"),
        ({"output_prefix": ""}, r"--output_prefix is missing"),
        ({"max_sentence_bytes": 9}, r"--max_sentence_bytes is 9: wanted at least 10"),
        ({"seed": -1}, r"--seed is -1"),
        ({"num_threads": 0}, r"--num_threads is 0: wanted at least 1"),
        ({"input_sentence_size": 100}, r"--input_sentence_size is 100: wanted more than 100 lines"),
        ({"normalization_rule": "none"}, r"SentencePiece could not train: .*none"),
    ],
)
def test_wrong_settings_get_one_clear_line(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        train_vocabulary(dataclasses.replace(config, **changes), print)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("v.*")) == []


def test_wrong_text_is_named_as_it_is_for_the_corpus(config, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"fine\n" * 50 + b"\xfe\n")
    with pytest.raises(ValueError, match=r"bad\.txt: invalid UTF-8 at byte 250"):
        train_vocabulary(dataclasses.replace(config, input=(str(tmp_path / "bad.txt"),)), print)
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match="no line of the text can be used: all of them are blank"):
        train_vocabulary(dataclasses.replace(config, input=(str(tmp_path / "blank.txt"),)), print)


def test_an_existing_vocabulary_is_kept(config):
    path = train_vocabulary(config, print)
    before = path.read_bytes()
    again = dataclasses.replace(config, vocab_size=190)
    with pytest.raises(
        ValueError, match=r"v\.model exists: choose another --output_prefix, or --ov"
    ):
        train_vocabulary(again, print)
    assert path.read_bytes() == before
    train_vocabulary(dataclasses.replace(again, overwrite=True), print)
    assert Tokenizer(path).vocab_size == 190
