"""Losses of fine-tuning against their definitions in float64, and at extreme logits."""

import jax
import numpy as np
import pytest

from xlnet_jax.tasks import losses

random = np.random.default_rng(0)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_cross_entropy():
    logits = random.normal(size=(4, 3, 5)).astype(np.float32)
    labels = random.integers(0, 5, (4, 3))
    wanted = -np.take_along_axis(log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), wanted, rtol=1e-5)
    huge = np.array([[1e4, -1e30, 0.0]], np.float32)
    np.testing.assert_array_equal(losses.cross_entropy(huge, np.array([0])), [0.0])
    half = losses.cross_entropy(jax.numpy.asarray(logits, "bfloat16"), labels)
    assert half.dtype == np.float32


def test_squared_error():
    outputs = np.array([[1.5], [-2.0]], np.float32)
    np.testing.assert_array_equal(losses.squared_error(outputs, np.array([1.0, 1.0])), [0.25, 9.0])


def test_labels_that_may_hold_together():
    logits = random.normal(size=(4, 5)).astype(np.float32)
    labels = random.random((4, 5)) < 0.5
    p = sigmoid(logits)
    wanted = -np.where(labels, np.log(p), np.log(1 - p))
    got = losses.sigmoid_cross_entropy(logits, labels)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(
        losses.multi_label_loss(logits, labels), wanted.mean(axis=1), rtol=1e-5
    )
    extreme = losses.sigmoid_cross_entropy(
        np.float32([200, -200, 200]), np.array([True, False, False])
    )
    np.testing.assert_array_equal(extreme, [0, 0, 200])


def test_spans():
    start, end = random.normal(size=(2, 3, 6)).astype(np.float32)
    starts, ends = np.array([0, 3, 5]), np.array([2, 3, 5])
    rows = np.arange(3)
    wanted = -(log_softmax(start)[rows, starts] + log_softmax(end)[rows, ends]) / 2
    np.testing.assert_allclose(losses.span_loss(start, end, starts, ends), wanted, rtol=1e-5)
    answer, none = np.float32([0.3, -1.0, 2.0]), np.array([True, False, False])
    p = sigmoid(answer)
    wanted = wanted - 0.5 * np.where(none, np.log(p), np.log(1 - p))
    got = losses.span_loss(start, end, starts, ends, answer, none)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="answer_logits need unanswerable"):
        losses.span_loss(start, end, starts, ends, answer)
