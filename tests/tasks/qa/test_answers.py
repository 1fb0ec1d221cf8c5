import math

import pytest

from tests.tasks.qa_files import file_of
from xlnet_jax.tasks.qa import answers

FILE = file_of(
    (
        "Ann met the cat in Rome.",
        [
            ("Who?", [("Ann", 0), ("Ann met", 0)]),
            ("Where?", [("Rome", 19)]),
            ("Why?", [], {"is_impossible": True}),
            ("What?", [("the", 8), ("cat", 12)]),
        ],
    )
)
PREDICTIONS = {"q0": "ann", "q1": "in Rome", "q2": "", "q3": "a cat!"}
NULL_ODDS = {"q0": -2.0, "q1": 1.0, "q2": 3.0, "q3": 0.5}


def test_normalized_words_are_compared():
    assert answers.normalize("The  Cat, a dog; An owl_") == "cat dog owl"
    assert answers.exact_match("a Cat.", "CAT") == 1
    assert answers.f1("the red cat", "red dog") == pytest.approx(0.5)
    assert (answers.f1("the", ""), answers.f1("cat", ""), answers.f1("cat", "dog")) == (1, 0, 0)


def test_the_best_of_several_answers_counts():
    exact, overlap = answers.raw_scores(FILE.questions, PREDICTIONS)
    assert exact == {"q0": 1, "q1": 0, "q2": 1, "q3": 1}
    assert overlap == pytest.approx({"q0": 1, "q1": 2 / 3, "q2": 1, "q3": 1})


def test_the_report_of_squad_1_and_of_squad_2():
    plain = answers.squad_report(FILE.questions, PREDICTIONS)
    assert plain["exact"] == 75
    assert plain["f1"] == pytest.approx(100 * (3 + 2 / 3) / 4)
    assert (plain["total"], plain["HasAns_total"], plain["NoAns_exact"]) == (4, 3, 100)
    assert not any(key.startswith("best") for key in plain)
    found = answers.squad_report(FILE.questions, PREDICTIONS | {"q2": "Rome"}, NULL_ODDS, 2.0)
    assert found["NoAns_exact"] == 100  # its null odds are above 2
    assert found["best_f1_thresh"] == 1.0
    assert found["best_f1"] == pytest.approx(100 * (3 + 2 / 3) / 4)
    assert found["has_ans_f1"] == pytest.approx((2 + 2 / 3) / 3)
    assert answers.squad_report(FILE.questions, {"q0": "Ann"})["total"] == 1


def slow_best(scores, predictions, odds, answerable):
    """Every threshold by itself: questions above it are answered by ""."""
    best = (sum(not has for has in answerable.values()), 0.0)
    for limit in sorted(odds.values()):
        total = 0.0
        for name, score in scores.items():
            answered = odds[name] <= limit
            total += score if answered and answerable[name] else 0
            total += 1 if not answerable[name] and not (answered and predictions[name]) else 0
        if total > best[0]:
            best = (total, limit)
    return 100 * best[0] / len(scores), best[1]


@pytest.mark.parametrize("shift", range(8))
def test_the_best_threshold_is_the_best_of_all(shift):
    names = [f"q{k}" for k in range(20)]
    answerable = {name: k % 3 > 0 for k, name in enumerate(names)}
    scores = {n: (k * 7 % 5) / 4 if answerable[n] else 0.0 for k, n in enumerate(names)}
    predictions = {n: "x" if k % 4 else "" for k, n in enumerate(names)}
    odds = {n: math.sin(k * (shift + 2.3)) * 3 for k, n in enumerate(names)}
    got = answers.best_threshold(scores, predictions, odds, answerable)
    assert got == pytest.approx(slow_best(scores, predictions, odds, answerable))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="no question has both an answer in the file and a pred"):
        answers.squad_report(FILE.questions, {"other": "x"})


def test_average_precision_of_a_perfect_order_is_that_of_all_points():
    answerable = {"a": True, "b": True, "c": False}
    odds = {"a": -1.0, "b": 0.0, "c": 1.0}
    assert answers.average_precision({"a": 1, "b": 1, "c": 0}, odds, answerable) == 100
    tied = dict.fromkeys(odds, 0.0)
    found = answers.average_precision({"a": 1, "b": 1, "c": 0}, tied, answerable)
    assert found == pytest.approx(100 * 2 / 3)
