"""Scores of answers by the rules of SQuAD 1.1 and 2.0 (their evaluation scripts).

The rules for CMRC 2018 and DRCD are in `chinese_answers.py`.
"""

from __future__ import annotations

import collections
import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence

from xlnet_jax.data.squad_json import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

Scores = dict[str, float]


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, without a, an, the, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(gold: str, predicted: str) -> int:
    """1 if both are the same after `normalize`, else 0."""
    return int(normalize(gold) == normalize(predicted))


def f1(gold: str, predicted: str) -> float:
    """Harmonic mean of the shares of common words; of two texts without a word 1."""
    wanted, found = normalize(gold).split(), normalize(predicted).split()
    if not wanted or not found:
        return int(wanted == found)
    common = sum((collections.Counter(wanted) & collections.Counter(found)).values())
    if common == 0:
        return 0
    precision, recall = common / len(found), common / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def raw_scores(
    questions: Iterable[Question], predictions: Mapping[str, str]
) -> tuple[Scores, Scores]:
    """Exact match and F1 of each question that has a prediction: the best over its answers.

    Answers that are nothing after `normalize` do not count; where none is left, "" is right.
    """
    exact: Scores = {}
    overlap: Scores = {}
    for question in questions:
        if question.id not in predictions:
            continue
        predicted = predictions[question.id]
        golds = [a.text for a in question.answers or () if normalize(a.text)] or [""]
        exact[question.id] = max(exact_match(gold, predicted) for gold in golds)
        overlap[question.id] = max(f1(gold, predicted) for gold in golds)
    return exact, overlap


def has_answer(questions: Iterable[Question]) -> dict[str, bool]:
    """Whether a question has an answer in the file, by id."""
    return {question.id: bool(question.answers) for question in questions}


def with_threshold(
    scores: Scores, null_odds: Mapping[str, float], answerable: Mapping[str, bool], limit: float
) -> Scores:
    """The scores if every question whose null odds are above the limit is answered by ""."""
    return {
        name: float(not answerable[name]) if null_odds[name] > limit else score
        for name, score in scores.items()
    }


def summary(exact: Scores, overlap: Scores, answerable: Mapping[str, bool]) -> Scores:
    """Means in percent: of all, of those with and of those without an answer, where there are any.

    `HasAns_…` and `NoAns_…` are there as in the script of SQuAD 2.0. Raises ValueError if nothing
    was scored.
    """
    if not exact:
        raise ValueError("no question has both an answer in the file and a prediction")
    found = _means(exact, overlap, list(exact))
    for prefix, wanted in (("HasAns", True), ("NoAns", False)):
        names = [name for name in exact if answerable[name] is wanted]
        if names:
            means = _means(exact, overlap, names)
            found |= {f"{prefix}_{key}": value for key, value in means.items()}
    return found


def _means(exact: Scores, overlap: Scores, names: Sequence[str]) -> Scores:
    total = len(names)
    return {
        "exact": 100.0 * sum(exact[name] for name in names) / total,
        "f1": 100.0 * sum(overlap[name] for name in names) / total,
        "total": total,
    }


def best_threshold(
    scores: Scores,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> tuple[float, float]:
    """The best score in percent that a threshold on the null odds gives, and that threshold.

    Starts from answering nothing (threshold 0.0), then answers question by question in the order
    of their odds; where odds are equal the threshold between them is tried all the same, as the
    script does.
    """
    current = best = float(sum(not has for has in answerable.values()))
    threshold = 0.0
    for name in sorted(null_odds, key=null_odds.__getitem__):
        if name not in scores:
            continue
        if answerable[name]:
            current += scores[name]
        elif predictions[name]:
            current -= 1
        if current > best:
            best, threshold = current, null_odds[name]
    return 100.0 * best / len(scores), threshold


def best_thresholds(
    exact: Scores,
    overlap: Scores,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> Scores:
    """What the original's training script reports: best scores, thresholds, and shares.

    `has_ans_exact` and `has_ans_f1` are shares (not percent) over the questions with an answer, as
    if each were answered; nan if there are none.
    """
    found: Scores = {}
    for key, scores in (("exact", exact), ("f1", overlap)):
        best, threshold = best_threshold(scores, predictions, null_odds, answerable)
        found |= {f"best_{key}": best, f"best_{key}_thresh": threshold}
    asked = [name for name in null_odds if answerable[name]]
    for key, scores in (("exact", exact), ("f1", overlap)):
        reached = sum(scores.get(name, 0) for name in sorted(asked, key=null_odds.__getitem__))
        found[f"has_ans_{key}"] = reached / len(asked) if asked else math.nan
    return found


def average_precision(
    scores: Scores, null_odds: Mapping[str, float], answerable: Mapping[str, bool]
) -> float:
    """Area under precision over recall in percent, answering in the order of the null odds.

    What the SQuAD 2.0 script writes beside its plots; not part of `squad_report`.
    """
    positives = sum(answerable.values())
    reached = area = recall_before = 0.0
    names = sorted(null_odds, key=null_odds.__getitem__)
    for count, name in enumerate(names, 1):
        if answerable[name]:
            reached += scores[name]
        if count == len(names) or null_odds[name] != null_odds[names[count]]:
            recall = reached / positives
            area += reached / count * (recall - recall_before)
            recall_before = recall
    return 100.0 * area


def squad_report(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    limit: float = math.inf,
) -> Scores:
    """What the SQuAD 2.0 script reports without its plots, and what the original's training adds.

    predictions are the best texts whatever the null odds; limit is the threshold that `exact`
    and `f1` are counted at. Without null odds (SQuAD 1.1) only `summary`.
    """
    answerable = {n: has for n, has in has_answer(questions).items() if n in predictions}
    exact, overlap = raw_scores(questions, predictions)
    if null_odds is None:
        return summary(exact, overlap, answerable)
    found = summary(
        with_threshold(exact, null_odds, answerable, limit),
        with_threshold(overlap, null_odds, answerable, limit),
        answerable,
    )
    return found | best_thresholds(exact, overlap, predictions, null_odds, answerable)
