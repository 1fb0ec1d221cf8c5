import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.qa_files import file_of
from xlnet_jax.tasks.qa import chinese_answers
from xlnet_jax.tasks.qa.chinese_answers import exact_match, f1, segments


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("在XLNet-mid上", ["在", "xlnet", "-", "mid", "上"]),
        ("2,000,000名 5.4B", ["2,000,000", "名", "5.4b"]),
        ("he can't 'tis O'Neil's", ["he", "ca", "n't", "'t", "is", "o'neil", "'s"]),
        ("can't. rock'n'roll x.", ["can't.", "rock", "'", "n'roll", "x", "."]),
        ('say "no" (x)', ["say", "``", "no", "''", "(", "x", ")"]),
        ("a...b--c; 50%", ["a", "...", "b", "-", "-", "c", ";", "50", "%"]),
        ("日本語のΣΑΣ İ", ["日", "本", "語", "のσασ", "i"]),
        ("gimme «x»", ["gim", "me", "«", "x", "»"]),
        (" ，。 ", ["，", "。"]),
    ],
)
def test_characters_punctuation_and_words(text, wanted):
    assert segments(text, without_punctuation=False) == wanted


def test_words_grow_together_without_punctuation():
    assert segments("XLNet-mid，模型", without_punctuation=True) == ["xlnetmid", "模", "型"]
    assert chinese_answers.remove_punctuation(" A_b·，c。 ") == "abc"


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_the_first_of_the_longest_common_runs(one, other):
    begin, length = chinese_answers.longest_common_run(one, other)
    spans = itertools.combinations(range(len(one) + 1), 2)
    common = [(b - a, -a) for a, b in spans if one[a:b] in other]
    longest = max((n for n, _ in common), default=0)
    assert length == longest
    assert one[begin : begin + length] in other
    if longest:
        first_end = min(n - a for n, a in common if n == longest)
        assert begin + length == first_end


def test_scores_are_the_best_over_the_answers():
    assert f1(["甘肃省西北部", "甘肃省"], "甘肃") == pytest.approx(0.8)
    assert f1(["甘肃"], "北部") == 0
    assert (exact_match(["甘肃。", "北"], "，甘肃"), exact_match(["甘肃"], "甘")) == (1, 0)


def test_the_report_counts_missing_predictions_as_wrong():
    file = file_of(("敦煌在甘肃", [("哪里", [("甘肃", 3)]), ("谁", [("敦煌", 0), ("敦", 0)])]))
    found = chinese_answers.chinese_report(file.questions, {"q0": "在甘肃"})
    assert found == {"average": 20.0, "f1": 40.0, "em": 0.0, "total": 2, "skip": 1}


def test_a_question_without_an_answer_cannot_be_scored():
    file = file_of(("敦煌在甘肃", [("哪里", [])]))
    with pytest.raises(ValueError, match=r"'q0' \(data\[0\].*\) has no answer; .*scoring=squad"):
        chinese_answers.chinese_report(file.questions, {"q0": ""})
