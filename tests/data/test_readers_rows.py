import io
import sys

import pytest

from xlnet_jax.data.readers_rows import Oddities, form_of, read_rows


def rows(tmp_path, text, form, **options):
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(row.line, row.values) for row in read_rows(path, form, **options)]


def test_tsv_has_no_quoting_and_keeps_blanks(tmp_path):
    text = 'a\t"b\r\n\r\n c \t\n\tlone\rreturn'
    assert rows(tmp_path, text, "tsv") == [
        (1, ["a", '"b']),
        (3, [" c ", ""]),
        (4, ["", "lone\rreturn"]),
    ]


def test_empty_rows_on_request(tmp_path):
    assert rows(tmp_path, "a\n\nb", "tsv", keep_empty=True) == [(1, ["a"]), (2, []), (3, ["b"])]


def test_csv_rows_begin_where_they_begin(tmp_path):
    text = 'a,"x\ny, ""z"""\n\nb,c\n'
    assert rows(tmp_path, text, "csv") == [(1, ["a", 'x\ny, "z"']), (4, ["b", "c"])]
    assert rows(tmp_path, 'a\t"x\ty"\n', "quoted_tsv") == [(1, ["a", "x\ty"])]


def test_long_fields_are_read(tmp_path):
    ((_, values),) = rows(tmp_path, f'"{"x" * 200_000}",1\n', "csv")
    assert len(values[0]) == 200_000


def test_a_quote_that_swallows_the_rest_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"file:2: a quote opens in this row and is never closed"):
        rows(tmp_path, 'a,b\nc,"d\ne,f\ng,h\n', "csv")
    # In the last line it swallows nothing, and the text is what the csv module makes of it.
    assert rows(tmp_path, 'a,b\nc,"d', "csv") == [(1, ["a", "b"]), (2, ["c", "d"])]


def test_jsonl(tmp_path):
    assert rows(tmp_path, '{"a": 1}\n\n{"a": [2]}\n', "jsonl") == [(1, {"a": 1}), (3, {"a": [2]})]
    with pytest.raises(ValueError, match=r"file:2: not JSON"):
        rows(tmp_path, '{"a": 1}\n{"a": \n', "jsonl")
    with pytest.raises(ValueError, match=r"file:1: wanted a JSON object, got list"):
        rows(tmp_path, "[1]\n", "jsonl")


def test_encodings(tmp_path):
    assert rows(tmp_path, "\ufeffa\tb\n", "tsv") == [(1, ["a", "b"])]
    assert rows(tmp_path, "é\tß".encode("latin-1"), "tsv", encoding="latin-1") == [(1, ["é", "ß"])]
    with pytest.raises(ValueError, match=r"not utf-8 somewhere after line \d.*config.data.encod"):
        rows(tmp_path, b"a\n\xff\n", "tsv")
    with pytest.raises(ValueError, match=r"config.data.encoding is 'klingon'"):
        rows(tmp_path, b"a\n", "tsv", encoding="klingon")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.tsv"):
        next(read_rows(tmp_path / "nowhere.tsv", "tsv"))


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä\tb\n".encode())))
    assert [row.values for row in read_rows("-", "tsv")] == [["ä", "b"]]
    assert not sys.stdin.buffer.closed


@pytest.mark.parametrize(
    ("path", "form", "found"),
    [("a.TSV", "auto", "tsv"), ("a.csv", "auto", "csv"), ("a.jsonl", "auto", "jsonl"),
     ("a.csv", "quoted_tsv", "quoted_tsv")],
)  # fmt: skip
def test_forms(path, form, found):
    assert form_of(path, form) == found


def test_unknown_forms():
    with pytest.raises(ValueError, match=r"unknown ending '.xlsx'; set config.data.form to one of"):
        form_of("a.xlsx")
    with pytest.raises(ValueError, match=r"config.data.form is 'xml', wanted auto or one of tsv"):
        form_of("a.tsv", "xml")


def test_oddities_are_counted_and_the_first_are_named():
    oddities = Oddities()
    for line in range(3, 10):
        oddities.add("rows dropped", "f", line)
    oddities.add("words cut", "f", 0, 12)
    oddities.add("rows dropped", "g", 1)
    assert oddities.lines() == [
        "f: 7 rows dropped (line 3, 4, 5, 6, 7, …)",
        "f: 12 words cut",
        "g: 1 rows dropped (line 1)",
    ]
    assert (oddities.count("f"), oddities.count()) == (19, 20)
