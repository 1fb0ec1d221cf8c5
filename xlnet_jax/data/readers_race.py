"""RACE: folders of JSON files, each an article with questions and four options a question."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from xlnet_jax.data.readers import natural_order, read_text

LEVELS = ("middle", "high")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ChoiceExample(NamedTuple):
    """A question about a text.

    Attributes:
        guid: LEVEL/FILE-QUESTION.
        context: the article.
        choices: question and answer in one text, for each option.
        label: number of the right option, or None if the data do not say.
        level: "middle" or "high"; "" for a file given by itself.
    """

    guid: str
    context: str
    choices: tuple[str, ...]
    label: int | None
    level: str


def read_race(
    path: epath.PathLike, levels: Sequence[str] = LEVELS, *, encoding: str = "utf-8"
) -> Iterator[ChoiceExample]:
    """Questions of one split in order.

    `path` holds a folder for each level, or is one JSON file ("-" for one on standard input).

    The original takes files in the order the file system gives, which is not defined; here by name.

    Raises FileNotFoundError, or ValueError that names the file and the place in its JSON.
    """
    count = 0
    for example in _read(path, levels, encoding):
        count += 1
        yield example
    if not count:
        raise ValueError(f"{os.fspath(path)} holds no questions")


def _read(path: epath.PathLike, levels: Sequence[str], encoding: str) -> Iterator[ChoiceExample]:
    root = epath.Path(path)
    if os.fspath(path) == "-":
        yield from _questions(read_text(path, encoding), "-", "stdin", "")
    elif root.is_dir():
        for level in levels:
            folder = root / level
            if not folder.is_dir():
                raise FileNotFoundError(f"no folder {os.fspath(folder)} (config.data.levels)")
            for file in sorted(folder.iterdir(), key=lambda file: natural_order(file.name)):
                if not file.name.startswith("."):  # what file managers leave behind
                    yield from _read_file(file, level, encoding)
    elif root.exists():
        yield from _read_file(root, "", encoding)
    else:
        raise FileNotFoundError(f"no file or folder {os.fspath(path)}")


def _read_file(file: epath.Path, level: str, encoding: str) -> Iterator[ChoiceExample]:
    stem = f"{level}/{file.name}" if level else file.name
    return _questions(read_text(file, encoding), os.fspath(file), stem, level)


def _questions(text: str, name: str, stem: str, level: str) -> Iterator[ChoiceExample]:
    """The questions of a file's text; `name` for messages, `stem` for guids."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{name}: wanted a JSON object, got {type(data).__name__}")
    article = _part(data, "article", str, name)
    questions = _part(data, "questions", list, name)
    options = _part(data, "options", list, name)
    answers = _part(data, "answers", list, name) if "answers" in data else None
    for key, values in (("options", options), ("answers", answers)):
        if values is not None and len(values) != len(questions):
            raise ValueError(
                f"{name}: {len(questions)} questions, but {len(values)} entries in {key!r}"
            )
    for number, (question, choices) in enumerate(zip(questions, options, strict=True)):
        where = f"{name}: questions[{number}]"
        if not isinstance(question, str) or not _is_texts(choices):
            raise ValueError(f"{where}: wanted a text, and a list of at least two texts in options")
        label = None if answers is None else _label(answers[number], len(choices), where)
        filled = tuple(_fill(question, choice) for choice in choices)
        yield ChoiceExample(f"{stem}-{number}", article, filled, label, level)


def _part(data: dict[str, Any], key: str, kind: type, name: str) -> Any:
    if not isinstance(data.get(key), kind):
        wanted = "text" if kind is str else "a list"
        raise ValueError(f"{name}: {key!r} is {data.get(key)!r:.40}, wanted {wanted}")
    return data[key]


def _is_texts(choices: Any) -> bool:
    is_list = isinstance(choices, list) and len(choices) > 1
    return is_list and all(isinstance(choice, str) for choice in choices)


def _label(answer: Any, count: int, where: str) -> int:
    letters = _LETTERS[:count]
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        raise ValueError(f"{where}: the answer is {answer!r}, wanted one of {', '.join(letters)}")
    return letters.index(answer)


def _fill(question: str, option: str) -> str:
    """The option put where the question has its blanks, else behind it, as `get_examples`."""
    return question.replace("_", option) if "_" in question else f"{question} {option}"
