"""Questions with options to model inputs: text <sep> question and option <sep> <cls>, each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlnet_jax.data.readers_race import ChoiceExample
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.text_features import Ragged, chunks, encode, join_texts

_QUESTIONS = 1024  # tokenized together


class ChoiceSplit(NamedTuple):
    """One split, ready for the network.

    Attributes:
        tokens, segments: int32 and int8, a row for each option; the options of a question follow
            each other.
        num_choices: options of every question.
        labels: int32 [questions], or None if the data do not say.
        levels: "middle" or "high" for every question.
        guids: names of the questions.
    """

    tokens: Ragged
    segments: Ragged
    num_choices: int
    labels: np.ndarray | None
    levels: list[str]
    guids: list[str]


class Choices(Sequence[np.ndarray]):
    """Arrays [C, L] of the rows of each question, padded on the left to the longest of them."""

    def __init__(self, rows: Ragged, num_choices: int, fill: int):
        self._rows, self._count, self._fill = rows, num_choices, fill

    def __len__(self) -> int:
        return len(self._rows) // self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first = range(len(self))[index] * self._count
        rows = self._rows[first : first + self._count]
        length = max(len(row) for row in rows)
        padded = np.full((self._count, length), self._fill, self._rows.flat.dtype)
        for place, row in zip(padded, rows, strict=True):
            place[length - len(row) :] = row
        return padded


def join_choices(
    contexts: Ragged, questions: Ragged, *, max_length: int, max_question_length: int, sep: int,
    cls: int,
) -> tuple[Ragged, Ragged]:  # fmt: skip
    """Tokens and segments of texts and their questions, row by row.

    Of the question the end stays, of the text the beginning. Where the text needs no cut, the
    original (`convert_single_example` in run_race.py) lets it grow by every option before; here
    every option is read with the text alone.
    """
    asked = questions.tails(max_question_length)
    told = contexts.heads(max_length - 3 - asked.lengths)
    return join_texts(told, asked, max_length=max_length, sep=sep, cls=cls, always_pairs=True)


def make_split(
    examples: Iterable[ChoiceExample],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    max_question_length: int,
) -> ChoiceSplit:
    """Tokenizes a split; the texts themselves are not kept.

    Raises ValueError naming a question with another number of options than the first, or without
    an answer in a split with answers.
    """
    parts: list[tuple[Ragged, Ragged]] = []
    labels: list[int | None] = []
    levels: list[str] = []
    guids: list[str] = []
    num_choices = 0
    for chunk in chunks(examples, _QUESTIONS):
        num_choices = num_choices or len(chunk[0].choices)
        for example in chunk:
            if len(example.choices) != num_choices:
                raise ValueError(
                    f"{example.guid}: {len(example.choices)} options, wanted {num_choices} as in"
                    " the questions before"
                )
        # Questions about one text follow each other: it is tokenized once.
        texts = [text for text, _ in itertools.groupby(chunk, key=lambda example: example.context)]
        changes = [a.context != b.context for a, b in itertools.pairwise(chunk)]
        rows = np.repeat(np.cumsum([0, *changes]), num_choices)
        parts.append(
            join_choices(
                encode(tokenizer, texts).take(rows),
                encode(tokenizer, [choice for example in chunk for choice in example.choices]),
                max_length=max_length,
                max_question_length=max_question_length,
                sep=tokenizer.special.sep,
                cls=tokenizer.special.cls,
            )
        )
        labels += [example.label for example in chunk]
        levels += [example.level for example in chunk]
        guids += [example.guid for example in chunk]
    known = [label for label in labels if label is not None]
    if len(known) not in (0, len(labels)):
        raise ValueError(f"{guids[labels.index(None)]} has no answer, others of the split have one")
    return ChoiceSplit(
        Ragged.concatenate([tokens for tokens, _ in parts]),
        Ragged.concatenate([segments for _, segments in parts]),
        num_choices,
        np.array(known, np.int32) if known else None,
        levels,
        guids,
    )
