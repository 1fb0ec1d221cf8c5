import dataclasses
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.readers import TextExample
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.text_config import TextDataConfig
from xlnet_jax.tasks.text_splits import (
    evaluation_splits,
    find_labels,
    label_reader,
    make_split,
    open_split,
)

GOLDENS = Path(__file__).parents[1] / "goldens"
TOKENIZER = Tokenizer(GOLDENS / "tokenization/en/spiece.model", Normalization("reference"))
FILES = GOLDENS / "classifier_features/data"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def split(config, name="train", labels=None):
    config.validate()
    oddities = Oddities()
    names = find_labels(config) if labels is None else labels
    return make_split(
        open_split(config, name, oddities),
        TOKENIZER,
        labels=names,
        max_length=config.max_seq_length,
        oddities=oddities,
    )


def test_labels_are_found_in_the_training_data(write):
    config = TextDataConfig(train=write("a.csv", "text,label\na,zoo\nb,bar\nc,zoo\n"))
    assert find_labels(config) == ("bar", "zoo")
    assert split(config).labels.tolist() == [1, 0, 1]
    numbers = TextDataConfig(train=write("b.csv", "text,label\na,10\nb,9\nc,-1\n"))
    assert find_labels(numbers) == ("-1", "9", "10")
    # Nothing is left to the order of a set, which every process has its own of.
    spellings = [f"{zeros}{number}" for number in range(1, 6) for zeros in ("00", "0", "")]
    rows = "".join(f"a,{label}\n" for label in spellings)
    alike = TextDataConfig(train=write("c.csv", f"text,label\n{rows}"))
    assert find_labels(alike) == tuple(spellings)
    given = dataclasses.replace(config, labels=("zoo", "bar", "new"))
    assert split(given).labels.tolist() == [0, 1, 0]
    assert split(given).labels.dtype == np.int32


def test_regression(write):
    config = TextDataConfig(
        train=write("a.jsonl", '{"text": "a", "label": 2}\n'), kind="regression"
    )
    found = split(config)
    assert (found.labels.tolist(), found.labels.dtype) == ([2.0], np.float32)


def test_several_labels(write):
    text = "text\tlabel\na\tx, y\nb\t\nc\ty\n"
    config = TextDataConfig(train=write("a.tsv", text), kind="multi_label")
    assert find_labels(config) == ("x", "y")
    assert split(config).labels.tolist() == [[True, True], [False, False], [False, True]]
    listed = write("a.jsonl", '{"text": "a", "label": ["y"]}\n{"text": "b", "label": ["x"]}\n')
    assert split(dataclasses.replace(config, train=listed)).labels.tolist() == [
        [False, True], [True, False],
    ]  # fmt: skip


def test_labels_of_json():
    one = label_reader("classification")
    assert [one(value) for value in (3, True, 0.5, "x")] == ["3", "true", "0.5", "x"]
    with pytest.raises(ValueError, match="the label is None, wanted text or a number"):
        one(None)


def test_an_unknown_label_is_placed(write):
    config = TextDataConfig(
        train=write("a.csv", "text,label\na,x\nb,y\n"), dev=write("b.csv", "text,label\na,x\nb,z\n")
    )
    with pytest.raises(ValueError, match=r"b.csv:3: unknown label 'z', wanted one of 'x', 'y' "):
        split(config, "dev")


def test_labels_of_some_examples_only():
    examples = [
        TextExample(str(i), "a", None, label, "f", i) for i, label in enumerate(["x", None])
    ]
    with pytest.raises(ValueError, match="f: 1 of 2 examples have no label"):
        make_split(iter(examples), TOKENIZER, labels=("x", "y"), max_length=8, oddities=Oddities())


def test_one_label_is_not_enough(write):
    config = TextDataConfig(train=write("a.csv", "text,label\na,x\nb,x\n"))
    with pytest.raises(ValueError, match=r"has the labels \['x'\], wanted at least two"):
        find_labels(config)


def test_test_files_may_lack_labels(write):
    config = TextDataConfig(
        train=write("a.csv", "text,label\na,x\nb,y\n"), test=write("b.csv", "text\nc\nd\n")
    )
    found = split(config, "test")
    assert (found.labels, found.guids) == (None, ["test-1", "test-2"])
    with pytest.raises(ValueError, match=r"has no column 'label' \(config.data.label\)"):
        split(dataclasses.replace(config, dev=config.test), "dev")


def test_what_is_cut_or_dropped_is_said(write):
    path = write("a.csv", "text,label\na b c d e f g h i j,x\nshort\nb,y\n")
    found = split(TextDataConfig(train=path, max_seq_length=8))
    assert found.notes == [
        f"{path}: 1 rows dropped, fewer than 2 columns (line 3)",
        f"{path}: 1 of 2 texts cut to 8 tokens (config.data.max_seq_length)",
    ]
    assert found.tokens.lengths.max() == 8


def test_pairs(write):
    config = TextDataConfig(train=write("a.csv", "text,b,label\na,,x\nb,c,y\n"), text_b="b")
    first, second = split(config).segments
    assert (first.tolist().count(1), second.tolist().count(1)) == (0, 2)


def test_published_sets():
    config = TextDataConfig(name="mnli", folder=str(FILES / "MNLI"))
    assert evaluation_splits(config) == ("dev", "dev_mismatched")
    found = split(config, "dev_mismatched")
    assert found.labels.tolist()[:3] == [1, 2, 0]
    assert split(config, "test").labels is None
    assert split(config).notes[0].endswith("1 rows dropped, fewer than 10 columns (line 5)")
    own = dataclasses.replace(config, dev=str(FILES / "MNLI/dev_matched.tsv"))
    assert split(own, "dev").guids == split(config, "dev").guids


def test_a_file_in_the_place_of_a_published_one_may_name_its_columns(write):
    path = write("new.tsv", "sentence2\tsentence1\nb\ta c\n")
    config = TextDataConfig(
        name="mnli", folder="nowhere", test=path, text_a="sentence1", text_b="sentence2"
    )
    found = split(config, "test")
    assert found.tokens[0].tolist() == [
        *TOKENIZER.encode("a c"), 4, *TOKENIZER.encode("b"), 4, 3,
    ]  # fmt: skip


def test_other_texts_are_cleaned_as_the_published_ones(write, monkeypatch):
    path = write("new.tsv", "text_b\ttext_a\nb b\ta c\n")
    config = TextDataConfig(
        name="xnli/zh", folder=str(FILES / "XNLI"), test=path, text_a="text_a", text_b="text_b"
    )
    pair = [*TOKENIZER.encode("ac"), 4, *TOKENIZER.encode("bb"), 4, 3]
    assert split(config, "test").tokens[0].tolist() == pair
    feed(monkeypatch, "a c\tb b\n")
    assert split(dataclasses.replace(config, test="-"), "test").tokens[0].tolist() == pair


def test_xnli_files_in_each_others_place_are_of_one_language():
    config = TextDataConfig(name="xnli/zh", folder=str(FILES / "XNLI"))
    swapped = dataclasses.replace(config, dev=str(FILES / "XNLI/xnli.test.tsv"))
    wanted = [row.tolist() for row in split(config, "test").tokens]
    assert [row.tolist() for row in split(swapped, "dev").tokens] == wanted


def feed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize("text", ["a c\tb\nd\n", "label\ttext_b\ttext\nx\tb\ta c\nx\t\td\n"])
def test_standard_input(monkeypatch, text):
    feed(monkeypatch, text)
    config = TextDataConfig(test="-", text_b="text_b", labels=("x", "y"))
    found = split(config, "test")
    assert found.labels is None
    pair = [*TOKENIZER.encode("a c"), 4, *TOKENIZER.encode("b"), 4, 3]
    assert [row.tolist() for row in found.tokens] == [pair, [*TOKENIZER.encode("d"), 4, 3]]


def test_a_tab_in_a_single_text_is_a_blank(monkeypatch):
    feed(monkeypatch, "a\tc\n")
    found = split(TextDataConfig(test="-", labels=("x", "y")), "test")
    assert found.tokens[0].tolist() == [*TOKENIZER.encode("a c"), 4, 3]
    feed(monkeypatch, "")
    with pytest.raises(ValueError, match="- holds no examples"):
        split(TextDataConfig(test="-", labels=("x", "y")), "test")


def test_folders_of_own_texts(tmp_path):
    for name in ("b/1.txt", "a/1.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    config = TextDataConfig(train=str(tmp_path), form="folders")
    assert find_labels(config) == ("a", "b")
    assert split(config).labels.tolist() == [0, 1]


def test_a_folder_in_the_place_of_a_published_one_is_read_like_it(tmp_path):
    for label in ("neg", "pos", "unsup"):  # as IMDB's own training folder has them
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text(" good<br />bad\n")
    config = TextDataConfig(name="imdb", folder="unpacked", dev=str(tmp_path))
    for form in ("auto", "folders"):
        found = list(open_split(dataclasses.replace(config, form=form), "dev", Oddities()))
        assert [(e.label, e.text_a) for e in found] == [("neg", "good bad"), ("pos", "good bad")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "xml"}, "config.data.form is 'xml', wanted one of auto, tsv"),
        ({"kind": "ranking"}, "config.data.kind is 'ranking', wanted one of auto, classification"),
        ({"labels": ("a",)}, "config.data.labels is ('a',), wanted at least two, each once"),
        ({"labels": ("a", "a")}, "config.data.labels is ('a', 'a'), wanted at least two"),
        ({"labels": (1, 2)}, "config.data.labels is (1, 2), wanted a tuple of texts"),
        ({"max_seq_length": 3}, "config.data.max_seq_length is 3, wanted at least 4"),
        ({"text_a": ""}, "config.data.text_a is empty; give the column of the text"),
        ({"kind": "multi_label", "label_separator": ""}, "config.data.label_separator is empty"),
        ({"name": "rte"}, "config.data.folder is empty; give the folder of 'rte', with train.tsv"),
        ({"name": "rte", "folder": "x", "kind": "regression"}, "are those of 'rte'; leave them"),
        ({"name": "glue"}, "config.data.name is 'glue', wanted one of cola"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TextDataConfig(**changes).validate()


def test_a_split_that_is_not_given():
    with pytest.raises(ValueError, match=r"config.data.dev is empty; set --config.data.dev=FILE"):
        open_split(TextDataConfig(), "dev", Oddities())
    with pytest.raises(ValueError, match=r"no split 'tset', wanted one of train, dev, test$"):
        open_split(TextDataConfig(), "tset", Oddities())
    assert evaluation_splits(TextDataConfig()) == ()
    assert evaluation_splits(TextDataConfig(name="tfds:x", dev="test")) == ("dev",)


def test_every_line_has_an_answer_of_its_own(write, monkeypatch):
    def texts(config, given=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        return [example.text_a for example in open_split(config, "test", Oddities())]

    lines = TextDataConfig(test=write("lines.txt", "one\n\nthree\n"), form="lines")
    assert texts(lines) == ["one", "", "three"]
    stdin = TextDataConfig(test="-")
    assert texts(stdin, b"\none\n\nthree") == ["", "one", "", "three"]
    assert texts(stdin, b"\ntext\none\n\nthree\n") == ["one", "three"]  # a table


def test_kinds():
    assert TextDataConfig().resolved_kind == "classification"
    assert TextDataConfig(name="sts-b").resolved_kind == "regression"
    assert TextDataConfig(name="cola").resolved_kind == "classification"
    assert TextDataConfig(kind="multi_label").resolved_kind == "multi_label"
