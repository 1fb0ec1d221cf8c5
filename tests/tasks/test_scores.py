import numpy as np
import pytest

from xlnet_jax.tasks import scores

LABELS = np.array([0, 0, 0, 1, 1])
FOUND = np.array([0, 0, 1, 1, 0])  # true positives 1, false positives 1, false negatives 1


def test_classes_by_hand():
    names = ("accuracy", "f1", "macro_f1", "matthews_correlation")
    got = scores.class_scores(FOUND, LABELS, names)
    assert list(got) == list(names)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["f1"] == pytest.approx(1 / 2)
    assert got["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # (1·2 - 1·1) / sqrt(2·2·3·3)
    assert got["matthews_correlation"] == pytest.approx(1 / 6)


def test_one_class_alone_is_no_warning_but_zero():
    got = scores.class_scores(np.zeros(5, int), LABELS, ("f1", "matthews_correlation"))
    assert got == {"f1": 0.0, "matthews_correlation": 0.0}


def test_regression_by_hand():
    targets = np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    got = scores.regression_scores(2 * targets + 1, targets)
    assert got["pearson"] == pytest.approx(1)
    assert got["mean_squared_error"] == pytest.approx(np.mean((targets + 1) ** 2))
    swapped = scores.regression_scores(np.array([0.0, 2.0, 1.0, 9.0], np.float32), targets)
    assert swapped["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_correlation_with_a_constant_is_zero():
    targets = np.array([0.0, 1.0], np.float32)
    for found in (np.ones(2, np.float32), targets[:1] * 0):
        got = scores.regression_scores(found, targets[: len(found)])
        assert (got["pearson"], got["spearman"]) == (0.0, 0.0)


def test_several_labels_by_hand():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], bool)
    found = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    got = scores.multi_label_scores(found, labels)
    assert got["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert got["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert got["exact_match"] == pytest.approx(2 / 3)


def test_tags_by_hand():
    tags = [["B-A", "I-A", "O"], ["B-B", "B-B"]]
    found = [["B-A", "I-A", "B-B"], ["B-B", "I-B"]]
    got = scores.tagging_scores(found, tags)
    # Entities: 3 wanted, 3 found, one of them right.
    assert (got["precision"], got["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert got["f1"] == pytest.approx(1 / 3)
    assert got["accuracy"] == pytest.approx(3 / 5)
    none = scores.tagging_scores([["O"]], [["O"]])
    assert none == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


def test_degenerate_runs_are_told():
    same = np.zeros(5, int)
    line = scores.majority_class_warning(same, LABELS, ("no", "yes"))
    assert line.startswith("5 of 5 predictions are 'no', as are 60.0% of the labels: a degenerate")
    assert scores.majority_class_warning(same, None, ("no", "yes")).startswith("5 of 5 pred")
    assert scores.majority_class_warning(FOUND, LABELS, ("no", "yes")) == ""
    assert scores.majority_class_warning(same, same, ("no", "yes")) == ""
    assert scores.majority_class_warning(same[:1], LABELS[:1], ("no", "yes")) == ""
