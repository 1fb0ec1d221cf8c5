import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.qa_files import CHINESE, ENGLISH, TRAIN_JSON, file_of
from xlnet_jax.data import squad_json
from xlnet_jax.tasks.qa.config import FIXED, REFERENCE, DataConfig
from xlnet_jax.tasks.qa.features import make_windows

CONFIG = DataConfig(max_seq_length=24, doc_stride=6, max_query_length=8)
TEXT = "Marta kept the lighthouse on Kihnu island for 31 years. She began in 1952, with oil."


def windows_of(*paragraphs, training=True, tokenizer=ENGLISH, **changes):
    config = CONFIG.replace(**changes)
    return make_windows(file_of(*paragraphs), tokenizer, config, training=training)


def test_the_layout_is_paragraph_question_and_class_symbol():
    found = windows_of(("Ann came.", [("Who came?", [("Ann", 0)])]))
    special = ENGLISH.special
    paragraph, question = ENGLISH.encode("Ann came."), ENGLISH.encode("Who came?")
    n, m = len(paragraph), len(question)
    (tokens,) = found.rows("tokens")
    assert tokens.tolist() == [*paragraph, special.sep, *question, special.sep, special.cls]
    (segments,) = found.rows("segment_ids")
    assert segments.tolist() == [0] * (n + 1) + [1] * (m + 1) + [2]
    (closed,) = found.rows("cannot_answer")
    assert closed.tolist() == [False] * n + [True] * (m + 2) + [False]
    assert (found.length.tolist(), found.cls.tolist()) == ([n], [n + m + 2])
    assert (tokens.dtype, segments.dtype, closed.dtype) == (np.int32, np.int8, np.bool_)


def slow_windows(total, room, stride):
    spans, start = [], 0
    while start < total:
        length = min(total - start, room)
        spans.append((start, length))
        if start + length == total:
            break
        start += min(length, stride)
    return spans


@settings(max_examples=40)
@given(
    words=st.integers(0, 30),
    asked=st.integers(0, 20),
    length=st.integers(12, 40),
    stride=st.integers(1, 45),
)
def test_windows_and_their_best_context_follow_the_definition(words, asked, length, stride):
    """Windows as the original's loop cuts them; the piece goes to the window with most around."""
    paragraph = " ".join("abcdefg"[i % 7] for i in range(words))
    found = windows_of(
        (paragraph, [(" ".join("x" * asked), []), ("why", [])]),
        training=False,
        max_seq_length=length,
        doc_stride=stride,
    )
    seen = 0
    for number, question in enumerate(found.questions):
        total = int(np.diff(found.pieces.bounds)[0])
        room = length - min(8, len(ENGLISH.encode(question.text))) - 3
        wanted = slow_windows(total, room, stride)
        of_question = found.question == number
        pairs = zip(found.first[of_question], found.length[of_question], strict=True)
        assert [(int(a), int(b)) for a, b in pairs] == wanted
        for k, (start, size) in enumerate(wanted):
            got = found.is_max_context(np.full(size, seen + k), np.arange(size))
            for place in range(size):
                scores = [
                    min(start + place - a, a + b - 1 - start - place) + 0.01 * b
                    if a <= start + place < a + b
                    else -1
                    for a, b in wanted
                ]
                assert got[place] == (scores.index(max(scores)) == k)
        seen += len(wanted)
    assert len(found) == seen
    if seen:
        assert not found.is_max_context(np.zeros(2, int), np.array([-1, 99])).any()


def test_answers_become_the_pieces_that_hold_them():
    why = ("Why?", [], {"is_impossible": True})
    asked = [("What?", [("lighthouse", 15), ("Marta", 0)]), ("When?", [("1952", 69)]), why]
    found = windows_of((TEXT, asked), max_seq_length=64)
    labels = found.labels
    assert labels.unanswerable.tolist() == [False, False, True]
    for k, text in ((0, "lighthouse"), (1, "1952")):
        begins, ends = found.spans(k)
        assert TEXT[begins[labels.starts[k]] : ends[labels.ends[k]]] == text
    assert labels.starts[2] == labels.ends[2] == found.cls[2]


def test_windows_without_the_whole_answer_point_to_the_class_symbol():
    found = windows_of((TEXT, [("When?", [("1952", 69)])]))
    inside = ~found.labels.unanswerable
    assert 0 < inside.sum() < len(found)
    for k in range(len(found)):
        begins, ends = found.spans(k)
        assert inside[k] == (begins[0] <= 69 and ends[-1] >= 73)
        start, end = found.labels.starts[k], found.labels.ends[k]
        if inside[k]:
            assert TEXT[begins[start] : ends[end]] == "1952"
        else:
            assert start == end == found.cls[k]


@settings(max_examples=60)
@given(
    text=st.text(st.sampled_from([*"ab c,1½ﬁé中国\u3000\u0301が"]), min_size=1, max_size=30),
    begin=st.integers(0, 29),
    size=st.integers(1, 10),
)
def test_exact_pieces_cover_the_answer_and_no_piece_more(text, begin, size):
    begin = min(begin, len(text) - 1)
    answer = text[begin : begin + size]
    found = windows_of((text, [("a", [(answer, begin)])]), max_seq_length=200, tokenizer=CHINESE)
    if not found.questions or not len(found):
        assert found.report.vanished == ["q0"] or found.report.empty == ["q0"]
        return
    begins, ends = found.pieces.begins, found.pieces.ends
    first, last = int(found.gold.first[0]), int(found.gold.last[0])
    stripped = begin + len(answer) - len(answer.lstrip()), begin + len(answer.rstrip())
    inside = (ends > stripped[0]) & (begins < stripped[1]) & (ends > begins)
    assert inside.any()
    assert (first, last) == (np.flatnonzero(inside)[0], np.flatnonzero(inside)[-1])
    assert found.gold.characters.tolist() == [list(stripped)]


def test_what_cannot_be_trained_on_is_counted_and_listed():
    file = (TEXT, [
        ("A?", [("lighthouse", 16)]),  # not at its offset
        ("B?", [("light house", 15), ("lighthouse", 15)]),  # the second one is
        ("C?", [("oil.and more", 80)]),  # past the end
        ("D?", None),
        ("E?", []),
        ("F?", [(" ", 5)]),
        ("a b c d e f g h i j", [("oil", 80)]),
        ("G?", [], {"is_impossible": False}),
    ])  # fmt: skip
    found = windows_of(file)
    assert [q.id for q in found.questions] == ["q1", "q4", "q6"]
    report = found.report
    assert (report.questions, report.windows) == (8, len(found))
    assert (report.several_answers, report.unanswerable) == (1, 1)
    assert report.lists() == {
        "question longer than max_query_length, cut": ["q6"],
        "no answer given, left out of training": ["q3", "q7"],
        "answer not at its offset, left out of training": ["q0", "q2"],
        "answer vanishes in clean-up, left out of training": ["q5"],
    }
    totals, *others = report.lines(most=1)
    assert totals.startswith("some.json: 8 questions, ")
    assert "  2 x answer not at its offset, left out of training: q0, ..." in others
    everything = windows_of(file, training=False)
    assert len(everything.questions) == 8
    assert everything.labels is None


def test_a_paragraph_of_blanks_has_no_window():
    found = windows_of(("  \u3000", [("A?", [])]), (TEXT, [("B?", [])]), training=False)
    assert found.report.empty == ["q0"]
    assert set(found.question.tolist()) == {1}


def test_questions_that_are_too_long_are_cut_or_an_error():
    paragraph = (TEXT, [("a b c d e f g h i j", []), ("A?", [])])
    cut = windows_of(paragraph, training=False)
    assert cut.report.cut_questions == ["q0"]
    ids = ENGLISH.encode("a b c d e f g h i j")[:8]
    assert cut.rows("tokens")[0].tolist()[-10:-2] == ids
    with pytest.raises(
        ValueError, match="1 questions have more than 8 pieces, the first is 'q0'"
    ) as e:
        windows_of(paragraph, training=False, long_questions="error")
    assert "config.data.max_query_length" in str(e.value)


def test_the_reference_differs_only_as_stated():
    """Windows and labels are the same; some pieces without text or with marks stand elsewhere."""
    file = squad_json.read(TRAIN_JSON)
    config = CONFIG.replace(max_seq_length=64, doc_stride=32)
    exact = make_windows(file, ENGLISH, config, training=True)
    reference = make_windows(file, ENGLISH, config.replace(**REFERENCE), training=True)
    assert exact.report.unmatched == []
    lost = set(reference.report.unmatched)
    assert lost
    ids = [exact.questions[k].id for k in exact.question]
    kept = [k for k, name in enumerate(ids) if name not in lost]
    names = ("tokens", "segment_ids", "cannot_answer")
    for name in names:
        rows = exact.rows(name)
        ours = [rows[k].tolist() for k in kept]
        assert ours == [row.tolist() for row in reference.rows(name)]
    moved = set()
    for number, k in enumerate(kept):
        context = exact.pieces.contexts[exact.paragraphs[exact.question[k]]]
        for a, b, c, d in zip(*exact.spans(k), *reference.spans(number), strict=True):
            if context[a:b] != context[c:d].strip():
                moved.add((context[a:b], context[c:d].strip()))
    assert moved
    clean = ENGLISH.normalization.clean
    for ours, theirs in moved:  # a lone word mark holds no text; marks fall off the end of a piece
        assert ours == "" or (clean(ours) == clean(theirs) and ours.startswith(theirs[:-1]))
    for name in ("starts", "ends", "unanswerable"):
        wanted = getattr(reference.labels, name)
        assert getattr(exact.labels, name)[kept].tolist() == wanted.tolist()


def test_a_misplaced_answer_is_kept_by_the_reference():
    file = (TEXT, [("A?", [("lighthouse", 16)]), ("B?", [("oil. and", 80)]), ("C?", [("x", 900)])])
    found = windows_of(file, max_seq_length=64, misplaced_answers="keep")
    assert [q.id for q in found.questions] == ["q0", "q1"]
    assert found.report.moved_answers == ["q0", "q1", "q2"]
    assert found.report.misplaced == ["q2"]
    assert found.gold.characters.tolist() == [[16, 26], [80, 84]]


def test_the_behaviours_name_the_same_keys_and_the_defaults_are_fixed():
    assert FIXED.keys() == REFERENCE.keys()
    assert {key: getattr(DataConfig(), key) for key in FIXED} == FIXED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seq_length": 11}, "config.data.max_seq_length is 11; .* at least 12"),
        ({"doc_stride": 0}, "config.data.doc_stride is 0; it must be at least 1"),
        ({"scoring": "bleu"}, "config.data.scoring is 'bleu'; it must be 'squad' or 'chinese'"),
        ({"boundaries": "characters", "alignment": "reference"}, "alignment 'exact', got 'ref"),
        ({"pad_to_multiple": 4}, "start_n_top and config.data.end_n_top are 5 and 5"),
        ({"null_threshold": float("nan")}, "config.data.null_threshold is nan"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes).validate()
    CONFIG.validate()
