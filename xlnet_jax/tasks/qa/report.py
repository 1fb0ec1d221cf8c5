"""What became of the questions of a file on the way to features: counted, and listed by id."""

from __future__ import annotations

import dataclasses

_SHOWN = 10


@dataclasses.dataclass
class Report:
    """Lists of question ids, filled while features are made.

    Attributes:
        path: of the file.
        questions: in the file.
        windows: made of them.
        several_answers: how many have more than one answer; training takes the first that fits.
        unanswerable: how many are without an answer, or said to be so; in training only.
        cut_questions: longer than `max_query_length`, so cut.
        unlabelled: without the answers that training needs: left out.
        misplaced: whose answers do not stand at their offsets: left out of training.
        vanished: whose answer is nothing after clean-up: left out of training.
        unmatched: whose paragraph the reference alignment gives up: no window, prediction "".
        empty: whose paragraph has no piece: no window, prediction "".
        moved_answers: kept although the answer does not stand at its offset.
    """

    path: str
    questions: int
    windows: int = 0
    several_answers: int = 0
    unanswerable: int = 0
    cut_questions: list[str] = dataclasses.field(default_factory=list)
    unlabelled: list[str] = dataclasses.field(default_factory=list)
    misplaced: list[str] = dataclasses.field(default_factory=list)
    vanished: list[str] = dataclasses.field(default_factory=list)
    unmatched: list[str] = dataclasses.field(default_factory=list)
    empty: list[str] = dataclasses.field(default_factory=list)
    moved_answers: list[str] = dataclasses.field(default_factory=list)

    def lists(self) -> dict[str, list[str]]:
        """What happened -> the ids of the questions, where there are any."""
        found = {
            "question longer than max_query_length, cut": self.cut_questions,
            "no answer given, left out of training": self.unlabelled,
            "answer not at its offset, left out of training": self.misplaced,
            "answer vanishes in clean-up, left out of training": self.vanished,
            "answer not at its offset, kept": self.moved_answers,
            "paragraph not matched by the reference alignment, no window": self.unmatched,
            "paragraph without a piece, no window": self.empty,
        }
        return {what: ids for what, ids in found.items() if ids}

    def lines(self, most: int = _SHOWN) -> list[str]:
        """One line of totals, then one for each kind of loss with its first `most` ids."""
        totals = f"{self.path}: {self.questions:,} questions, {self.windows:,} windows"
        if self.several_answers:
            totals += f", {self.several_answers:,} questions with several answers"
        if self.unanswerable:
            totals += f", {self.unanswerable:,} without an answer"
        lines = [totals]
        for what, ids in self.lists().items():
            shown = ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")
            lines.append(f"  {len(ids):,} x {what}: {shown}")
        return lines
