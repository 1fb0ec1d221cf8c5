"""The original's own reading of RACE is compared in tests/parity."""

import io
import json
import re
import sys

import pytest

from xlnet_jax.data.readers_race import read_race

DATA = {
    "article": "A text.",
    "questions": ["What is _ and _?", "Who?"],
    "options": [["x", "y"], ["he", "she"]],
    "answers": ["B", "A"],
}


@pytest.fixture
def write(tmp_path):
    def write(name, data=DATA, **changes):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**data, **changes}))
        return path

    return write


def test_options_fill_the_blanks_or_follow_the_question(write):
    first, second = read_race(write("q.txt"))
    assert first.choices == ("What is x and x?", "What is y and y?")
    assert second.choices == ("Who? he", "Who? she")
    assert [first.label, second.label] == [1, 0]
    assert (first.guid, first.context, first.level) == ("q.txt-0", "A text.", "")


def test_levels_and_order(write, tmp_path):
    for name in ("high/10.txt", "high/9.txt", "middle/1.txt"):
        write(name)
    (tmp_path / "high/.DS_Store").write_bytes(b"\xff")
    found = [example.guid for example in read_race(tmp_path)]
    assert found[::2] == ["middle/1.txt-0", "high/9.txt-0", "high/10.txt-0"]
    assert {example.level for example in read_race(tmp_path, ("middle",))} == {"middle"}
    with pytest.raises(FileNotFoundError, match=r"no folder .*low \(config.data.levels\)"):
        list(read_race(tmp_path, ("low",)))


def test_standard_input(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(DATA).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert [example.guid for example in read_race("-")] == ["stdin-0", "stdin-1"]


def test_answers_may_be_missing(write):
    data = {key: value for key, value in DATA.items() if key != "answers"}
    assert [example.label for example in read_race(write("q.txt", data))] == [None, None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"article": None}, "q.txt: 'article' is None, wanted text"),
        ({"questions": "Who?"}, "q.txt: 'questions' is 'Who?', wanted a list"),
        ({"options": [["x"]]}, "q.txt: 2 questions, but 1 entries in 'options'"),
        ({"answers": ["A"]}, "q.txt: 2 questions, but 1 entries in 'answers'"),
        ({"options": [["x", "y"], ["x"]]}, "q.txt: questions[1]: wanted a text, and a list of"),
        ({"answers": ["A", "C"]}, "questions[1]: the answer is 'C', wanted one of A, B"),
    ],
)
def test_wrong_files_are_named(write, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        list(read_race(write("q.txt", **changes)))


def test_files_that_are_no_json(tmp_path):
    path = tmp_path / "middle/1.txt"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(ValueError, match=r"1.txt is not JSON"):
        list(read_race(tmp_path, ("middle",)))
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"1.txt: wanted a JSON object, got list"):
        list(read_race(tmp_path, ("middle",)))
    path.unlink()
    with pytest.raises(ValueError, match="holds no questions"):
        list(read_race(tmp_path, ("middle",)))


def test_a_file_without_a_question_or_that_is_not_there(write, tmp_path):
    path = write("q.txt", questions=[], options=[], answers=[])
    with pytest.raises(ValueError, match=r"q\.txt holds no questions"):
        list(read_race(path))
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere\.json"):
        list(read_race(tmp_path / "nowhere.json"))


def test_standard_input_is_read_like_a_file(monkeypatch):
    def given(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return list(read_race("-"))

    assert len(given(json.dumps(DATA).encode("utf-8-sig"))) == 2
    with pytest.raises(ValueError, match=r"- is not utf-8 text: .*\(config\.data\.encoding\)"):
        given(b"\xff")
