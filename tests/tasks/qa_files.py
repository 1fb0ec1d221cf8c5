"""Small question files and tokenizers for the tests of span question answering."""

import json
from pathlib import Path

from xlnet_jax.data import squad_json
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer

GOLDENS = Path(__file__).parents[1] / "goldens"
ENGLISH = Tokenizer(GOLDENS / "tokenization/en/spiece.model", Normalization("reference"))
CHINESE = Tokenizer(GOLDENS / "tokenization/zh/spiece.model", Normalization("reference"))
TRAIN_JSON = GOLDENS / "squad_features/original/train.json"


def content(*paragraphs):
    """(context, [(question, [(text, start)], more keys), ...]) each; ids q0, q1, ... in order."""
    number = 0
    made = []
    for context, questions in paragraphs:
        asked = []
        for text, answers, *more in questions:
            one = {"id": f"q{number}", "question": text}
            if answers is not None:
                one["answers"] = [{"text": t, "answer_start": s} for t, s in answers]
            asked.append(one | (more[0] if more else {}))
            number += 1
        made.append({"context": context, "qas": asked})
    return {"version": "test", "data": [{"title": "t", "paragraphs": made}]}


def file_of(*paragraphs):
    return squad_json.parse(content(*paragraphs), "some.json")


def written(path, *paragraphs):
    path.write_text(json.dumps(content(*paragraphs)))
    return str(path)
