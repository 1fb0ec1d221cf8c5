"""Text clean-up before SentencePiece, with and without character offsets.

Four forms, named in `Normalization.form`:

* ``reference``: what the released models were trained with (`preprocess_text` in the original's
  prepro_utils.py): white space collapsed, the quotes `` and '' made ", compatibility
  decomposition, combining marks dropped. Right for the released English and Chinese models only:
  it turns が into か, й into и, and cuts Korean syllables into their letters.
* ``nfc`` and ``nfkc``: white space collapsed and the Unicode form applied; no mark is dropped.
* ``none``: white space collapsed, nothing else.

Every function here is a function of the text alone and takes time linear in its length.
"""

import dataclasses
import functools
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

FORMS = ("reference", "nfc", "nfkc", "none")

_UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
_QUOTES = re.compile("``|''")
_SHORT = 256  # below this many characters a plain loop is faster than numpy
_BEYOND_ASCII = re.compile("[\x00-\x7f]?[^\x00-\x7f]+")  # with what a mark may sit on
_NOT_SPACE = re.compile(r"\S+")


@dataclasses.dataclass(frozen=True)
class Normalization:
    """How raw text is cleaned before SentencePiece sees it.

    `keep_accents` belongs to the reference form, where the default is to drop every combining
    mark; the other forms always keep them. `lower` lower-cases last. `collapse_whitespace` strips
    the ends and makes every run of white space one blank.
    """

    form: str = "nfc"
    lower: bool = False
    keep_accents: bool | None = None
    collapse_whitespace: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(
                f"unknown normalization {self.form!r}: wanted one of {', '.join(FORMS)} "
                "(--normalization)"
            )
        if self.keep_accents is None:
            object.__setattr__(self, "keep_accents", self.form != "reference")
        elif not self.keep_accents and self.form != "reference":
            raise ValueError(
                f"normalization {self.form!r} drops no accents: use --normalization=reference, "
                "or leave --keep_accents on"
            )

    @property
    def splits_digit_commas(self) -> bool:
        """Whether a piece that ends in digit and comma is cut before the comma (reference only)."""
        return self.form == "reference"

    def to_json(self) -> dict[str, Any]:
        """All fields, ready for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Normalization":
        """Rebuilds the settings; an unknown or missing key is an error that names it."""
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(known ^ set(values)))
            raise ValueError(f"normalization settings with missing or unknown keys: {odd}")
        return cls(**values)

    def clean(self, text: str) -> str:
        """Cleans one text."""
        if self.collapse_whitespace:
            text = " ".join(text.split())
        return self._change_characters(text)

    def clean_lines(self, lines: Sequence[str]) -> list[str]:
        """Cleans many lines in one go; equal to `clean` on each. Lines hold no newline."""
        if not lines:
            return []
        if self.collapse_whitespace:
            lines = [" ".join(line.split()) for line in lines]
        odd = [i for i, line in enumerate(lines) if not line.isascii()]
        if len(odd) < len(lines):
            cleaned = self._change_characters("\n".join(lines), unicode_form=False).split("\n")
        else:
            cleaned = [""] * len(lines)
        if odd:  # a newline composes with nothing and ends the reach of every casing rule
            changed = self._change_characters("\n".join([lines[i] for i in odd])).split("\n")
            for i, line in zip(odd, changed, strict=True):
                cleaned[i] = line
        return cleaned

    def _change_characters(self, text: str, *, unicode_form: bool = True) -> str:
        """All of the clean-up but for white space; without `unicode_form` what ASCII text needs."""
        if self.form == "reference" and ("`" in text or "'" in text):
            text = text.replace("``", '"').replace("''", '"')
        form = _unicode_form(self)
        if unicode_form and form:
            text = unicodedata.normalize(form, text)
            if self.form == "reference":
                text = _drop_marks(text)
        return text.lower() if self.lower else text

    def clean_with_spans(self, text: str) -> tuple[str, np.ndarray]:
        """Cleans one text and says where each character came from.

        Returns the cleaned text, equal to `clean(text)`, and spans int64 [len(cleaned), 2]:
        character i of the cleaned text was made from ``text[spans[i, 0]:spans[i, 1]]``.
        Characters composed or decomposed together share the span of their whole group.
        """
        spans = np.stack([np.arange(len(text)), np.arange(1, len(text) + 1)], axis=1)
        if self.collapse_whitespace:
            text, spans = _rewrite(text, spans, _collapsed(text))
        if self.form == "reference":
            quotes = [(m.start(), m.end(), '"') for m in _QUOTES.finditer(text)]
            text, spans = _rewrite(text, spans, quotes)
        unicode_form = _unicode_form(self)
        if unicode_form and not text.isascii():
            groups = _groups(text, unicode_form, drop_marks=self.form == "reference")
            text, spans = _rewrite(text, spans, groups)
        if self.lower:
            # Lower-casing looks at neighbours only to choose the form of a final sigma, which
            # never changes a length.
            lengths = [len(character.lower()) for character in text]
            text, spans = text.lower(), np.repeat(spans, lengths, axis=0)
        return text, spans


def changed_code_points(before: Sequence[str], after: Sequence[str]) -> int:
    """Counts code points beyond ASCII that a clean-up of texts took away or replaced.

    What counts is how many fewer of each the cleaned texts hold together; white space does not.
    """
    odd = [i for i, text in enumerate(before) if not text.isascii()]
    if not odd:
        return 0
    values, counts = _beyond_ascii([before[i] for i in odd])
    kept_values, kept_counts = _beyond_ascii([after[i] for i in odd])
    found = np.minimum(np.searchsorted(kept_values, values), max(len(kept_values) - 1, 0))
    left = np.zeros_like(counts)
    if len(kept_values):
        left = np.where(kept_values[found] == values, kept_counts[found], 0)
    is_text = np.array([not chr(value).isspace() for value in values.tolist()], bool)
    return int(np.maximum(counts - left, 0)[is_text].sum())


def _beyond_ascii(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    return np.unique(points[points > 127], return_counts=True)


def _unicode_form(normalization: Normalization) -> _UnicodeForm | None:
    if normalization.form == "reference":
        return None if normalization.keep_accents else "NFKD"
    if normalization.form == "nfc":
        return "NFC"
    return "NFKC" if normalization.form == "nfkc" else None


def _drop_marks(text: str) -> str:
    """Takes out characters with a combining class (fewer than those of category M)."""
    if len(text) < _SHORT:
        return "".join([c for c in text if not unicodedata.combining(c)])
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    is_mark = _is_mark()[points]
    if not is_mark.any():
        return text
    return points[~is_mark].tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def _is_mark() -> np.ndarray:
    """Whether a code point has a combining class: bool [all code points]."""
    points = range(sys.maxunicode + 1)
    return np.fromiter((unicodedata.combining(chr(p)) > 0 for p in points), bool, len(points))


@functools.cache
def _second_halves() -> frozenset[str]:
    """Characters that may merge into the one before them when text is composed."""
    found = {chr(point) for point in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for point in range(0x20000):  # nothing beyond composes canonically from two parts
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)


_JOINS, _CHANGES = 1, 2  # what a character does, see `_Characters`
_GROUP = re.compile(rb"[\0-\3][\1\3]+|[\2\3]", re.DOTALL)  # a character and what joins it


class _Characters(dict[str, int]):
    """Per character: whether it may merge into the one before it, and whether it changes alone."""

    def __init__(self, form: _UnicodeForm, *, drop_marks: bool):
        self.form: _UnicodeForm = form
        self.decomposed: _UnicodeForm = "NFKD" if form in ("NFKD", "NFKC") else "NFD"
        self.drop_marks = drop_marks
        self.changed = functools.lru_cache(maxsize=1 << 14)(self._changed)

    def _changed(self, text: str) -> str:
        """The Unicode form of a text, without its marks if they are dropped."""
        out = unicodedata.normalize(self.form, text)
        return _drop_marks(out) if self.drop_marks else out

    def __missing__(self, character: str) -> int:
        first = unicodedata.normalize(self.decomposed, character)[0]
        joins = unicodedata.combining(first) or first in _second_halves()
        kind = (_JOINS if joins else 0) | (_CHANGES if self.changed(character) != character else 0)
        self[character] = kind
        return kind


@functools.cache
def _characters(form: _UnicodeForm, drop_marks: bool) -> _Characters:
    return _Characters(form, drop_marks=drop_marks)


def _groups(text: str, form: _UnicodeForm, *, drop_marks: bool) -> list[tuple[int, int, str]]:
    """Cuts text where no Unicode form reaches across; leaves out single characters that stay."""
    characters = _characters(form, drop_marks)
    groups = []
    for region in _BEYOND_ASCII.finditer(text):
        start = region.start()
        kinds = bytes(map(characters.__getitem__, region.group()))
        for group in _GROUP.finditer(kinds):
            begin, end = start + group.start(), start + group.end()
            groups.append((begin, end, characters.changed(text[begin:end])))
    return groups


def _collapsed(text: str) -> list[tuple[int, int, str]]:
    """The replacements that strip a text and make each run of white space one blank."""
    changes = []
    last = 0
    for word in _NOT_SPACE.finditer(text):
        if word.start() > last:
            changes.append((last, word.start(), " " if last else ""))
        last = word.end()
    if last < len(text):
        changes.append((last, len(text), ""))
    return changes


def _rewrite(
    text: str, spans: np.ndarray, changes: list[tuple[int, int, str]]
) -> tuple[str, np.ndarray]:
    """Applies replacements (begin, end, new), sorted and disjoint; carries the spans along."""
    if not changes:
        return text, spans
    pieces = []
    last = 0
    for begin, end, new in changes:
        pieces += [text[last:begin], new]
        last = end
    pieces.append(text[last:])
    begins, ends = np.array([(begin, end) for begin, end, _ in changes]).T
    depth = np.zeros(len(text) + 1, np.int64)
    depth[begins] += 1
    np.subtract.at(depth, ends, 1)
    copies = 1 - np.cumsum(depth)[:-1]  # how often a character's span shows in the result
    copies[begins] = [len(new) for _, _, new in changes]
    last_of_group = np.arange(len(text))
    last_of_group[begins] = ends - 1
    grouped = np.stack([spans[:, 0], spans[last_of_group, 1]], axis=1)
    return "".join(pieces), np.repeat(grouped, copies, axis=0)
