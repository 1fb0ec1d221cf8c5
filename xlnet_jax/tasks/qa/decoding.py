"""From the starts and ends that the model finds likely to answers, and the files of them.

In every window the best starts are tried with the best ends of each; the spans of all windows of a
question compete by the sum of the two log probabilities, and of equal texts the best stays. Source:
`write_predictions` in the original's run_squad.py.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.features import SpanWindows

NO_WINDOW_ODDS = 1000000  # null odds of a question without a window, as in the original
_NOTHING = -1e6  # log probability of the empty answer where no span is left

Trim = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Beams:
    """What the model says of each window, in the order of the windows.

    Attributes:
        start_log_probs: float [windows, K].
        starts: positions in the window, int [windows, K].
        end_log_probs: of the ends of each start, float [windows, K, L].
        ends: int [windows, K, L].
        answer_logits: higher for questions without an answer, float [windows]; None without that
            head.
    """

    start_log_probs: np.ndarray
    starts: np.ndarray
    end_log_probs: np.ndarray
    ends: np.ndarray
    answer_logits: np.ndarray | None = None

    @classmethod
    def of(cls, predictions: Mapping[str, np.ndarray]) -> Beams:
        """From arrays by the names of the attributes."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.asarray(predictions[name]) for name in names if name in predictions})


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A span as an answer; log probabilities of its start, and of its end given the start."""

    text: str
    start_log_prob: float
    end_log_prob: float


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Answers by question id, in the order of the file.

    Attributes:
        nbest: the best candidates, best first; never empty.
        null_odds: how much speaks for no answer (the lowest of the windows' logits); None without
            that head.
    """

    nbest: dict[str, list[Candidate]]
    null_odds: dict[str, float] | None

    def answers(self) -> dict[str, str]:
        """The best text of each question, whatever the null odds."""
        return {name: candidates[0].text for name, candidates in self.nbest.items()}

    def predictions(self, null_threshold: float = math.inf) -> dict[str, str]:
        """The same, with "" where the null odds are above the threshold."""
        odds = self.null_odds or {}
        return {
            name: "" if odds.get(name, -math.inf) > null_threshold else text
            for name, text in self.answers().items()
        }


def decode(
    windows: SpanWindows, beams: Beams, config: DataConfig, trim: Trim | None = None
) -> Decoded:
    """The n best answers of every question.

    trim: may move the borders of answers inside their first and last piece, see `boundaries`.
    Raises ValueError if there are not as many predictions as windows.
    """
    if len(beams.starts) != len(windows):
        raise ValueError(
            f"{len(beams.starts)} predictions for the {len(windows)} windows of"
            f" {windows.report.path}; wanted one for each, in order"
        )
    window, start, end, first_score, second_score = _candidates(windows, beams, config)
    question = windows.question[window]
    total = first_score + second_score
    order = np.lexsort((np.arange(len(total)), -total, question))
    base = windows.pieces.bounds[windows.paragraphs[question]] + windows.first[window]
    at = (base + start)[order], (base + end)[order]
    begins, ends = trim(*at) if trim else (windows.pieces.begins[at[0]], windows.pieces.ends[at[1]])
    rows = zip(
        begins.tolist(),
        ends.tolist(),
        first_score[order].tolist(),
        second_score[order].tolist(),
        strict=True,
    )
    counts = np.bincount(question, minlength=len(windows.questions)).tolist()
    nbest: dict[str, list[Candidate]] = {}
    blank = config.extraction == "reference"
    for number, (asked, count) in enumerate(zip(windows.questions, counts, strict=True)):
        context = windows.pieces.contexts[windows.paragraphs[number]]
        kept: dict[str, Candidate] = {}
        for _ in range(count):
            begin, stop, one, two = next(rows)
            if len(kept) == config.n_best:
                continue
            text = context[begin:stop].strip()
            if (text or blank) and text not in kept:
                kept[text] = Candidate(text, one, two)
        nbest[asked.id] = list(kept.values()) or [Candidate("", _NOTHING, _NOTHING)]
    return Decoded(nbest, _null_odds(windows, beams.answer_logits))


def _candidates(
    windows: SpanWindows, beams: Beams, config: DataConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Window, start, end and both log probabilities (float64) of every span that may be."""
    starts = beams.starts[:, : config.start_n_top].astype(np.int64)
    ends = beams.ends[:, : config.start_n_top, : config.end_n_top].astype(np.int64)
    number = np.arange(len(windows))[:, None]
    last = windows.length[:, None] - (2 if config.extraction == "reference" else 1)
    sound = (starts <= last) & windows.is_max_context(np.broadcast_to(number, starts.shape), starts)
    lengths = ends - starts[..., None] + 1
    fits = sound[..., None] & (ends <= last[..., None])
    fits &= (lengths >= 1) & (lengths <= config.max_answer_length)
    window, i, j = np.nonzero(fits)
    return (
        window,
        starts[window, i],
        ends[window, i, j],
        beams.start_log_probs[window, i].astype(np.float64),
        beams.end_log_probs[window, i, j].astype(np.float64),
    )


def _null_odds(windows: SpanWindows, logits: np.ndarray | None) -> dict[str, float] | None:
    if logits is None:
        return None
    lowest = np.full(len(windows.questions), np.inf)
    np.minimum.at(lowest, windows.question, logits.astype(np.float64))
    return {
        question.id: value if math.isfinite(value) else NO_WINDOW_ODDS
        for question, value in zip(windows.questions, lowest.tolist(), strict=True)
    }


def nbest_json(decoded: Decoded) -> dict[str, list[dict[str, Any]]]:
    """What nbest_predictions.json holds; probabilities are among the candidates kept."""
    found = {}
    for name, candidates in decoded.nbest.items():
        totals = [c.start_log_prob + c.end_log_prob for c in candidates]
        weights = [math.exp(total - max(totals)) for total in totals]
        found[name] = [
            {"text": c.text, "probability": weight / sum(weights)} | _log_probs(c)
            for c, weight in zip(candidates, weights, strict=True)
        ]
    return found


def _log_probs(candidate: Candidate) -> dict[str, float]:
    return {
        "start_log_prob": candidate.start_log_prob,
        "end_log_prob": candidate.end_log_prob,
    }


def write(
    decoded: Decoded, folder: str | os.PathLike[str], null_threshold: float = math.inf
) -> list[epath.Path]:
    """Writes predictions.json, nbest_predictions.json and, with that head, null_odds.json.

    As the original writes them: id -> text, id -> list of candidates, id -> number.
    """
    root = epath.Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {
        "predictions.json": decoded.predictions(null_threshold),
        "nbest_predictions.json": nbest_json(decoded),
    }
    if decoded.null_odds is not None:
        contents["null_odds.json"] = decoded.null_odds
    for name, content in contents.items():
        (root / name).write_text(json.dumps(content, indent=4) + "\n")
    return [root / name for name in contents]
