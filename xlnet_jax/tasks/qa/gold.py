"""Which pieces of its paragraph answer a question, for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from xlnet_jax.data.squad_json import Answer, Question
from xlnet_jax.tasks.qa.alignment import Alignment
from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.pieces import Pieces
from xlnet_jax.tasks.qa.report import Report


@dataclasses.dataclass(frozen=True)
class Gold:
    """Of each question kept: int64, int64, bool, int64 [questions, 2].

    Attributes:
        first: first piece of the answer, counted in the paragraph; -1 without an answer.
        last: its last piece.
        unanswerable: whether it has none.
        characters: the answer's first character and one behind its last, without blanks around it.
    """

    first: np.ndarray
    last: np.ndarray
    unanswerable: np.ndarray
    characters: np.ndarray


def find_gold(
    questions: Sequence[Question],
    paragraphs: np.ndarray,
    pieces: Pieces,
    config: DataConfig,
    report: Report,
) -> tuple[list[int], Gold]:
    """The questions to train on, by number, and their answers. Of several, the first that fits."""
    kept: list[int] = []
    spans: list[tuple[int, int]] = []  # of characters; (-1, -1) without an answer
    for number, (question, paragraph) in enumerate(
        zip(questions, paragraphs.tolist(), strict=True)
    ):
        report.several_answers += len(question.answers or ()) > 1
        if question.unanswerable:
            report.unanswerable += 1
            kept.append(number)
            spans.append((-1, -1))
            continue
        span = _characters(question, pieces.contexts[paragraph], config, report)
        if span is not None:
            kept.append(number)
            spans.append(span)
    characters = np.array(spans, np.int64).reshape(-1, 2)
    if pieces.alignments is None:
        first, last = _exact(characters, paragraphs[kept], pieces)
    else:
        first, last = _reference(characters, paragraphs[kept].tolist(), pieces.alignments)
    unanswerable = characters[:, 0] < 0
    sound = unanswerable | ((first >= 0) & (last >= first))
    report.vanished += [questions[kept[k]].id for k in np.flatnonzero(~sound).tolist()]
    kept = [number for number, good in zip(kept, sound.tolist(), strict=True) if good]
    return kept, Gold(first[sound], last[sound], unanswerable[sound], characters[sound])


def _characters(
    question: Question, context: str, config: DataConfig, report: Report
) -> tuple[int, int] | None:
    """The answer to train on as a stretch of the paragraph; None, and a note, if there is none."""
    answers = question.answers or ()
    if not answers:
        report.unlabelled.append(question.id)
        return None
    placed = [answer for answer in answers if answer.placed(context)]
    if config.misplaced_answers == "drop":
        if not placed:
            report.misplaced.append(question.id)
            return None
        begin, end = _span(placed[0])
        if config.alignment == "exact":  # a blank belongs to no piece
            begin, end = end - len(placed[0].text.lstrip()), begin + len(placed[0].text.rstrip())
        return begin, max(begin, end)
    if not answers[0].placed(context):
        report.moved_answers.append(question.id)
    begin, end = _span(answers[0])
    if begin < 0 or begin >= len(context):
        report.misplaced.append(question.id)
        return None
    return begin, max(begin + 1, min(end, len(context)))  # as the fork cuts an answer off


def _span(answer: Answer) -> tuple[int, int]:
    return answer.start, answer.start + len(answer.text)


def _exact(
    characters: np.ndarray, paragraphs: np.ndarray, pieces: Pieces
) -> tuple[np.ndarray, np.ndarray]:
    """First and last piece that hold a character of the answer; first > last if none does.

    A piece without characters of its own (what clean-up dropped) is at neither end.
    """
    owner = np.repeat(np.arange(len(pieces.contexts)), np.diff(pieces.bounds))
    width = 1 + max(map(len, pieces.contexts), default=0)
    offset = paragraphs * width
    begin, end = characters.T
    base = pieces.bounds[paragraphs]
    stops = owner * width + pieces.ends
    first = np.searchsorted(stops, offset + begin, side="right")
    last = np.searchsorted(owner * width + pieces.begins, offset + end, side="left") - 1
    number = np.arange(len(owner))
    full = pieces.ends > pieces.begins
    next_full = np.minimum.accumulate(np.where(full, number, len(owner))[::-1])[::-1]
    last_full = np.maximum.accumulate(np.where(full, number, -1))
    first = np.append(next_full, len(owner))[first] - base
    last = np.append(last_full, -1)[last] - base
    return np.where(begin < 0, -1, first), np.where(begin < 0, -1, last)


def _reference(
    characters: np.ndarray, paragraphs: Sequence[int], alignments: Sequence[Alignment | None]
) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for (begin, end), paragraph in zip(characters.tolist(), paragraphs, strict=True):
        alignment = alignments[paragraph]
        if begin < 0 or alignment is None:  # a paragraph given up has no window anyway
            found.append((-1, -1) if begin < 0 else (0, 0))
        else:
            found.append(alignment.pieces_of(begin, end - 1))
    first, last = np.array(found, np.int64).reshape(-1, 2).T
    return first, last
