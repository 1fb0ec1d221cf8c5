"""The layout is compared with the original's in tests/parity."""

import json
import re

import numpy as np
import pytest

from configs import race
from tests.tasks import tiny_task
from xlnet_jax.data.readers_race import ChoiceExample
from xlnet_jax.tasks import multiple_choice
from xlnet_jax.tasks.choice_features import Choices, make_split
from xlnet_jax.tasks.text_features import Ragged
from xlnet_jax.training import run

WORDS = tiny_task.ENGLISH


def write_race(folder, answers="BA"):
    """Two questions a level in every split; options that give themselves away."""
    for split in ("train", "dev", "test"):
        for level in ("middle", "high"):
            path = folder / split / level
            path.mkdir(parents=True)
            right = [["the old", "river"][:: 1 if answer == "B" else -1] for answer in answers]
            data = {
                "article": "An apple." if level == "high" else "It",
                "questions": ["What is _ ?", "Who?"],
                "options": right,
                "answers": list(answers),
            }
            if split == "test":
                del data["answers"]
            (path / "1.txt").write_text(json.dumps(data))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_race(tmp_path_factory.mktemp("race"))


@pytest.fixture(scope="module")
def task(folder):
    return tiny_task.make(
        multiple_choice, folder=folder, max_seq_length=20, max_question_length=12, pad_to_multiple=4
    )


def example(context, *choices, label=0, guid="q"):
    return ChoiceExample(guid, context, choices, label, "high")


def rows(context, *choices, max_length=16, max_question_length=8):
    split = make_split(
        [example(context, *choices)], WORDS, max_length=max_length,
        max_question_length=max_question_length,
    )  # fmt: skip
    return [row.tolist() for row in split.tokens], [row.tolist() for row in split.segments]


def test_held_out_files_are_read_before_the_training_begins(folder):
    task = tiny_task.make(
        multiple_choice, train=f"{folder}/train", dev=f"{folder}/nowhere", max_seq_length=20,
        max_question_length=12,
    )  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*/nowhere"):
        _ = task.introduction


def test_every_option_is_read_with_the_text_alone():
    text, first, second = (WORDS.encode(x) for x in ("an apple", "the river", "a bridge of old"))
    tokens, segments = rows("an apple", "the river", "a bridge of old", max_length=32)
    assert tokens == [[*text, 4, *first, 4, 3], [*text, 4, *second, 4, 3]]
    assert segments[0] == [0] * (len(text) + 1) + [1] * (len(first) + 1) + [2]


def test_the_text_is_cut_at_its_end_and_the_question_at_its_beginning():
    text = WORDS.encode("one two three four five six seven eight nine ten")
    asked = WORDS.encode("which of the apples is red and green")
    tokens, _ = rows(
        "one two three four five six seven eight nine ten",
        "which of the apples is red and green", "",
        max_length=12, max_question_length=5,
    )  # fmt: skip
    assert tokens[0] == [*text[: 12 - 3 - 5], 4, *asked[-5:], 4, 3]
    assert tokens[1] == [*text[: 12 - 3], 4, 4, 3]


def test_questions_about_one_text():
    split = make_split(
        [example("a", "x", "y", label=1), example("a", "z", "y"), example("b", "x", "y")],
        WORDS, max_length=16, max_question_length=8,
    )  # fmt: skip
    assert split.labels.tolist() == [1, 0, 0]
    contexts = [row[: row.tolist().index(4)].tolist() for row in split.tokens]
    assert contexts == [WORDS.encode("a")] * 4 + [WORDS.encode("b")] * 2


def test_what_does_not_fit_the_others_is_named():
    with pytest.raises(ValueError, match="r: 3 options, wanted 2 as in the questions before"):
        make_split([example("a", "x", "y"), example("a", *"xyz", guid="r")], WORDS,
                   max_length=16, max_question_length=8)  # fmt: skip
    with pytest.raises(ValueError, match="r has no answer, others of the split have one"):
        make_split([example("a", "x", "y"), example("a", "x", "y", label=None, guid="r")], WORDS,
                   max_length=16, max_question_length=8)  # fmt: skip


def test_options_are_padded_to_the_longest():
    flat = np.array([1, 2, 3, 4, 5, 6], np.int32)
    choices = Choices(Ragged(flat, np.array([1, 3, 1, 1])), 2, 9)
    assert len(choices) == 2
    assert choices[0].tolist() == [[9, 9, 1], [2, 3, 4]]
    assert [x.tolist() for x in choices[1:]] == [[[5], [6]]]
    with pytest.raises(IndexError):
        choices[2]


def test_more_padding_changes_nothing(task):
    params, outputs = tiny_task.fresh(task)
    features = task.features("dev")
    assert features.values["labels"].tolist() == [1, 0, 1, 0]
    assert len(set(task.read("dev").tokens.lengths)) > 1
    batch = tiny_task.numbers(features.batch(np.arange(4), 20))
    losses, found, _ = outputs(params, batch)
    logits = np.asarray(found["logits"])
    assert logits.shape == (4, 2)
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), [1, 0, 1, 0]]
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    # Without the padding that the longer neighbour and the batch make necessary.
    tokens, segments = task.read("dev").tokens, task.read("dev").segments
    shortest = tokens.lengths.min()
    same = [row for row in range(8) if len(tokens[row]) == shortest]
    assert any(len(tokens[row ^ 1]) > shortest for row in same)  # the other option
    alone = {
        "tokens": np.stack([tokens[row] for row in same])[:, None],
        "segment_ids": np.stack([segments[row] for row in same])[:, None].astype(np.int32),
    }
    alone["padding"] = np.zeros(alone["tokens"].shape, bool)
    alone |= {"labels": np.zeros(len(same), np.int32), "weight": np.ones(len(same), np.float32)}
    again = np.asarray(outputs(params, alone)[1]["logits"])
    np.testing.assert_allclose(again[:, 0], logits.reshape(-1)[same], atol=1e-5)


def test_scores_by_level(task):
    found = {"logits": np.array([[0.0, 1], [1, 0], [1, 0], [1, 0]])}
    assert task.score("dev", found) == {
        "accuracy": 0.75, "accuracy_high": 0.5, "accuracy_middle": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="the split 'test' has no answers to score against"):
        task.score("test", found)
    assert task.warning("dev", {"logits": found["logits"][[1, 1, 2, 3]]}).startswith("4 of 4")


def test_letters_are_predicted(task, tmp_path):
    task.write_predictions("test", {"logits": np.eye(4, 2)}, str(tmp_path / "a.jsonl"))
    first, second, *_ = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (first["id"], first["prediction"]) == ("middle/1.txt-0", "A")
    assert (second["id"], second["prediction"]) == ("middle/1.txt-1", "B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "config.data.folder is empty; give the folder of RACE"),
        ({"folder": "x", "levels": "low"}, "config.data.levels is 'low', wanted one of middle, hi"),
        ({"folder": "x", "summary_type": "max"}, "config.data.summary_type is 'max'"),
        (
            {"folder": "x", "summary_type": "first", "count_padding": True},
            "config.data.count_padding=True makes summary_type 'first' depend on the padded length",
        ),
        ({"folder": "x", "max_question_length": 510}, "wanted 1 to 509 (config.data.max_seq_leng"),
        ({"folder": "x", "pad_to_multiple": -1}, "config.data.pad_to_multiple is -1"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        multiple_choice.DataConfig(**changes).validate()


def test_splits_by_path(folder):
    data = multiple_choice.DataConfig(dev=f"{folder}/dev/high/1.txt")
    assert data.path("dev") == f"{folder}/dev/high/1.txt"
    with pytest.raises(
        ValueError, match=r"config.data.train is empty; set it, or config.data.fold"
    ):
        data.path("train")


def test_training_end_to_end(tmp_path):
    config = tiny_task.quick(race.get_config(), tmp_path)
    config.data.folder = write_race(tmp_path / "RACE", "BABB")
    for split in ("train", "dev"):
        for path in (tmp_path / "RACE" / split).glob("*/1.txt"):
            data = json.loads(path.read_text())
            data["questions"] = ["What is _ ?", "Who?", "Who is it?", "_ ?"]
            path.write_text(json.dumps(data))
    config.data.test = ""
    config.data.max_question_length = 6
    metrics = run.train(config.to_dict(), str(tmp_path / "run"))
    assert metrics["dev_accuracy"] == 1.0
