"""From lines of text to one stream of tokens with sentence starts: where <eod> goes, what counts.

Two sets of rules for text files, one sentence a line, a blank line after a document:

* ``reference`` does what `_create_data` in the original's data_utils.py does: each blank line is
  an <eod>, also at the start of a file and when several follow each other; no <eod> at the end of
  a file that doesn't end in a blank line. A sentence begins where the parity of the line flips;
  <eod> has the parity of the line before it, so it belongs to that sentence. A line that gives no
  piece still flips, so the lines around it count as one sentence.
* ``fixed``: exactly one <eod> after each document that has tokens, also at the end of a file;
  every line with tokens is a sentence; other lines leave no trace.

Without `use_eod` the blank lines leave no trace in the tokens under either set.
"""

import dataclasses

import numpy as np

LINE_RULES = ("reference", "fixed")


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stretch of tokens: runs of `lengths` tokens, one run a line or <eod>.

    tokens int32 [sum(lengths)]; for each run its length, whether a sentence starts with it, the
    number of its document counted from the start of the file, and whether it is an <eod>.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    documents: np.ndarray
    is_eod: np.ndarray


class LineRules:
    """Applies a set of rules to the lines of one file, given in consecutive blocks."""

    def __init__(self, rules: str, *, use_eod: bool, eod: int, first_document: int = 0):
        if rules not in LINE_RULES:
            raise ValueError(
                f"unknown line rules {rules!r}: wanted {' or '.join(LINE_RULES)} (--line_rules)"
            )
        self.rules = rules
        self.use_eod = use_eod
        self.eod = eod
        self._sentences = 0  # lines with text so far; the parity of the next one
        self._parity = -1  # parity of the last token so far
        self._document = first_document - 1
        self._after_blank = True  # no document is open

    @property
    def next_document(self) -> int:
        """The number that a document in another file may begin with."""
        return self._document + 1

    def add(self, blank: np.ndarray, ids: np.ndarray, lengths: np.ndarray) -> Stream:
        """Takes a block of lines: blank bool [lines]; ids and lengths of the lines not blank."""
        counts = np.zeros(len(blank), np.int64)
        counts[~blank] = lengths
        return (
            self._reference(blank, ids, counts)
            if self.rules == "reference"
            else self._fixed(blank, ids, counts)
        )

    def finish(self, *, ends_document: bool) -> Stream:
        """Takes the end of the file, or of a part that goes on in another unit of work."""
        is_open = self.rules == "fixed" and ends_document and not self._after_blank
        count = int(is_open and self.use_eod)
        self._after_blank |= is_open
        return Stream(
            np.full(count, self.eod, np.int32),
            np.ones(count, np.int64),
            np.zeros(count, bool),
            np.full(count, self._document, np.int64),
            np.ones(count, bool),
        )

    def _number_documents(self, blank: np.ndarray) -> np.ndarray:
        """int64 [lines]: a document begins with the first text after a blank line."""
        after_blank = np.concatenate([[self._after_blank], blank[:-1]])[: len(blank)]
        numbers = self._document + np.cumsum(after_blank & ~blank)
        if len(blank):
            self._document = int(numbers[-1])
            self._after_blank = bool(blank[-1])
        return numbers

    def _reference(self, blank: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> Stream:
        documents = self._number_documents(blank)
        sentence = self._sentences + np.cumsum(~blank) - 1
        self._sentences += int((~blank).sum())
        kept = counts > 0
        if self.use_eod:
            counts = np.where(blank, 1, counts)
            kept |= blank
        parity = sentence[kept] & 1
        before = np.concatenate([[self._parity], parity[:-1]])[: len(parity)]
        if len(parity):
            self._parity = int(parity[-1])
        return self._stream(ids, counts[kept], parity != before, documents[kept], blank[kept])

    def _fixed(self, blank: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> Stream:
        seen = blank | (counts > 0)
        blank, counts = blank[seen], counts[seen]
        ends_text = np.concatenate([[not self._after_blank], ~blank[:-1]])[: len(blank)] & blank
        documents = self._number_documents(blank)
        is_eod = ends_text & self.use_eod
        counts = np.where(is_eod, 1, counts)
        kept = ~blank | is_eod
        return self._stream(ids, counts[kept], ~blank[kept], documents[kept], blank[kept])

    def _stream(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        starts: np.ndarray,
        documents: np.ndarray,
        is_eod: np.ndarray,
    ) -> Stream:
        if is_eod.any():
            tokens = np.full(int(lengths.sum()), self.eod, np.int32)
            tokens[np.repeat(~is_eod, lengths)] = ids
        else:
            tokens = ids
        return Stream(tokens, lengths, starts, documents, is_eod)
