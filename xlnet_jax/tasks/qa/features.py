"""From paragraphs and questions to windows of tokens.

A window is a stretch of the paragraph, <sep>, the question, <sep>, <cls>, padded on the right:
segment ids 0 (up to the first <sep>), 1 (up to the second), 2 (<cls>), 3 (padding). A paragraph
that is too long gets several windows, `doc_stride` pieces apart. Source of the layout:
`convert_examples_to_features` in the original's run_squad.py. Every paragraph is encoded once.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence

import numpy as np

from xlnet_jax.data.squad_json import Question, QuestionFile
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.gold import Gold, find_gold
from xlnet_jax.tasks.qa.pieces import Pieces, bounds_of, encode_paragraphs
from xlnet_jax.tasks.qa.report import Report

SEGMENT_PADDING = 3
_MAX_CONTEXT = 0.01  # weight of a window's length when windows compete for a piece


@dataclasses.dataclass(frozen=True)
class SpanWindows:
    """All windows of a file, in its order. Window w has ``token_bounds[w] : token_bounds[w + 1]``.

    Attributes:
        questions: those that have windows or would, in order.
        paragraphs: paragraph of each question, int64 [questions].
        pieces: the encoded paragraphs.
        question: question of each window, int64 [windows].
        first: its first piece, counted in the paragraph, int64 [windows].
        length: its pieces of the paragraph, int64 [windows].
        cls: position of <cls>, the last one, int64 [windows].
        tokens: int32 [all positions].
        segment_ids: int8 [all positions].
        cannot_answer: True where no answer may begin or end, bool [all positions].
        token_bounds: int64 [windows + 1].
        gold: the answers, by question; None unless made for training.
        labels: the same by window.
        report: what was left out, cut or counted.
    """

    questions: list[Question]
    paragraphs: np.ndarray
    pieces: Pieces
    question: np.ndarray
    first: np.ndarray
    length: np.ndarray
    cls: np.ndarray
    tokens: np.ndarray
    segment_ids: np.ndarray
    cannot_answer: np.ndarray
    token_bounds: np.ndarray
    gold: Gold | None
    labels: Labels | None
    report: Report

    def __len__(self) -> int:
        """How many windows."""
        return len(self.question)

    def rows(self, name: str) -> list[np.ndarray]:
        """`tokens`, `segment_ids` or `cannot_answer`, one view a window."""
        flat, bounds = getattr(self, name), self.token_bounds.tolist()
        return [flat[a:b] for a, b in itertools.pairwise(bounds)]

    def spans(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Begins and ends, in the paragraph's characters, of a window's pieces."""
        start = self.pieces.bounds[self.paragraphs[self.question[window]]] + self.first[window]
        part = slice(start, start + self.length[window])
        return self.pieces.begins[part], self.pieces.ends[part]

    def is_max_context(self, windows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Whether a window is the one, of those that hold a piece, with most text around it.

        positions count from the beginning of the window; outside its paragraph part it is False.
        Text around is the smaller of what stands left and right, plus a hundredth of the window's
        length; of equal windows the first wins.
        """
        place = self.first[windows] + positions
        best = np.full(place.shape, -np.inf)
        winner = np.full(place.shape, -1)
        reach = int(self._reach)
        for other in range(-reach, reach + 1):
            rival = np.clip(windows + other, 0, len(self) - 1)
            left = place - self.first[rival]
            right = self.length[rival] - 1 - left
            score = np.minimum(left, right) + _MAX_CONTEXT * self.length[rival]
            fits = (left >= 0) & (right >= 0) & (rival == windows + other)
            fits &= self.question[rival] == self.question[windows]
            better = fits & (score > best)
            best = np.where(better, score, best)
            winner = np.where(better, rival, winner)
        return (winner == windows) & (positions >= 0) & (positions < self.length[windows])

    @property
    def _reach(self) -> int:
        """How many windows further on one may still share a piece with it."""
        if len(self) < 2:
            return 0
        step = np.diff(self.first)[np.diff(self.question) == 0]
        return int(-(-self.length.max() // step.min())) if len(step) else 0


@dataclasses.dataclass(frozen=True)
class Labels:
    """What to predict: [windows] each.

    Attributes:
        starts: position of the answer's first piece, or of <cls> if it is not in the window, int32.
        ends: of its last piece, likewise, int32.
        unanswerable: whether the window does not hold the answer, bool.
    """

    starts: np.ndarray
    ends: np.ndarray
    unanswerable: np.ndarray


def make_windows(
    file: QuestionFile, tokenizer: Tokenizer, config: DataConfig, *, training: bool
) -> SpanWindows:
    """Encodes a file and cuts it into windows.

    Raises ValueError for a question that is too long, where that is to be an error.
    """
    threads = config.num_threads or os.cpu_count() or 1
    report = Report(file.path, sum(len(paragraph.questions) for paragraph in file.paragraphs))
    pieces = encode_paragraphs(
        [paragraph.context for paragraph in file.paragraphs], tokenizer, config, threads
    )
    counts = [len(paragraph.questions) for paragraph in file.paragraphs]
    paragraphs = np.repeat(np.arange(len(counts)), counts)
    questions = file.questions
    gold = None
    if training:
        kept, gold = find_gold(questions, paragraphs, pieces, config, report)
        questions = [questions[k] for k in kept]
        paragraphs = paragraphs[kept]
    if pieces.alignments is not None:
        lost = [pieces.alignments[paragraph] is None for paragraph in paragraphs.tolist()]
        report.unmatched += [q.id for q, gone in zip(questions, lost, strict=True) if gone]
    empty = pieces.bounds[paragraphs] == pieces.bounds[paragraphs + 1]
    report.empty += [questions[k].id for k in np.flatnonzero(empty).tolist()]
    tails, lengths = _encode_questions(questions, tokenizer, config, threads, report)
    return _cut(questions, paragraphs, pieces, tails, lengths, gold, config, report)


def _encode_questions(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    config: DataConfig,
    threads: int,
    report: Report,
) -> tuple[list[np.ndarray], np.ndarray]:
    """What follows the paragraph: <sep>, question, <sep>, <cls>; and lengths of the questions."""
    clean = [tokenizer.normalization.clean(question.text) for question in questions]
    ids, lengths = tokenizer.encode_batch(clean, num_threads=threads, is_clean=True)
    limit = config.max_query_length
    long = [questions[k].id for k in np.flatnonzero(lengths > limit).tolist()]
    if long and config.long_questions == "error":
        raise ValueError(
            f"{report.path}: {len(long)} questions have more than {limit} pieces, the first is"
            f" {long[0]!r} with {lengths[lengths > limit][0]}; raise config.data.max_query_length,"
            " or set config.data.long_questions=cut"
        )
    report.cut_questions += long
    bounds = bounds_of(lengths).tolist()
    lengths = np.minimum(lengths, limit)
    sep, cls = (np.array([i], np.int32) for i in (tokenizer.special.sep, tokenizer.special.cls))
    tails = [
        np.concatenate([sep, ids[start : start + length], sep, cls])
        for start, length in zip(bounds[:-1], lengths.tolist(), strict=True)
    ]
    return tails, lengths


def _cut(
    questions: list[Question],
    paragraphs: np.ndarray,
    pieces: Pieces,
    tails: list[np.ndarray],
    query_lengths: np.ndarray,
    gold: Gold | None,
    config: DataConfig,
    report: Report,
) -> SpanWindows:
    total = pieces.bounds[paragraphs + 1] - pieces.bounds[paragraphs]
    if pieces.alignments is not None:
        lost = np.array([alignment is None for alignment in pieces.alignments], bool)
        total = np.where(lost[paragraphs], 0, total)
    room = config.max_seq_length - query_lengths - 3
    step = np.minimum(room, config.doc_stride)
    counts = np.where(total == 0, 0, 1 + np.maximum(0, -(-(total - room) // step)))
    question = np.repeat(np.arange(len(questions)), counts)
    number = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = number * step[question]
    length = np.minimum(total[question] - first, room[question])
    tail = query_lengths[question] + 3
    starts = (pieces.bounds[paragraphs[question]] + first).tolist()
    parts: list[np.ndarray] = []
    for k, start, size in zip(question.tolist(), starts, length.tolist(), strict=True):
        parts += (pieces.ids[start : start + size], tails[k])
    runs = np.stack([length + 1, tail - 2, np.ones_like(tail)], axis=1)
    closed = np.stack([length, tail - 1, np.ones_like(tail)], axis=1)
    report.windows = len(question)
    return SpanWindows(
        questions=questions,
        paragraphs=paragraphs,
        pieces=pieces,
        question=question,
        first=first,
        length=length,
        cls=length + tail - 1,
        tokens=np.concatenate([np.zeros(0, np.int32), *parts]),
        segment_ids=np.repeat(np.tile(np.arange(3, dtype=np.int8), len(runs)), runs.ravel()),
        cannot_answer=np.repeat(np.tile([False, True, False], len(runs)), closed.ravel()),
        token_bounds=bounds_of(length + tail),
        gold=gold,
        labels=None if gold is None else _labels(gold, question, first, length, tail),
        report=report,
    )


def _labels(
    gold: Gold, question: np.ndarray, first: np.ndarray, length: np.ndarray, tail: np.ndarray
) -> Labels:
    starts, ends = gold.first[question] - first, gold.last[question] - first
    outside = gold.unanswerable[question] | (starts < 0) | (ends >= length)
    cls = length + tail - 1
    return Labels(
        np.where(outside, cls, starts).astype(np.int32),
        np.where(outside, cls, ends).astype(np.int32),
        outside,
    )
