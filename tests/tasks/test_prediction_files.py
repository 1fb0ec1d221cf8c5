import json

import pytest

from xlnet_jax.tasks.prediction_files import say, write_predictions, write_tags

GUIDS, ANSWERS = ["test-0", "k7"], ["ja", "nein ü"]
DETAILS = {"logits": [[0.5, -1.0], [0.25, 2.0]]}
TABLE = "index\tprediction\n0\tja\n1\tnein ü\n"
OBJECTS = [
    {"id": "test-0", "prediction": "ja", "logits": [0.5, -1.0]},
    {"id": "k7", "prediction": "nein ü", "logits": [0.25, 2.0]},
]


def write(output):
    write_predictions(str(output), "SST-2", GUIDS, ANSWERS, DETAILS)


def test_forms_by_ending(tmp_path, capsys):
    write(tmp_path / "new" / "a.tsv")
    assert (tmp_path / "new/a.tsv").read_text() == TABLE
    write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == OBJECTS
    write(tmp_path / "a.jsonl")
    assert [json.loads(x) for x in (tmp_path / "a.jsonl").read_text().splitlines()] == OBJECTS
    write("-")
    assert capsys.readouterr().out == TABLE


def test_a_folder_gets_both(tmp_path):
    write(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["SST-2.json", "SST-2.tsv"]
    assert (tmp_path / "out/SST-2.tsv").read_text() == TABLE
    assert json.loads((tmp_path / "out/SST-2.json").read_text()) == OBJECTS


def test_numbers_lists_and_odd_labels(capsys):
    write_predictions("-", "x", ["a", "b", "c"], [0.25, ["x", "y"], "tab\there"], {})
    assert capsys.readouterr().out == 'index\tprediction\n0\t0.25\n1\tx,y\n2\t"tab\there"\n'


def test_tags(tmp_path, capsys):
    words, tags = [("EU", "is"), ("No",)], [["B-ORG", "O"], ["O"]]
    write_tags("-", "test", ["t-0", "t-1"], words, tags)
    assert capsys.readouterr().out == "EU\tB-ORG\nis\tO\n\nNo\tO\n"
    write_tags(str(tmp_path / "a.json"), "test", ["t-0", "t-1"], words, tags)
    first = json.loads((tmp_path / "a.json").read_text())[0]
    assert first == {"id": "t-0", "words": ["EU", "is"], "tags": ["B-ORG", "O"]}


def test_numbers_of_entries_must_agree():
    with pytest.raises(ValueError, match="different numbers of entries for the same examples"):
        write_predictions("-", "x", ["a"], ["b", "c"], {})


def test_notes_go_beside_the_answers(capsys):
    say(["one row dropped"])
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "one row dropped\n")
