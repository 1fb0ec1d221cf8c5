import re

import pytest

from xlnet_jax.data.readers import (
    Columns,
    has_column,
    natural_order,
    read_examples,
    read_folders,
    read_text,
)
from xlnet_jax.data.readers_rows import Oddities

NAMED = Columns(("text",), ("other",), "label", "key")


def read(path, columns, form="tsv", oddities=None, **options):
    found = read_examples(
        path, "dev", columns, form=form, oddities=oddities or Oddities(), **options
    )
    return list(found)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.tsv"
    path.write_text("key\ttext\tother\tlabel\nk1\ta b\tc\tyes\nshort\nk2\t\td\tno\n")
    return path


def test_columns_by_name_and_by_number_are_the_same(file):
    first, second = read(file, NAMED)
    assert (first.guid, first.text_a, first.text_b, first.label) == ("k1", "a b", "c", "yes")
    assert (second.text_a, second.line, second.place) == ("", 4, f"{file}:4")
    assert read(file, Columns((1,), ("2",), -1, 0)) == [first, second]


def test_names_count_all_but_empty_rows(file):
    assert [e.guid for e in read(file, Columns((1,), (), 3))] == ["dev-1", "dev-3"]
    plain = Columns((1,), header=False)
    assert [e.guid for e in read(file, plain)] == ["dev-0", "dev-1", "dev-3"]
    assert [e.guid for e in read(file, plain, unnamed_rows=True)] == ["0", "1", "3"]


def test_several_columns_make_one_text(file):
    assert [e.text_a for e in read(file, Columns(("text", "other")))] == ["a b c", " d"]
    upper = read(file, Columns(("text", "other")), clean_text=str.upper)
    assert upper[0].text_a == "A B C"


def test_ragged_rows_are_counted_and_named(file):
    oddities = Oddities()
    assert len(read(file, NAMED, oddities=oddities)) == 2
    assert oddities.lines() == [f"{file}: 1 rows dropped, fewer than 4 columns (line 3)"]


def test_a_missing_column_shows_what_there_is(file):
    message = (
        f"{file} has no column 'sentence' (config.data.text_a); its header has 'key', 'text',"
        " 'other', 'label'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read(file, Columns(("sentence",)))
    with pytest.raises(ValueError, match=r"config.data.label is 'x', wanted a column number"):
        read(file, Columns((0,), (), "x", header=False))


def test_two_columns_of_one_name(tmp_path):
    path = tmp_path / "twice.tsv"
    path.write_text("a\ta\n1\t2\n")
    with pytest.raises(ValueError, match=r"several columns 'a'; give a number for config.data.tex"):
        read(path, Columns(("a",)))
    assert read(path, Columns(("1",)))[0].text_a == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no examples$"), ("text\n", "holds no examples$"),
     ("text\tb\nx\ny\n", r"\(2 rows dropped, fewer than 2 columns \(line 2, 3\)\); want")],
)  # fmt: skip
def test_an_empty_split(tmp_path, text, message):
    path = tmp_path / "empty.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path, Columns(("text",), (), 1))


def test_jsonl_examples(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(
        '{"text": "a\\nb", "label": 3, "other": "c", "key": 7}\n{"text": "x"}\n'
        '{"text": "y", "label": null, "other": "", "key": "k"}\n'
    )
    oddities = Oddities()
    (example,) = read(path, NAMED, "jsonl", oddities)
    assert (example.guid, example.text_a, example.label) == ("7", "a\nb", "3")
    assert oddities.lines() == [
        f"{path}: 1 rows dropped, no value for other, label, key (line 2)",
        f"{path}: 1 rows dropped, no value for label (line 3)",
    ]
    path.write_text('{"text": 5}\n')
    with pytest.raises(ValueError, match=r"some.jsonl:1: 'text' is 5, wanted text"):
        read(path, Columns(("text",)), "jsonl")


def test_has_column(file, tmp_path):
    assert has_column(file, "tsv", NAMED, "label")
    assert not has_column(file, "tsv", NAMED, "labels")
    assert has_column(file, "tsv", NAMED, "3")
    assert not has_column(file, "tsv", NAMED, 4)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n')
    assert has_column(path, "jsonl", NAMED, "text")
    assert not has_column(path, "jsonl", NAMED, "label")


def test_folders(tmp_path):
    for name, text in {"pos/10_1.txt": "ten ", "pos/9_1.txt": "nine", "neg/0.txt": "zero"}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "pos/readme.md").write_text("not an example")
    found = list(read_folders(tmp_path, ("pos", "neg"), clean_text=str.strip))
    assert [(e.text_a, e.label) for e in found] == [
        ("nine", "pos"), ("ten", "pos"), ("zero", "neg"),
    ]  # fmt: skip
    assert [e.label for e in read_folders(tmp_path)] == ["neg", "pos", "pos"]
    with pytest.raises(FileNotFoundError, match=r"no folder .*neutral, wanted one for each label"):
        list(read_folders(tmp_path, ("neutral",)))
    with pytest.raises(FileNotFoundError, match="wanted one with a folder a label"):
        list(read_folders(tmp_path / "nowhere"))


def test_text_of_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n")
    assert read_text(path) == "a\r\n"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a.txt is not utf-8 text: .*config.data.encoding"):
        read_text(path)


def test_natural_order():
    names = ["10.txt", "9.txt", "a2b", "a10", "a", ""]
    assert sorted(names, key=natural_order) == ["", "9.txt", "10.txt", "a", "a2b", "a10"]
