import json
import math

import numpy as np
import pytest

from tests.tasks.qa_files import ENGLISH, GOLDENS, file_of
from xlnet_jax.tasks.qa import decoding
from xlnet_jax.tasks.qa.config import DataConfig
from xlnet_jax.tasks.qa.decoding import Beams
from xlnet_jax.tasks.qa.features import make_windows

CONFIG = DataConfig(
    max_seq_length=20, doc_stride=5, max_query_length=6, max_answer_length=4, start_n_top=3,
    end_n_top=2, n_best=4,
)  # fmt: skip
TEXT = "Marta kept the lighthouse on Kihnu island for 31 years. She began in 1952, with oil."


def windows_of(*paragraphs, config=CONFIG):
    return make_windows(file_of(*paragraphs), ENGLISH, config, training=False)


def random_beams(windows, seed, config=CONFIG, answerability=True):
    random = np.random.default_rng(seed)
    shape = len(windows), config.start_n_top, config.end_n_top
    return Beams(
        start_log_probs=-np.sort(random.exponential(size=shape[:2]).astype(np.float32)),
        starts=random.integers(0, 12, shape[:2]),
        end_log_probs=-np.sort(random.exponential(size=shape).astype(np.float32)),
        ends=random.integers(0, 12, shape),
        answer_logits=random.normal(size=shape[0]) if answerability else None,
    )


def slow_nbest(windows, beams, config):
    """All spans of all windows of each question, one by one."""
    last = 1 if config.extraction == "reference" else 0
    found = {}
    for number, question in enumerate(windows.questions):
        spans = []
        for w in np.flatnonzero(windows.question == number):
            context = windows.pieces.contexts[windows.paragraphs[number]]
            begins, ends = windows.spans(w)
            length = int(windows.length[w])
            best = windows.is_max_context(np.full(length, w), np.arange(length))
            for i, start in enumerate(beams.starts[w]):
                for j, end in enumerate(beams.ends[w, i]):
                    if max(start, end) >= length - last or not best[start]:
                        continue
                    if not 0 <= end - start < config.max_answer_length:
                        continue
                    one = float(beams.start_log_probs[w, i])
                    two = float(beams.end_log_probs[w, i, j])
                    spans.append((context[begins[start] : ends[end]].strip(), one, two))
        spans.sort(key=lambda span: -(span[1] + span[2]))
        kept = {}
        for text, one, two in spans:
            if (text or last) and text not in kept and len(kept) < config.n_best:
                kept[text] = (text, one, two)
        found[question.id] = list(kept.values()) or [("", -1e6, -1e6)]
    return found


@pytest.mark.parametrize("extraction", ["fixed", "reference"])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_spans_of_all_windows_compete(extraction, seed):
    config = CONFIG.replace(extraction=extraction)
    asked = [("Who?", []), ("What did she do there?", []), ("When?", [])]
    windows = windows_of((TEXT, asked), ("Ann   came. ", asked), config=config)
    beams = random_beams(windows, seed)
    found = decoding.decode(windows, beams, config)
    got = {
        name: [(c.text, c.start_log_prob, c.end_log_prob) for c in candidates]
        for name, candidates in found.nbest.items()
    }
    assert got == slow_nbest(windows, beams, config)
    for number, name in enumerate(found.null_odds):
        lowest = beams.answer_logits[windows.question == number].min()
        assert found.null_odds[name] == lowest


def certain(windows, start, end):
    shape = len(windows), 1, 1
    return Beams(
        np.zeros(shape[:2]), np.full(shape[:2], start), np.zeros(shape), np.full(shape, end)
    )


def test_the_last_piece_can_end_an_answer_unless_as_in_the_reference():
    windows = windows_of(("Ann came.", [("Who came?", [])]))
    last = int(windows.length[0]) - 1
    for extraction, answer in (("fixed", "."), ("reference", "")):
        config = CONFIG.replace(extraction=extraction)
        found = decoding.decode(windows, certain(windows, last, last), config)
        assert found.answers() == {"q0": answer}


def test_a_blank_answer_is_passed_over_unless_as_in_the_reference():
    windows = windows_of(("哈 Ann came", [("Who came?", [])]))
    begins, ends = windows.spans(0)
    blank = int(np.flatnonzero(begins == ends)[0])
    beams = certain(windows, blank, blank)
    for extraction, log_prob in (("fixed", -1e6), ("reference", 0.0)):
        found = decoding.decode(windows, beams, CONFIG.replace(extraction=extraction))
        (candidate,) = found.nbest["q0"]
        assert (candidate.text, candidate.start_log_prob) == ("", log_prob)


def test_questions_without_a_window_have_the_empty_answer():
    windows = windows_of((" ", [("Who?", [])]), ("Ann came.", [("Who came?", [])]))
    found = decoding.decode(windows, random_beams(windows, 0), CONFIG)
    assert list(found.nbest) == ["q0", "q1"]
    assert found.answers()["q0"] == ""
    assert found.null_odds["q0"] == decoding.NO_WINDOW_ODDS
    nothing = windows_of(("", [("Who?", [])]))
    alone = decoding.decode(nothing, random_beams(nothing, 0, answerability=False), CONFIG)
    assert (alone.answers(), alone.null_odds) == ({"q0": ""}, None)


def test_the_threshold_empties_answers_above_it():
    windows = windows_of((TEXT, [("Who?", [])]), ("Ann came.", [("Who came?", [])]))
    found = decoding.decode(windows, random_beams(windows, 1), CONFIG)
    assert found.predictions() == found.answers()
    low, high = sorted(found.null_odds.values())
    between = found.predictions((low + high) / 2)
    assert sorted(between.values()) == sorted(
        text if found.null_odds[name] == low else "" for name, text in found.answers().items()
    )
    assert found.predictions(high) == found.answers()


def test_as_many_predictions_as_windows_are_wanted():
    windows = windows_of((TEXT, [("Who?", [])]))
    beams = random_beams(windows_of(("Ann came.", [("Who came?", [])])), 0)
    with pytest.raises(ValueError, match=r"1 predictions for the \d+ windows of some\.json"):
        decoding.decode(windows, beams, CONFIG)


def test_the_files_are_written_as_the_original_writes_them(tmp_path):
    folder = GOLDENS / "squad_features/original/predictions_dev_zh_uncased"
    nbest = json.loads((folder / "nbest_predictions.json").read_text())
    decoded = decoding.Decoded(
        {
            name: [
                decoding.Candidate(c["text"], c["start_log_prob"], c["end_log_prob"])
                for c in candidates
            ]
            for name, candidates in nbest.items()
        },
        json.loads((folder / "null_odds.json").read_text()),
    )
    written = decoding.write(decoded, tmp_path / "new")
    assert sorted(path.name for path in written) == [
        "nbest_predictions.json", "null_odds.json", "predictions.json",
    ]  # fmt: skip
    for path in written:
        assert path.read_text() == (folder / path.name).read_text()
    without = decoding.Decoded(decoded.nbest, None)
    names = [path.name for path in decoding.write(without, tmp_path / "other")]
    assert names == ["predictions.json", "nbest_predictions.json"]


def test_probabilities_are_among_the_candidates_kept():
    candidates = [decoding.Candidate(t, -1.0, -n) for n, t in enumerate("abc")]
    (rows,) = decoding.nbest_json(decoding.Decoded({"q": candidates}, None)).values()
    total = sum(math.exp(-1.0 - n) for n in range(3))
    wanted = [math.exp(-1.0 - n) / total for n in range(3)]
    assert [row["probability"] for row in rows] == pytest.approx(wanted, rel=1e-12)
