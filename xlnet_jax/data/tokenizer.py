"""Clean-up and SentencePiece together: text to ids, pieces or ids with character offsets."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Sequence

import numpy as np
import sentencepiece
from etils import epath

from xlnet_jax.data.normalization import Normalization

WORD_MARK = "\u2581"  # SentencePiece writes a blank as this character
_PUNCTUATION = frozenset('!"#$%&"()*+,-./:;?@[\\]^_`{|}~')  # the original's list: no ' < = >
_COMMA = re.compile(",")
_FEW = 64  # SentencePiece's batch call takes a millisecond to start its threads
_SYMBOLS = {
    "unk": "<unk>",
    "bos": "<s>",
    "eos": "</s>",
    "cls": "<cls>",
    "sep": "<sep>",
    "pad": "<pad>",
    "mask": "<mask>",
    "eod": "<eod>",
    "eop": "<eop>",
}
_OPTIONAL = ("bos", "eos", "eop")  # nothing here needs them; their id is -1 where they are missing


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids of the special symbols of one vocabulary; -1 for <s>, </s> or <eop> where missing."""

    unk: int
    bos: int
    eos: int
    cls: int
    sep: int
    pad: int
    mask: int
    eod: int
    eop: int


class Tokenizer:
    """A SentencePiece model with its clean-up.

    Raises FileNotFoundError if there is no such file, ValueError if the file is no SentencePiece
    model or lacks control symbols.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        normalization: Normalization | None = None,
    ):
        self.model_path = epath.Path(model_path)
        self.normalization = normalization or Normalization()
        if not self.model_path.exists():
            raise FileNotFoundError(
                f"no SentencePiece model at {os.fspath(self.model_path)} (--spiece_model)"
            )
        model = self.model_path.read_bytes()
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.processor = sentencepiece.SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model)
            self.vocab_size = int(self.processor.GetPieceSize())
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(self.model_path)} is not a readable SentencePiece model; wanted the"
                " NAME.model that SentencePiece or `xlnet-jax vocab` wrote (not NAME.vocab)"
            ) from error
        self.special = self._read_special_ids()

    def _read_special_ids(self) -> SpecialIds:
        ids = {}
        for name, symbol in _SYMBOLS.items():
            found = self.processor.PieceToId(symbol)
            ids[name] = found if self.processor.IdToPiece(found) == symbol else -1
        ids["unk"] = self.processor.unk_id()
        missing = [_SYMBOLS[n] for n, found in ids.items() if found < 0 and n not in _OPTIONAL]
        if missing:
            raise ValueError(
                f"{os.fspath(self.model_path)} lacks the control symbols {', '.join(missing)}: "
                "make the vocabulary with `xlnet-jax vocab`, or give spm_train "
                "--control_symbols=<cls>,<sep>,<pad>,<mask>,<eod>"
            )
        return SpecialIds(**ids)

    @functools.cached_property
    def pieces(self) -> list[str]:
        """All pieces in the order of their ids."""
        return [self.processor.IdToPiece(i) for i in range(self.vocab_size)]

    @functools.cached_property
    def word_starts(self) -> np.ndarray:
        """Whether a span to predict may start there: bool [vocab_size]. From `_is_start_piece`.

        True for pieces that begin with the word mark or with "<", and for single punctuation.
        """
        return np.array(
            [piece.startswith((WORD_MARK, "<")) or piece in _PUNCTUATION for piece in self.pieces]
        )

    def piece_to_id(self, piece: str) -> int:
        """The id of a piece, `special.unk` if the vocabulary has none such."""
        return int(self.processor.PieceToId(piece))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; control symbols vanish, unknown pieces show as ⁇."""
        return str(self.processor.DecodeIds([int(i) for i in ids]))

    def encode(self, text: str) -> list[int]:
        """Cleans and encodes one text."""
        return self.encode_clean(self.normalization.clean(text))

    def encode_as_pieces(self, text: str) -> list[str]:
        """Cleans one text and cuts it into pieces; unknown ones keep their own letters."""
        return self.clean_as_pieces(self.normalization.clean(text))

    def encode_clean(self, text: str) -> list[int]:
        """Encodes text that is clean already."""
        return [self.processor.PieceToId(piece) for piece in self.clean_as_pieces(text)]

    def clean_as_pieces(self, text: str) -> list[str]:
        """Cuts text that is clean already into pieces."""
        pieces = self.processor.EncodeAsPieces(text)
        if not self.normalization.splits_digit_commas:
            return list(pieces)
        split: list[str] = []
        for piece in pieces:
            if _ends_in_digit_comma(piece):
                split += self._split_digit_comma(piece)
            else:
                split.append(piece)
        return split

    def _split_digit_comma(self, piece: str) -> list[str]:
        """Encodes what stands before the comma anew, as `encode_pieces` in prepro_utils.py does.

        The new pieces carry a word mark only if the piece had one; a mark that is glued to
        digits is cut off even where the rest is not in the vocabulary.
        """
        pieces = list(self.processor.EncodeAsPieces(piece[:-1].replace(WORD_MARK, "")))
        if pieces and piece[0] != WORD_MARK and pieces[0].startswith(WORD_MARK):
            pieces[0] = pieces[0][1:]
            if not pieces[0]:
                del pieces[0]
        return [*pieces, ","]

    def encode_batch(
        self, texts: Sequence[str], *, num_threads: int = 1, is_clean: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts at once; equal to `encode` on each.

        Returns all ids in a row, int32 [sum of lengths], and the lengths, int64 [len(texts)].
        Texts hold no newline unless `is_clean`.
        """
        if not texts:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        clean = list(texts) if is_clean else self.normalization.clean_lines(texts)
        if len(clean) < _FEW:
            arrays = [self.processor.Encode(text, return_type="numpy") for text in clean]
        else:
            arrays = self.processor.Encode(clean, return_type="numpy", num_threads=num_threads)
        lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
        ids = np.concatenate(arrays).astype(np.int32, copy=False)
        if not self.normalization.splits_digit_commas:
            return ids, lengths
        expansions = self._expansions
        if expansions.unknown_needs_text and (ids == self.special.unk).any():
            return self._encode_one_by_one(clean)
        counts = expansions.lengths[ids]
        if counts.max(initial=1) == 1 and not expansions.changed[ids].any():
            return ids, lengths
        return _expand(ids, lengths, counts, expansions)

    def _encode_one_by_one(self, clean: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [self.encode_clean(text) for text in clean]
        lengths = np.array([len(row) for row in rows], np.int64)
        return np.array([i for row in rows for i in row], np.int32), lengths

    @functools.cached_property
    def _expansions(self) -> "_Expansions":
        """What each id becomes under the digit-comma rule: itself, or several ids."""
        lengths = np.ones(self.vocab_size, np.int64)
        changed = np.zeros(self.vocab_size, bool)
        values: list[int] = []
        for i, piece in enumerate(self.pieces):
            if _ends_in_digit_comma(piece):
                new = [self.piece_to_id(part) for part in self._split_digit_comma(piece)]
                lengths[i], changed[i] = len(new), True
                values += new
            else:
                values.append(i)
        # Ids alone do not tell the text of an unknown piece. Its text matters only if it can end
        # in a comma or spell another piece, so only if a character of these is itself unknown.
        known = set(self.pieces)
        spelled_by_unknowns = any(
            len(piece) > 1 and not any(character in known for character in piece)
            for piece in self.pieces
        )
        return _Expansions(
            lengths=lengths,
            starts=np.cumsum(lengths) - lengths,
            values=np.array(values, np.int32),
            changed=changed,
            unknown_needs_text="," not in known or spelled_by_unknowns,
        )

    def encode_with_offsets(self, text: str) -> tuple[list[int], np.ndarray]:
        """Cleans and encodes one text and says where each id stands in the text as given.

        Returns the ids, equal to `encode(text)`, and spans int64 [len(ids), 2], counted in
        characters: ``text[begin:end]`` is what the piece was made from, without the blank before
        it. A lone word mark has an empty span. Pieces made from one character (such as the "1" and
        the "2" of "½") all carry the span of that character.
        """
        clean, origins = self.normalization.clean_with_spans(text)
        return self._locate(text, clean, origins, list(self.processor.EncodeAsPieces(clean)))

    def encode_batch_with_offsets(
        self, texts: Sequence[str], *, num_threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`encode_with_offsets` of many texts at once.

        Returns all ids in a row, int32 [sum of lengths], their spans, int64 [sum of lengths, 2],
        each counted from the beginning of its own text, and the lengths, int64 [len(texts)].
        """
        cleaned = [self.normalization.clean_with_spans(text) for text in texts]
        clean = [text for text, _ in cleaned]
        if len(clean) < _FEW:
            pieces = [list(self.processor.EncodeAsPieces(text)) for text in clean]
        else:
            pieces = self.processor.EncodeAsPieces(clean, num_threads=num_threads)
        found = [
            self._locate(text, *pair, parts)
            for text, pair, parts in zip(texts, cleaned, pieces, strict=True)
        ]
        ids = [i for row, _ in found for i in row]
        spans = np.concatenate([np.zeros((0, 2), np.int64), *[spans for _, spans in found]])
        return np.array(ids, np.int32), spans, np.array([len(row) for row, _ in found], np.int64)

    def _locate(
        self, text: str, clean: str, origins: np.ndarray, pieces: list[str]
    ) -> tuple[list[int], np.ndarray]:
        """Ids and spans in `text` of the pieces that SentencePiece cuts its clean form into."""
        pieces, ranges = self._pieces_with_ranges(pieces)
        known, unk = self._ids, self.special.unk
        ids = [known.get(piece, unk) for piece in pieces]
        if not ids:
            return [], np.zeros((0, 2), np.int64)
        normal, sources = self.processor.Normalize(clean, with_offsets=True)
        spans = _spans_in_clean_text(normal, np.array(sources, np.int64), ranges)
        edges = np.concatenate([origins, [[len(text), len(text)]]])
        begins, ends = spans.T
        first = edges[begins, 0]
        return ids, np.stack([first, np.where(ends > begins, edges[ends - 1, 1], first)], axis=1)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.pieces)}

    @functools.cached_property
    def _bytes(self) -> dict[str, bool]:
        """The pieces that spell bytes, and whether a byte continues a character."""
        return {
            piece: 0x80 <= int(piece[1:-1], 16) < 0xC0
            for i, piece in enumerate(self.pieces)
            if self.processor.IsByte(i)
        }

    def _pieces_with_ranges(self, pieces: list[str]) -> tuple[list[str], np.ndarray]:
        """Pieces and their ranges [pieces, 2] in what SentencePiece made of clean text."""
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        if self._bytes and not self._bytes.keys().isdisjoint(pieces):
            # Of a character spelled in bytes, the first one takes the place, the others share it.
            inner = np.array([self._bytes.get(piece, False) for piece in pieces], np.int64)
            sizes[[piece in self._bytes for piece in pieces]] = 1
            ends = np.cumsum(sizes - inner)
        else:
            ends = np.cumsum(sizes)
        ranges = np.stack([ends - sizes, ends], axis=1)
        if not self.normalization.splits_digit_commas:
            return pieces, ranges
        text = "".join(pieces)
        if not any(text[comma.start() - 1].isdigit() for comma in _COMMA.finditer(text)):
            return pieces, ranges
        new_pieces: list[str] = []
        new_ranges: list[tuple[int, int]] = []
        for piece, (begin, end) in zip(pieces, ranges.tolist(), strict=True):
            if not _ends_in_digit_comma(piece):
                new_pieces.append(piece)
                new_ranges.append((begin, end))
                continue
            parts = self._split_digit_comma(piece)
            whole = "".join(parts).replace(WORD_MARK, "") == piece.replace(WORD_MARK, "")
            at = begin + piece.startswith(WORD_MARK)
            for part in parts[:-1]:
                width = len(part.replace(WORD_MARK, ""))
                new_ranges.append((at, at + width) if whole else (begin, end - 1))
                at += width
            new_ranges.append((end - 1, end))
            new_pieces += parts
        return new_pieces, np.array(new_ranges, np.int64).reshape(-1, 2)


@dataclasses.dataclass(frozen=True)
class _Expansions:
    """Id i becomes ``values[starts[i] : starts[i] + lengths[i]]``."""

    lengths: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    changed: np.ndarray
    unknown_needs_text: bool


def _spans_in_clean_text(normal: str, sources: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Spans [pieces, 2] in the clean text of ranges in SentencePiece's own normal form of it.

    sources [len(normal) + 1] says where each character came from; characters made together have
    the same source and share all of it. Word marks at the ends of a range do not count.
    """
    points = np.frombuffer(normal.encode("utf-32-le", "surrogatepass"), "<u4")
    places = np.flatnonzero(points != ord(WORD_MARK))
    first = np.searchsorted(places, ranges[:, 0])
    last = np.searchsorted(places, ranges[:, 1]) - 1
    place_or_end = np.append(places, len(normal))
    begins = sources[place_or_end[first]]
    following = np.searchsorted(sources, sources[place_or_end[last]], side="right")
    ends = np.append(sources, sources[-1])[following]
    return np.stack([begins, np.where(last >= first, ends, begins)], axis=1)


def _ends_in_digit_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _expand(
    ids: np.ndarray, lengths: np.ndarray, counts: np.ndarray, expansions: _Expansions
) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(counts)
    within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    expanded = expansions.values[np.repeat(expansions.starts[ids], counts) + within]
    borders = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(lengths)])]
    return expanded, np.diff(borders)
