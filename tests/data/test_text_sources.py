import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlnet_jax.data import text_sources
from xlnet_jax.data.text_blocks import Stretch, TextOptions
from xlnet_jax.data.text_sources import find_files, plan_units, read_blocks

OPTIONS = TextOptions()


def lines_of(path, options=OPTIONS, **changes):
    (found,), _ = find_files([str(path)], options)
    return [line for block in read_blocks(found, options) for line in block.lines]


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"\n\na\n\n", ["", "", "a", ""]),
        (b"a\r\nb\r\n", ["a\r", "b\r"]),
        # Only a newline ends a line: not U+2028, form feed, U+0085 or a lone carriage return.
        ("a\u2028b\x0cc\x85d\re\n".encode(), ["a\u2028b\x0cc\x85d\re"]),
    ],
)
def test_lines_end_at_newlines_only(tmp_path, raw, lines):
    (tmp_path / "a.txt").write_bytes(raw)
    assert lines_of(tmp_path / "a.txt") == lines
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(raw))
    assert lines_of(tmp_path / "a.txt.gz") == lines


@given(
    st.lists(st.text(alphabet="aé日 \r", max_size=9), min_size=1, max_size=12), st.integers(1, 9)
)
def test_blocks_of_any_size_hold_the_same_lines(tmp_path_factory, lines, block_bytes):
    path = tmp_path_factory.mktemp("blocks") / "a.txt"
    path.write_bytes("\n".join([*lines, "z"]).encode())
    (found,), _ = find_files([str(path)], OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_sources, "BLOCK_BYTES", block_bytes)
        blocks = list(read_blocks(found, OPTIONS))
    assert [line for block in blocks for line in block.lines] == [*lines, "z"]
    assert sum(block.consumed for block in blocks) == found.size


def test_json_documents_become_lines_with_a_blank_one_after_each(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "one\ntwo\n\n \nthree", "id": 1}, {"text": ""}, {"text": "é\u2028x"}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert lines_of(path) == ["one", "two", "three", "", "", "é\u2028x", ""]
    options = TextOptions(text_field="body")
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(b'{"body": "x"}'))
    assert lines_of(tmp_path / "b.ndjson.gz", options) == ["x", ""]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', r"line at byte 14: broken json \(Expecting"),
        ('["x"]', r"line at byte 14: wanted a json object, got a list"),
        ('{"body": "x"}', r"line at byte 14: no text in field 'text' \(--text_field\); .*are body"),
        ('{"text": 3}', r"field 'text' \(--text_field\) is 3, wanted a string"),
        ('{"text": null}', r"field 'text' \(--text_field\) is None, wanted a string"),
        ('{"text": "\\ud800"}', r"half of a surrogate pair in field 'text'"),
    ],
)
def test_wrong_json_is_named_with_its_place(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "é"}\n'.replace("é", "x") + line + "\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl: .*{message}"):
        lines_of(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_a_byte_order_mark_at_the_start_is_no_text(tmp_path, name):
    text = '{"text": "x"}\n{"text": "\ufeffy"}' if "json" in name else "x\n\n\ufeffy\n\n"
    content = text.encode("utf-8-sig")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [line for line in lines_of(path) if line] == ["x", "\ufeffy"]


def test_offsets_count_the_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc\xff\n")
    with pytest.raises(ValueError, match="invalid UTF-8 at byte 6 "):
        lines_of(path)


def test_invalid_utf8_is_named_with_its_byte_or_replaced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 7 + b"\n" + b"y\xff\n")
    with pytest.raises(
        ValueError, match=r"a\.txt: invalid UTF-8 at byte 9 \(0xff\).*--invalid_utf8=replace"
    ):
        lines_of(path)
    assert lines_of(path, TextOptions(invalid_utf8="replace")) == ["x" * 7, "y\ufffd"]
    zipped = tmp_path / "b.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match="byte 9 of the unpacked text"):
        lines_of(zipped)


@pytest.mark.parametrize("block_bytes", [4, 1 << 20])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nmore\n"])
def test_a_line_over_the_limit_is_named_with_its_place(tmp_path, monkeypatch, block_bytes, end):
    monkeypatch.setattr(text_sources, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "a.txt"
    options = TextOptions(max_line_bytes=20)
    path.write_bytes(b"short\n" + b"x" * 20 + end)
    assert lines_of(path, options)[1] == "x" * 20
    path.write_bytes(b"short\n" + b"x" * 21 + end)
    with pytest.raises(
        ValueError, match=r"a\.txt: the line at byte 6 is longer than 20 bytes.*--max_line_bytes"
    ):
        lines_of(path, options)


def test_a_line_over_the_limit_is_not_read_to_its_end(tmp_path, monkeypatch):
    read, whole = [], text_sources._read
    monkeypatch.setattr(text_sources, "BLOCK_BYTES", 16)
    monkeypatch.setattr(text_sources, "_read", lambda *args: read.append(args) or whole(*args))
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(ValueError, match="the line at byte 0 is longer than 20 bytes"):
        lines_of(tmp_path / "a.gz", TextOptions(max_line_bytes=20))
    assert len(read) < 5


def test_a_damaged_gzip_file_is_named(tmp_path):
    whole = gzip.compress(b"some text\n" * 1000)
    for name, raw in (("cut.gz", whole[:-12]), ("no.gz", b"plain text" * 500)):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ValueError, match=rf"{name}: the gzip file is damaged or cut short"):
            lines_of(tmp_path / name)


def test_files_are_found_by_name_glob_and_folder(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl", "deep/d.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")

    def names(*patterns):
        files, _ = find_files([str(tmp_path / pattern) for pattern in patterns], OPTIONS)
        return [file.path.removeprefix(f"{tmp_path}/") for file in files]

    assert names("*.txt", "a.txt") == ["a.txt", "b.txt"]
    assert names("") == ["a.txt", "b.txt", "c.jsonl"]
    assert names("**/*.txt") == ["a.txt", "b.txt", "deep/d.txt"]
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*/\*\.text' \(--input\)"):
        names("a.txt", "*.text")
    for packed in ("e.txt.zst", "e.tar.gz", "e.tgz"):
        (tmp_path / packed).write_text("x")
        with pytest.raises(ValueError, match=f"{packed}: only plain text, .gz and jsonl"):
            names(packed)


@pytest.mark.parametrize("name", ["a.json", "a.tsv", "a.csv.gz"])
def test_a_table_is_read_only_if_a_flag_says_as_what(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"x\n") if name.endswith(".gz") else b"x\n")
    with pytest.raises(ValueError, match=rf"{name}: wanted plain text or jsonl.*--text_format=js"):
        find_files([str(tmp_path / name)], TextOptions())
    (stretch,), _ = find_files([str(tmp_path / name)], TextOptions(text_format="jsonl"))
    assert stretch.kind == "jsonl"


def test_empty_files_are_refused_or_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match=r"b\.txt and 1 more: the file is empty \(--skip_empty"):
        find_files([str(tmp_path)], OPTIONS)
    skipping = TextOptions(skip_empty_files=True)
    files, empty = find_files([str(tmp_path)], skipping)
    assert [file.path[-5:] for file in files] == ["a.txt"]
    assert [path[-5:] for path in empty] == ["b.txt", "/c.gz"]
    with pytest.raises(ValueError, match="all 1 input files are empty"):
        find_files([str(tmp_path / "b.txt")], skipping)


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"'csv': wanted one of auto, text, jsonl, ids \(--text_f"):
        TextOptions(text_format="csv")
    with pytest.raises(ValueError, match="--invalid_utf8 is 'ignore'"):
        TextOptions(invalid_utf8="ignore")
    with pytest.raises(ValueError, match="--max_line_bytes is 0"):
        TextOptions(max_line_bytes=0)


def test_large_files_are_cut_after_documents_and_small_ones_share(tmp_path):
    documents = [f"line {i} of some length\n" * (i % 5 + 1) + "\n \n" for i in range(200)]
    text = "".join(documents).encode()
    (tmp_path / "big.txt").write_bytes(text)
    for i in range(6):
        (tmp_path / f"small{i}.txt").write_bytes(b"x" * 400 + b"\n")
    files, _ = find_files([str(tmp_path)], OPTIONS)
    units = plan_units(files, 1000, OPTIONS.max_line_bytes)
    stretches = [stretch for unit in units for stretch in unit]
    of_big = [s for s in stretches if s.path.endswith("big.txt")]
    assert [s.begin for s in of_big] == [0, *(s.end for s in of_big[:-1])]
    assert of_big[-1].end == len(text)
    assert [s.ends_file for s in of_big] == [False] * (len(of_big) - 1) + [True]
    assert len(of_big) > 5
    for stretch in of_big[1:]:
        assert text[: stretch.begin].endswith(b"\n \n")
        assert text[stretch.begin :].startswith(b"line")
    assert all(sum(s.size for s in unit) <= 2000 for unit in units)
    assert any(len(unit) == 3 for unit in units)
    read = b"".join(
        ("\n".join(block.lines) + "\n").encode()
        for stretch in of_big
        for block in read_blocks(stretch, OPTIONS)
    )
    assert read == text


def test_a_file_without_documents_is_cut_after_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"no blank line here\n" * 500)
    (unit_of, *_) = units = plan_units([Stretch(str(path), 0, 9500, "text")], 1024, 100)
    assert len(units) > 5
    assert all(stretch.begin % 19 == 0 for unit in units for stretch in unit)
    assert 1024 <= unit_of[0].size < 1100
    path.write_bytes(b"no blank line here\n" * 100 + b"\n" + b"the line after it\n" * 450)
    (unit_of, second, *_) = plan_units([Stretch(str(path), 0, 10001, "text")], 1024, 100)
    assert max(unit_of[0].size, second[0].size) < 1100  # the blank line is too far away
    path.write_bytes(b"x" * 9500)
    with pytest.raises(ValueError, match=r"a\.txt: the line at byte 1024 is longer than 100"):
        plan_units([Stretch(str(path), 0, 9500, "text")], 1024, 100)
