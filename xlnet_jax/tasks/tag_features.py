"""Words with tags to model inputs: the pieces of all words, <sep>, <cls>."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from xlnet_jax.data.readers_conll import TaggedSentence
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.data.tokenizer import WORD_MARK, Tokenizer
from xlnet_jax.tasks.text_features import Ragged, chunks, encode, join_texts

NO_TAG = -1  # on every piece but the first of a word, and on <sep>, <cls> and padding


class TagSplit(NamedTuple):
    """One split, ready for the network; a sentence that is too long has several features.

    Attributes:
        tokens, segments: int32 and int8, a row for each feature.
        word_starts: bool, the first piece of each word.
        tags: int16, the tag there and `NO_TAG` elsewhere; None if not known.
        sentences: int64 [features], the sentence that each feature is (a part) of, in order.
        guids, words: of the sentences.
        wanted: names of the tags of every sentence; None if not known.
        notes: what was dropped, cut or changed, in lines.
    """

    tokens: Ragged
    segments: Ragged
    word_starts: Ragged
    tags: Ragged | None
    sentences: np.ndarray
    guids: list[str]
    words: list[tuple[str, ...]]
    wanted: list[tuple[str, ...]] | None
    notes: list[str]


def tag_names(kinds: Iterable[str]) -> tuple[str, ...]:
    """O, then B- and I- of every kind of entity."""
    return ("O", *(f"{mark}-{kind}" for kind in sorted(kinds) for mark in "BI"))


class WordEncoder:
    """Pieces of single words, which are equal to those of a sentence as no piece crosses a blank.

    With `joined` words follow each other without blanks, as in Chinese: their pieces carry no word
    mark, where the vocabulary has such pieces. A word without pieces becomes <unk>.
    """

    def __init__(self, tokenizer: Tokenizer, *, joined: bool):
        self.tokenizer, self.joined = tokenizer, joined

    def encode(self, words: Sequence[str]) -> tuple[Ragged, int]:
        """Pieces of every word, and how many words had none; every distinct word is cut once."""
        numbers: dict[str, int] = {}
        rows = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
        pieces = encode(self.tokenizer, list(numbers))
        if self.joined:
            pieces = self._without_marks(pieces)
        empty = pieces.lengths == 0
        if empty.any():
            flat = np.insert(
                pieces.flat, pieces.ends[empty], np.full(empty.sum(), self.tokenizer.special.unk)
            )
            pieces = Ragged(flat, pieces.lengths + empty)
        return pieces.take(rows), int(empty[rows].sum())

    def _without_marks(self, pieces: Ragged) -> Ragged:
        """First pieces without their word mark; a lone mark in front of others goes."""
        flat, lengths = pieces.flat.copy(), pieces.lengths
        firsts = (pieces.ends - lengths)[lengths > 0]
        flat[firsts] = self._unmarked[flat[firsts]]
        lone = np.zeros(len(flat), bool)
        lone[firsts] = flat[firsts] == self.tokenizer.piece_to_id(WORD_MARK)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        return Ragged(flat[~lone], lengths - np.bincount(owners[lone], minlength=len(lengths)))

    @functools.cached_property
    def _unmarked(self) -> np.ndarray:
        table = np.arange(self.tokenizer.vocab_size, dtype=np.int32)
        for number, piece in enumerate(self.tokenizer.pieces):
            if len(piece) > 1 and piece[0] == WORD_MARK:
                other = self.tokenizer.piece_to_id(piece[1:])
                table[number] = number if other == self.tokenizer.special.unk else other
        return table


def make_split(
    examples: Iterable[TaggedSentence],
    tokenizer: Tokenizer,
    *,
    tags: Sequence[str],
    max_length: int,
    joined: bool,
    oddities: Oddities,
) -> TagSplit:
    """Tokenizes a split. A sentence longer than `max_length` is cut between words, none is lost.

    Raises ValueError naming file and line of a sentence with a tag that is not among `tags`.
    """
    encoder = WordEncoder(tokenizer, joined=joined)
    numbers = {tag: number for number, tag in enumerate(tags)}
    parts: list[tuple[Ragged, Ragged, Ragged, Ragged]] = []
    owners: list[np.ndarray] = []
    kept: list[TaggedSentence] = []
    count = 0
    labelled = True
    for chunk in chunks(examples):
        file = chunk[0].file
        labelled = labelled and all(example.tags is not None for example in chunk)
        pieces, without = encoder.encode([word for example in chunk for word in example.words])
        whole, pieces = pieces, pieces.heads(max_length - 2)
        words_of = np.array([len(example.words) for example in chunk])
        words_in, of = _windows(pieces, words_of, max_length - 2)
        tag_ids = [
            _number(tag, example, numbers) for example in chunk for tag in example.tags or ()
        ]
        parts.append(_rows(tokenizer, pieces, words_in, tag_ids if labelled else None))
        owners.append(of + count)
        cut_words = int((whole.lengths > pieces.lengths).sum())
        for reason, number in (
            ("words without pieces, read as <unk>", without),
            ("words longer than config.data.max_seq_length, cut", cut_words),
            ("sentences in several parts (config.data.max_seq_length)", _several(of)),
        ):
            if number:
                oddities.add(reason, file, 0, number)
        count += len(chunk)
        kept += chunk
    tokens, segments, starts, tag_rows = (
        Ragged.concatenate(column) for column in zip(*parts, strict=True)
    )
    return TagSplit(
        tokens,
        segments,
        starts,
        tag_rows if labelled else None,
        np.concatenate(owners),
        [example.guid for example in kept],
        [example.words for example in kept],
        [example.tags for example in kept if example.tags is not None] if labelled else None,
        oddities.lines(),
    )


def _rows(
    tokenizer: Tokenizer, pieces: Ragged, words_in: np.ndarray, tag_ids: Sequence[int] | None
) -> tuple[Ragged, Ragged, Ragged, Ragged]:
    """Tokens, segments, word starts and tags of windows with that many words each."""
    lengths = np.diff(pieces.ends[np.cumsum(words_in) - 1], prepend=0)
    starts = np.zeros(len(pieces.flat), bool)
    starts[pieces.ends - pieces.lengths] = True
    tags = np.full(len(starts), NO_TAG, np.int16)
    if tag_ids is not None:
        tags[starts] = tag_ids
    tokens, segments = join_texts(
        Ragged(pieces.flat, lengths),
        None,
        max_length=int(lengths.max()) + 2,
        sep=tokenizer.special.sep,
        cls=tokenizer.special.cls,
    )
    return tokens, segments, _with_tail(starts, lengths, 0), _with_tail(tags, lengths, NO_TAG)


def _several(owners: np.ndarray) -> int:
    """How many sentences have more than one window."""
    return len(np.unique(owners[1:][owners[1:] == owners[:-1]]))


def _number(tag: str, example: TaggedSentence, numbers: dict[str, int]) -> int:
    if tag not in numbers:
        raise ValueError(
            f"{example.file}:{example.line}: unknown tag {tag!r} in this sentence, wanted one of"
            f" {', '.join(numbers)} (config.data.labels)"
        )
    return numbers[tag]


def _windows(
    pieces: Ragged, words_of: np.ndarray, max_pieces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Words of each window int64, and the sentence it is of; as few windows as there can be."""
    ends = np.cumsum(words_of)
    totals = np.diff(pieces.ends[ends - 1], prepend=0)
    counts: list[int] = []
    owners: list[int] = []
    for sentence, (end, number, total) in enumerate(zip(ends, words_of, totals, strict=True)):
        if total <= max_pieces:
            counts.append(int(number))
            owners.append(sentence)
            continue
        filled = words = 0
        for length in pieces.lengths[end - number : end]:
            if filled + length > max_pieces:
                counts.append(words)
                owners.append(sentence)
                filled = words = 0
            filled, words = filled + int(length), words + 1
        counts.append(words)
        owners.append(sentence)
    return np.array(counts, np.int64), np.array(owners, np.int64)


def _with_tail(flat: np.ndarray, lengths: np.ndarray, fill: int) -> Ragged:
    """Rows with two more entries, for <sep> and <cls>."""
    longer = np.full(len(flat) + 2 * len(lengths), fill, flat.dtype)
    shift = 2 * np.arange(len(lengths))
    longer[np.arange(len(flat)) + np.repeat(shift, lengths)] = flat
    return Ragged(longer, lengths + 2)
