import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tasks.qa_files import CHINESE, ENGLISH
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.tasks.qa import alignment

REFERENCE = Normalization("reference")
# Nine marks vanish before the middle, and as much comes in behind it: beyond the first band.
SHIFTED = "a" + "\u0301" * 9 + "bcdefghij" * 8 + "㍿" * 3
SHIFTED_TOO_FAR = "a" + "㍿" * 7 + "bcdefghij" * 8 + "\u0301" * 20 + "zzz"
AT_THE_EDGE = "a㍿½" + "bcdefghij" * 8 + "\u0301" * 4 + "zzz"  # of a band of 7
WIDE = "x" + " " * 40 + "y" * 60
TEXTS = st.text(st.sampled_from([*"ab  c,.1éßﬁ½㍿中国が\u0301\u3000"]), max_size=25)


def slow_matches(text, joined, band):
    """The definition: longest common subsequence with j in [i - band, i + band), and its path."""
    clean = Normalization("reference", collapse_whitespace=False).clean
    value, move = {}, {}
    for i in range(len(text)):
        for j in range(max(0, i - band), min(len(joined), i + band)):
            best = value.get((i - 1, j), 0)
            move[i, j] = "up" if i else None
            if j and value.get((i, j - 1), 0) > best:
                best, move[i, j] = value[i, j - 1], "left"
            if clean(text[i]) == joined[j] and value.get((i - 1, j - 1), 0) + 1 > best:
                best, move[i, j] = value.get((i - 1, j - 1), 0) + 1, "both"
            value[i, j] = best
    i, j = len(text) - 1, len(joined) - 1
    length, matches = value.get((i, j), 0), {}
    while i >= 0 and j >= 0 and move.get((i, j)):
        step = move[i, j]
        if step == "both":
            matches[i] = j
        i, j = i - (step != "left"), j - (step != "up")
    return length, matches


def slow_guess(index, place, size, is_start):
    """What a place without a match gets, from its nearest neighbours that have one."""
    if index[place] is not None:
        return index[place]
    left = next((index[k] for k in range(place, -1, -1) if index[k] is not None), None)
    right = next((index[k] for k in range(place, len(index)) if index[k] is not None), None)
    if left is None:
        return (0 if is_start else right - 1) if right >= 1 else right
    if right is None:
        if size is not None and left < size - 1:
            return left + 1 if is_start else size - 1
        return left
    if right > left + 1:
        return left + 1 if is_start else right - 1
    return right if is_start else left


def slow_alignment(text, pieces):
    joined = "".join(pieces).replace("▁", " ")
    band = abs(len(text) - len(joined)) + 5
    for factor in (1, 2):
        length, matches = slow_matches(text, joined, band * factor)
        if length > 0.8 * len(text):
            break
    if not matches or length < 0.8 * len(text):
        return None
    back = [None] * len(joined)
    for i, j in matches.items():
        back[j] = i
    stops = np.cumsum([len(piece) for piece in pieces])
    begins = stops - [len(piece) for piece in pieces]
    starts = [slow_guess(back, b, len(text), True) for b in begins]
    ends = [slow_guess(back, b - 1, len(text), False) for b in stops]
    return starts, ends, [matches.get(i) for i in range(len(text))]


@given(st.lists(TEXTS, max_size=4))
@example(["", "   ", "\u0301"])
@example(["ﬁﬁﬁﬁ", "a" * 12 + "ﬁ½" * 3, "中国が\u0301a\u0301"])
@example([SHIFTED, SHIFTED_TOO_FAR, AT_THE_EDGE, WIDE])
@example(["a" + " " * 14 + "b", "½½½½½½½½ a"])
def test_it_is_the_restricted_common_subsequence(texts):
    for tokenizer in (ENGLISH, CHINESE):
        pieces = [tokenizer.encode_as_pieces(text) for text in texts]
        found = alignment.align(texts, pieces, REFERENCE)
        for text, parts, one in zip(texts, pieces, found, strict=True):
            wanted = slow_alignment(text, parts) if text and parts else None
            assert (one is None) == (wanted is None), (text, parts)
            if one is not None and wanted is not None:
                starts, ends, matches = wanted
                assert one.begins.tolist() == starts
                assert (one.ends - 1).tolist() == ends
                assert [m if m >= 0 else None for m in one.to_joined.tolist()] == matches


def test_paragraphs_in_one_batch_do_not_disturb_each_other():
    texts = ["a b" * 9, "½" * 3 + "abc " * 8, "中国 a" * 7 + "\u3000" * 30, "c", "ﬁ" * 6]
    pieces = [ENGLISH.encode_as_pieces(text) for text in texts]
    together = alignment.align(texts, pieces, REFERENCE)
    for text, parts, one in zip(texts, pieces, together, strict=True):
        (alone,) = alignment.align([text], [parts], REFERENCE)
        assert (one is None) == (alone is None)
        if one is not None and alone is not None:
            assert one.begins.tolist() == alone.begins.tolist()
            assert one.ends.tolist() == alone.ends.tolist()


@pytest.mark.parametrize("cells", [1, 400])
def test_batches_of_any_size_give_the_same(monkeypatch, cells):
    texts = [f"In {i}, {'é' * i} or ½ of it" for i in range(12)]
    pieces = [ENGLISH.encode_as_pieces(text) for text in texts]
    wanted = alignment.align(texts, pieces, REFERENCE)
    monkeypatch.setattr(alignment, "_CELLS", cells)
    for one, other in zip(alignment.align(texts, pieces, REFERENCE), wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.to_joined.tolist() == other.to_joined.tolist()
