"""Question answering files in the form of SQuAD: SQuAD 1.1 and 2.0, CMRC 2018, DRCD.

    {"data": [{"paragraphs": [{"context": TEXT, "qas": [
        {"id": ID, "question": TEXT, "answers": [{"text": TEXT, "answer_start": N}, ...],
         "is_impossible": BOOL}, ...]}]}]}

`is_impossible` may be missing (SQuAD 1.1, CMRC, DRCD), and so may `answers` where nobody knows them
(test files). Everything else in the file is passed over.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from etils import epath


@dataclasses.dataclass(frozen=True)
class Answer:
    """`context[start : start + len(text)]` should be `text`; see `placed`."""

    text: str
    start: int

    def placed(self, context: str) -> bool:
        """Whether the text stands where it is said to."""
        return self.start >= 0 and bool(self.text) and context.startswith(self.text, self.start)


@dataclasses.dataclass(frozen=True)
class Question:
    """One question of a paragraph.

    Attributes:
        id: unique in the file.
        text: as written.
        answers: as many as the annotators gave; None where the file has no such key.
        is_impossible: None where the file does not say.
        where: path inside the json, for messages.
    """

    id: str
    text: str
    answers: tuple[Answer, ...] | None
    is_impossible: bool | None
    where: str

    @property
    def unanswerable(self) -> bool:
        """Said to be so, or, where the file does not say, without an answer."""
        if self.is_impossible is None:
            return self.answers == ()
        return self.is_impossible


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A text and what is asked about it."""

    context: str
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class QuestionFile:
    """All of a file, in its order."""

    path: str
    paragraphs: tuple[Paragraph, ...]

    @property
    def questions(self) -> list[Question]:
        """The questions of all paragraphs in a row."""
        return [question for paragraph in self.paragraphs for question in paragraph.questions]

    @property
    def labelled(self) -> bool:
        """Whether every question has its answers, or is said to have none."""
        return all(question.answers is not None for question in self.questions)


def read(path: str | os.PathLike[str]) -> QuestionFile:
    """Reads a file, local or gs://; "-" is standard input.

    Raises OSError if it cannot be read, ValueError with the place if it is no json, has another
    shape, asks nothing, or gives two questions the same id.
    """
    name = os.fspath(path)
    if name == "-":
        name, text = "standard input", sys.stdin.buffer.read()
    else:
        text = epath.Path(path).read_bytes()
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: byte {error.start} of the file") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{name} is not json: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    return parse(content, name)


def parse(content: Any, name: str) -> QuestionFile:
    """The same for json that is parsed already; `name` stands for the file in messages."""
    try:
        paragraphs = tuple(_paragraphs(content))
    except _WrongShapeError as error:
        raise ValueError(f"{name}: {error}; wanted a file in the form of SQuAD") from error
    found = QuestionFile(name, paragraphs)
    seen: dict[str, str] = {}
    for question in found.questions:
        if question.id in seen:
            raise ValueError(
                f"{name}: the questions {seen[question.id]} and {question.where} have the same id"
                f" {question.id!r}; predictions are stored by id, so each must be unique"
            )
        seen[question.id] = question.where
    if not seen:
        raise ValueError(f"{name} holds no question")
    return found


class _WrongShapeError(Exception):
    """Says the path inside the json, what stands there, and what was wanted."""

    def __init__(self, where: str, value: Any, wanted: str):
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        super().__init__(f"{where or 'the whole file'} is {shown}, not {wanted}")


_WORDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
_MISSING = object()


def _get(parent: dict[str, Any], where: str, key: str, kind: type) -> Any:
    value = parent.get(key, _MISSING)
    if value is _MISSING:
        raise _WrongShapeError(where, parent, f'an object with the key "{key}"')
    if type(value) is not kind:
        raise _WrongShapeError(f"{where}.{key}" if where else key, value, _WORDS[kind])
    return value


def _objects(values: list[Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, value in enumerate(values):
        path = f"{where}[{number}]"
        if type(value) is not dict:
            raise _WrongShapeError(path, value, "an object")
        yield path, value


def _paragraphs(content: Any) -> Iterator[Paragraph]:
    if type(content) is not dict:
        raise _WrongShapeError("", content, 'an object with the key "data"')
    for article_path, article in _objects(_get(content, "", "data", list), "data"):
        paragraphs = _get(article, article_path, "paragraphs", list)
        for path, paragraph in _objects(paragraphs, f"{article_path}.paragraphs"):
            context = _get(paragraph, path, "context", str)
            asked = _objects(_get(paragraph, path, "qas", list), f"{path}.qas")
            yield Paragraph(context, tuple(_question(where, value) for where, value in asked))


def _question(where: str, value: dict[str, Any]) -> Question:
    name = value.get("id", _MISSING)
    if type(name) is int:
        name = str(name)
    elif type(name) is not str:
        name = _get(value, where, "id", str)
    impossible = value.get("is_impossible")
    if impossible is not None and type(impossible) is not bool:
        raise _WrongShapeError(f"{where}.is_impossible", impossible, "true or false")
    answers = None
    if value.get("answers") is not None:
        given = _get(value, where, "answers", list)
        answers = tuple(_answer(path, one) for path, one in _objects(given, f"{where}.answers"))
    return Question(
        id=name,
        text=_get(value, where, "question", str),
        answers=answers,
        is_impossible=impossible,
        where=where,
    )


def _answer(where: str, value: dict[str, Any]) -> Answer:
    start = value.get("answer_start", _MISSING)
    if start is _MISSING:
        raise _WrongShapeError(where, value, 'an object with the key "answer_start"')
    if type(start) is not int:
        raise _WrongShapeError(f"{where}.answer_start", start, "a whole number")
    return Answer(_get(value, where, "text", str), start)
