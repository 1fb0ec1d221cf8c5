"""Metrics of classification, regression, multi-label and tagging, as the benchmarks define them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

# Per data set, in GLUE's order; the first one picks the best checkpoint.
METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "sts-b": ("pearson", "spearman"),
}
_SAME = 0.99  # share of one class in the predictions from which a run counts as degenerate


def class_scores(
    predicted: Int[np.ndarray, "N"], labels: Int[np.ndarray, "N"], metrics: Sequence[str]
) -> dict[str, float]:
    """Scores of classes by name: accuracy, f1 (of class 1), macro_f1, matthews_correlation.

    GLUE asks for F1 of MRPC and QQP and for Matthews' correlation of CoLA. A correlation or an F1
    that is not defined (one class alone) is 0.
    """
    from sklearn import metrics as sk

    known = {
        "accuracy": lambda: np.mean(predicted == labels),
        "f1": lambda: sk.f1_score(labels, predicted, average="binary", zero_division=0.0),
        "macro_f1": lambda: sk.f1_score(labels, predicted, average="macro", zero_division=0.0),
        "matthews_correlation": lambda: sk.matthews_corrcoef(labels, predicted),
    }
    return {name: float(known[name]()) for name in metrics}


def regression_scores(
    predicted: Float[np.ndarray, "N"], targets: Float[np.ndarray, "N"]
) -> dict[str, float]:
    """Correlations (GLUE's STS-B) and the mean squared error.

    A correlation with a constant, or of fewer than two examples, is not defined and given as 0.
    """
    from scipy import stats

    predicted, targets = predicted.astype(np.float64), targets.astype(np.float64)
    pearson = spearman = 0.0
    if len(targets) > 1 and np.ptp(predicted) > 0 and np.ptp(targets) > 0:
        pearson = float(stats.pearsonr(predicted, targets)[0])
        spearman = float(stats.spearmanr(predicted, targets)[0])
    error = float(np.mean(np.square(predicted - targets)))
    return {"pearson": pearson, "spearman": spearman, "mean_squared_error": error}


def multi_label_scores(
    predicted: Bool[np.ndarray, "N C"], labels: Bool[np.ndarray, "N C"]
) -> dict[str, float]:
    """F1 over all decisions together (micro) and mean F1 of the labels (macro; 0 if undefined).

    `exact_match` is the share of examples with exactly the right set.
    """
    from sklearn.metrics import f1_score

    scores = {
        f"{average}_f1": float(f1_score(labels, predicted, average=average, zero_division=0.0))
        for average in ("micro", "macro")
    }
    return {**scores, "exact_match": float(np.mean((predicted == labels).all(axis=1)))}


def tagging_scores(
    predicted: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Entity F1, precision and recall by seqeval's default (conlleval's) rules; word accuracy.

    Without any entity, F1, precision and recall are 0.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score

    names = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    wanted, found = [list(row) for row in tags], [list(row) for row in predicted]
    scores = {name: float(score(wanted, found, zero_division=0)) for name, score in names.items()}
    pairs = zip(wanted, found, strict=True)
    right = [a == b for row, other in pairs for a, b in zip(row, other, strict=True)]
    return {**scores, "accuracy": float(np.mean(right))}


def majority_class_warning(
    predicted: Int[np.ndarray, "N"], labels: Int[np.ndarray, "N"] | None, names: Sequence[str]
) -> str:
    """A line about a degenerate run, which answers (nearly) always the same; "" if it is none.

    Labels that are themselves nearly all alike are no ground for a warning.
    """
    if len(predicted) < 2 or len(names) < 2:
        return ""
    counts = np.bincount(predicted, minlength=len(names))
    top = int(counts.argmax())
    if counts[top] < _SAME * len(predicted):
        return ""
    said = f"{counts[top]:,} of {len(predicted):,} predictions are {names[top]!r}"
    if labels is None:
        return f"{said}; the run may be degenerate: try another config.seed, or a lower rate"
    shares = np.bincount(labels, minlength=len(names)) / len(labels)
    if shares.max() >= _SAME:
        return ""
    return (
        f"{said}, as are {shares[top]:.1%} of the labels: a degenerate run; try another"
        " config.seed, a lower config.optimizer.learning_rate or more warmup_steps"
    )
