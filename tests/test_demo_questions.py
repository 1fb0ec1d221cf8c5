import pytest

from xlnet_jax import demo_questions
from xlnet_jax.data import squad_json

SOURCE = '''
def spread(values, *, weights):
    """How far the values lie apart. More words."""

class Box:
    def __init__(self):
        """What nobody asks for."""

    def open(self):
        """Open the box without breaking it."""

    def silent(self):
        pass
'''


@pytest.fixture
def library(tmp_path, monkeypatch):
    (tmp_path / "shutil.py").write_text(SOURCE)
    (tmp_path / "http").mkdir()
    (tmp_path / "http" / "client.py").write_text(SOURCE)
    monkeypatch.setattr(demo_questions.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_questions_of_a_library(library, tmp_path):
    counts = demo_questions.write_questions(tmp_path / "out")
    assert counts == {"train": 10, "dev": 10}
    train, dev = (squad_json.read(tmp_path / "out" / f"{name}.json") for name in ("train", "dev"))
    assert train.labelled
    assert {question.id.split("-")[0] for question in train.questions} == {"http"}
    assert {question.id.split("-")[0] for question in dev.questions} == {"shutil"}
    answers = {}
    for paragraph in dev.paragraphs:
        for question in paragraph.questions:
            assert question.unanswerable == (question.answers == ())
            assert all(answer.placed(paragraph.context) for answer in question.answers)
            answers[question.id] = [answer.text for answer in question.answers]
    assert answers == {
        "shutil-0-name": ["spread"],
        "shutil-0-module": ["shutil"],
        "shutil-0-owner": [],
        "shutil-0-arguments": ["values and weights"],
        "shutil-0-purpose": ["How far the values lie apart"],
        "shutil-1-name": ["open"],
        "shutil-1-module": ["shutil"],
        "shutil-1-owner": ["Box"],
        "shutil-1-arguments": [],
        "shutil-1-purpose": ["Open the box without breaking it"],
    }
