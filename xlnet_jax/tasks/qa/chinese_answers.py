"""Scores of answers by the rules of CMRC 2018 and DRCD (`cmrc2018_evaluate.py`).

Texts are cut into Chinese characters, listed punctuation and words of other scripts. F1 comes from
the longest run of segments that answer and prediction share, exact match from the texts without
punctuation. Words are cut by the Penn Treebank conventions as NLTK 3.4.5 under Python 2.7 applies
them to a run of text as one sentence; the script itself first looks for sentence ends inside such
a run (with NLTK's Punkt model), which concerns answers of several Latin-script sentences only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from xlnet_jax.data.squad_json import Question

# The script's list; its entry of two ellipsis characters can equal no single character.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("[\u4e00-\u9fa5]")


def segments(text: str, *, without_punctuation: bool) -> list[str]:
    """Chinese characters and punctuation one by one, the rest in words; all in lower case."""
    found: list[str] = []
    run = ""
    for character in _lower(text).strip():
        is_punctuation = character in PUNCTUATION
        if is_punctuation and without_punctuation:
            continue  # and what stands left and right of it grows together
        if is_punctuation or _CHINESE.match(character):
            found += _words(run)
            found.append(character)
            run = ""
        else:
            run += character
    return found + _words(run)


def remove_punctuation(text: str) -> str:
    """Lower case, without blanks around it and without the listed punctuation."""
    return "".join(c for c in _lower(text).strip() if c not in PUNCTUATION)


def longest_common_run(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """Begin in `one`, and length, of the first of the longest runs that both share."""
    begin = longest = 0
    lengths = [0] * (len(other) + 1)
    for i, segment in enumerate(one):
        row = [0] * (len(other) + 1)
        for j, rival in enumerate(other):
            if segment == rival:
                row[j + 1] = lengths[j] + 1
                if row[j + 1] > longest:
                    longest = row[j + 1]
                    begin = i + 1 - longest
        lengths = row
    return begin, longest


def f1(answers: Iterable[str], predicted: str) -> float:
    """Best over the answers: harmonic mean of the shares of the longest common run."""
    found = segments(predicted, without_punctuation=True)
    scores: list[float] = []
    for answer in answers:
        wanted = segments(answer, without_punctuation=True)
        _, common = longest_common_run(wanted, found)
        if common == 0:
            scores.append(0)
            continue
        precision, recall = common / len(found), common / len(wanted)
        scores.append((2 * precision * recall) / (precision + recall))
    return max(scores)


def exact_match(answers: Iterable[str], predicted: str) -> int:
    """1 if an answer is the same after `remove_punctuation`, else 0."""
    return int(remove_punctuation(predicted) in {remove_punctuation(text) for text in answers})


def chinese_report(
    questions: Sequence[Question], predictions: Mapping[str, str]
) -> dict[str, float]:
    """f1, em and their average in percent over all questions; total; skip (without a prediction).

    A question without a prediction counts as wrong. Raises ValueError for one without an answer.
    """
    overlap = exact = 0.0
    skipped = 0
    for question in questions:
        if not question.answers:
            raise ValueError(
                f"question {question.id!r} ({question.where}) has no answer; the rules of CMRC and"
                " DRCD need one: score with config.data.scoring=squad"
            )
        name = question.id.strip()
        if name not in predictions:
            skipped += 1
            continue
        texts = [answer.text for answer in question.answers]
        overlap += f1(texts, predictions[name])
        exact += exact_match(texts, predictions[name])
    total = len(questions)
    shares = {"f1": 100.0 * overlap / total, "em": 100.0 * exact / total}
    average = (shares["em"] + shares["f1"]) * 0.5
    return {"average": average, **shares, "total": total, "skip": skipped}


def _lower(text: str) -> str:
    """Character by character, as Python 2.7 does: no final sigma, no character becomes two."""
    return text.lower() if text.isascii() else "".join(c.lower()[0] for c in text)


# The conventions, in their order: quotes that open, punctuation, brackets and dashes; then, with
# the text between blanks, quotes that close, clitics and contractions. A is for patterns that know
# ASCII classes only.
_A = re.ASCII
_RULES = tuple(
    (re.compile(pattern, flags), into)
    for pattern, into, flags in (
        (r"[«“‘„]|`+", r" \g<0> ", 0),
        (r'^"', r"``", _A),
        (r"``", r" \g<0> ", _A),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` ", _A),
        (r"(?i)'(?!re|ve|ll|[mtsd])(\w)\b", r"' \1", 0),
        (r"([^.])\.([\]\)}>\"'»”’ ]*)\s*$", r"\1 . \2 ", 0),
        (r"([:,])(\D)", r" \1 \2", _A),
        (r"[:,]$", r" \g<0> ", _A),
        (r"\.\.\.", r" ... ", _A),
        (r"[;@#$%&]", r" \g<0> ", _A),
        (r"([^.])\.([\]\)}>\"']*)\s*$", r"\1 .\2 ", _A),
        (r"[?!]", r" \g<0> ", _A),
        (r"([^'])' ", r"\1 ' ", _A),
        (r"[][(){}<>]", r" \g<0> ", _A),
        (r"--", r" -- ", _A),
    )
)
_RULES_BETWEEN_BLANKS = tuple(
    (re.compile(pattern, flags), into)
    for pattern, into, flags in (
        (r"[»”’]", r" \g<0> ", 0),
        (r'"', r" '' ", _A),
        (r"(\S)''", r"\1 '' ", _A),
        (r"([^' ])('[sSmMdD]?) ", r"\1 \2 ", _A),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 ", _A),
        (r"(?i)\b(can)(not)\b", r" \1 \2 ", _A),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 ", _A),
        (r"(?i)\b(gim)(me)\b", r" \1 \2 ", _A),
        (r"(?i)\b(gon)(na)\b", r" \1 \2 ", _A),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 ", _A),
        (r"(?i)\b(lem)(me)\b", r" \1 \2 ", _A),
        (r"(?i)\b(mor)('n)\b", r" \1 \2 ", _A),
        (r"(?i)\b(wan)(na)\s", r" \1 \2 ", _A),
        (r"(?i) ('t)(is)\b", r" \1 \2 ", _A),
        (r"(?i) ('t)(was)\b", r" \1 \2 ", _A),
    )
)


@functools.lru_cache(maxsize=1 << 16)
def _cut_words(run: str) -> tuple[str, ...]:
    for pattern, into in _RULES:
        run = pattern.sub(into, run)
    run = f" {run} "
    for pattern, into in _RULES_BETWEEN_BLANKS:
        run = pattern.sub(into, run)
    return tuple(run.split())


def _words(run: str) -> list[str]:
    return list(_cut_words(run)) if run else []
