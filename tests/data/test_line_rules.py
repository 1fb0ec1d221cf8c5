import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlnet_jax.data.line_rules import LineRules

EOD = 7
BLANK = None
# A line is blank (None) or a list of tokens, which may be empty where clean-up left nothing.
LINES = st.lists(st.one_of(st.none(), st.lists(st.integers(10, 99), max_size=3)), max_size=14)


def reference(lines, use_eod):
    """The original's loop over the lines of a file, restated: tokens and where the parity flips."""
    tokens, parities, parity = [], [], True
    for line in lines:
        if line is BLANK:
            if not use_eod:
                continue
            parity = not parity
            line = [EOD]
        tokens += line
        parities += [parity] * len(line)
        parity = not parity
    return tokens, [i for i, p in enumerate(parities) if i == 0 or p != parities[i - 1]]


def fixed(lines, use_eod):
    tokens, starts, in_document = [], [], False
    for line in [*lines, BLANK]:
        if line is BLANK:
            tokens += [EOD] * (use_eod and in_document)
            in_document = False
        elif line:
            starts.append(len(tokens))
            tokens += line
            in_document = True
    return tokens, starts


def run(rules, lines, use_eod, cuts=(), ends_document=True):
    machine = LineRules(rules, use_eod=use_eod, eod=EOD)
    edges = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    streams = []
    for begin, end in itertools.pairwise(edges):
        block = lines[begin:end]
        texts = [line for line in block if line is not BLANK]
        blank = np.array([line is BLANK for line in block], bool)
        ids = np.array([i for line in texts for i in line], np.int32)
        streams.append(machine.add(blank, ids, np.array([len(t) for t in texts], np.int64)))
    streams.append(machine.finish(ends_document=ends_document))
    lengths = np.concatenate([s.lengths for s in streams])
    starts = (np.cumsum(lengths) - lengths)[np.concatenate([s.starts for s in streams])]
    tokens = np.concatenate([s.tokens for s in streams])
    documents = np.concatenate([s.documents for s in streams])
    is_eod = np.concatenate([s.is_eod for s in streams])
    return tokens.tolist(), starts.tolist(), documents, is_eod


@given(LINES, st.booleans(), st.lists(st.integers(0, 14), max_size=3))
def test_reference_rules_are_the_originals_in_any_blocks(lines, use_eod, cuts):
    assert run("reference", lines, use_eod, cuts)[:2] == reference(lines, use_eod)


@given(LINES, st.booleans(), st.lists(st.integers(0, 14), max_size=3))
def test_fixed_rules_are_as_stated_in_any_blocks(lines, use_eod, cuts):
    tokens, starts, documents, is_eod = run("fixed", lines, use_eod, cuts)
    assert (tokens, starts) == fixed(lines, use_eod)
    if use_eod:
        assert len(set(documents.tolist())) == is_eod.sum()  # one <eod> each
    assert (np.diff(documents) >= 0).all()


@pytest.mark.parametrize(
    ("lines", "by_reference", "by_fixed"),
    [
        # <eod> belongs to the sentence before it; none at the end of a file unless fixed.
        ([[1], [2], BLANK, [3]], ([1, 2, 7, 3], [0, 1, 3]), ([1, 2, 7, 3, 7], [0, 1, 3])),
        # Blank lines in a row, and before the first text.
        ([BLANK, [1], BLANK, BLANK], ([7, 1, 7, 7], [0, 1]), ([1, 7], [0])),
        # A line without pieces makes its neighbours one sentence, but for the fixed rules.
        ([[1], [], [2], [3]], ([1, 2, 3], [0, 2]), ([1, 2, 3, 7], [0, 1, 2])),
        ([BLANK, BLANK], ([7, 7], [0]), ([], [])),
    ],
)
def test_the_two_sets_of_rules_differ_as_stated(lines, by_reference, by_fixed):
    assert run("reference", lines, True)[:2] == by_reference
    assert run("fixed", lines, True)[:2] == by_fixed


def test_a_part_of_a_file_that_goes_on_elsewhere_closes_no_document():
    assert run("fixed", [[1], [2]], True, ends_document=False)[0] == [1, 2]


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match=r"'strict': wanted reference or fixed \(--line_rules\)"):
        LineRules("strict", use_eod=True, eod=EOD)
