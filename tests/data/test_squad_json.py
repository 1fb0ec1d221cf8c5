import json

import pytest

from xlnet_jax.data import squad_json
from xlnet_jax.data.squad_json import Answer


def question(**changes):
    found = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}
    return {key: value for key, value in (found | changes).items() if value is not ...}


def whole(*questions, context="Ann came."):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]}


def parsed(*questions):
    return squad_json.parse(whole(*questions), "some.json").questions


def test_all_published_forms_are_read(tmp_path):
    path = tmp_path / "dev.json"
    content = whole(
        question(),
        question(id="q2", answers=[], is_impossible=True, plausible_answers=[{}]),
        question(id=3, answers=[{"text": "Ann", "answer_start": 0}] * 2, is_impossible=False),
        question(id="q4", answers=...),
    )
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content | {"version": 2}).encode())
    found = squad_json.read(path)
    assert [q.id for q in found.questions] == ["q1", "q2", "3", "q4"]
    assert [q.is_impossible for q in found.questions] == [None, True, False, None]
    assert [q.unanswerable for q in found.questions] == [False, True, False, False]
    assert found.questions[2].answers == (Answer("Ann", 0),) * 2
    assert found.questions[3].answers is None
    assert not found.labelled
    assert squad_json.parse(whole(question()), "x").labelled
    assert found.paragraphs[0].context == "Ann came."


def test_no_answer_and_no_word_about_it_means_unanswerable():
    assert parsed(question(answers=[]))[0].unanswerable
    assert not parsed(question(answers=[], is_impossible=False))[0].unanswerable
    assert not parsed(question(answers=None))[0].unanswerable


@pytest.mark.parametrize(
    ("text", "start", "placed"),
    [("Ann", 0, True), ("came.", 4, True), ("came. Then", 4, False), ("Ann", 1, False),
     ("Ann", -9, False), ("", 0, False), (".", 8, True), (".", 9, False)],
)  # fmt: skip
def test_placed(text, start, placed):
    assert Answer(text, start).placed("Ann came.") is placed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], 'the whole file is [], not an object with the key "data"'),
        ({"version": "1"}, 'the whole file is {"version": "1"}, not an object with the key "data"'),
        ({"data": {}}, "data is {}, not a list"),
        ({"data": [3]}, "data[0] is 3, not an object"),
        ({"data": [{}]}, 'data[0] is {}, not an object with the key "paragraphs"'),
        (
            {"data": [{"paragraphs": [{"context": 1, "qas": []}]}]},
            "data[0].paragraphs[0].context is 1, not a string",
        ),
        (whole(question(), question(id="q2", question=...)),
         'data[0].paragraphs[0].qas[1] is {"id": "q2", "answers":'),
        (whole(question(id=1.5)), "data[0].paragraphs[0].qas[0].id is 1.5, not a string"),
        (whole(question(id=...)), 'not an object with the key "id"'),
        (whole(question(is_impossible="no")),
         'data[0].paragraphs[0].qas[0].is_impossible is "no", not true or false'),
        (whole(question(answers={"text": "Ann"})),
         'data[0].paragraphs[0].qas[0].answers is {"text": "Ann"}, not a list'),
        (whole(question(answers=[{"text": "Ann", "answer_start": "0"}])),
         'data[0].paragraphs[0].qas[0].answers[0].answer_start is "0", not a whole number'),
        (whole(question(answers=[{"text": "Ann"}])), 'not an object with the key "answer_start"'),
    ],
)  # fmt: skip
def test_what_is_not_shaped_like_squad_is_named_with_its_place(content, message):
    with pytest.raises(ValueError, match="wanted a file in the form of SQuAD") as caught:
        squad_json.parse(content, "my.json")
    assert str(caught.value).startswith("my.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_equal_ids_and_files_without_a_question_are_refused():
    with pytest.raises(ValueError, match=r"qas\[0\] and .*qas\[1\] have the same id 'q1'"):
        parsed(question(), question())
    with pytest.raises(ValueError, match=r"some\.json holds no question"):
        parsed()


def test_files_that_are_no_json_are_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"data":\n [}')
    with pytest.raises(ValueError, match=r"x\.json is not json: .* in line 2, column 3"):
        squad_json.read(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"x\.json is not UTF-8: byte 7"):
        squad_json.read(path)
    with pytest.raises(FileNotFoundError):
        squad_json.read(tmp_path / "none.json")
