import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from configs import ner
from tests.tasks import tiny_task
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.readers_conll import TaggedSentence
from xlnet_jax.data.readers_rows import Oddities
from xlnet_jax.data.tokenizer import WORD_MARK, Tokenizer
from xlnet_jax.tasks import tagging
from xlnet_jax.tasks.tag_features import WordEncoder, make_split, tag_names
from xlnet_jax.training import run

WORDS = tiny_task.ENGLISH
CHINESE = Tokenizer(
    Path(__file__).parents[1] / "goldens/tokenization/zh/spiece.model", Normalization("reference")
)
TAGS = ("O", "B-X", "I-X")
TEXT = "Malmö B-X\nMuseum I-X\nis O\nopen O\n\nOld O\nPorto B-X\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tags")
    (path / "train.txt").write_text(TEXT)
    (path / "test.txt").write_text("Old\nMuseum\n\nin\n")
    return path


@pytest.fixture(scope="module")
def task(folder):
    file = str(folder / "train.txt")
    return tiny_task.make(
        tagging, train=file, dev=file, test=str(folder / "test.txt"), max_seq_length=16,
        pad_to_multiple=4,
    )  # fmt: skip


def split(*sentences, max_length=32, joined=False, tokenizer=WORDS):
    examples = [
        TaggedSentence(f"s-{i}", tuple(words), tags and tuple(tags), "f", 1)
        for i, (words, tags) in enumerate(sentences)
    ]
    return make_split(
        examples, tokenizer, tags=TAGS, max_length=max_length, joined=joined, oddities=Oddities()
    )


def test_the_first_piece_of_every_word_has_its_tag():
    words = ["Malmö", "in", "2003,", "1,500"]
    pieces = [WORDS.encode(word) for word in words]
    assert min(len(pieces[0]), len(pieces[3])) > 1
    found = split((words, ["B-X", "I-X", "O", "B-X"]))
    assert found.tokens[0].tolist() == [*itertools.chain(*pieces), 4, 3]
    assert found.tokens[0].tolist()[:-2] == WORDS.encode(" ".join(words))
    wanted = []
    for tag, of_word in zip([1, 2, 0, 1], pieces, strict=True):
        wanted += [tag] + [-1] * (len(of_word) - 1)
    assert found.tags[0].tolist() == [*wanted, -1, -1]
    assert found.word_starts[0].tolist() == [tag >= 0 for tag in found.tags[0]]
    assert found.segments[0].tolist() == [0] * (len(wanted) + 1) + [2]


def test_long_sentences_are_cut_between_words():
    words = ["river"] * 3 + ["old"] * 4
    size = [len(WORDS.encode(word)) for word in words]
    found = split((words, ["O"] * 7), (["old"], ["B-X"]), max_length=max(size) + size[-1] + 2)
    assert found.sentences.tolist() == [0] * (len(found.tokens) - 1) + [1]
    assert max(found.tokens.lengths) <= max(size) + size[-1] + 2
    starts = [int(row.sum()) for row in found.word_starts]
    assert (sum(starts[:-1]), starts[-1]) == (7, 1)
    assert len(starts) > 3
    assert found.notes == ["f: 1 sentences in several parts (config.data.max_seq_length)"]


def test_a_word_longer_than_the_rest_is_cut():
    found = split((["Tromsø" * 5, "in"], ["B-X", "O"]), max_length=6)
    assert len(found.tokens[0]) == 6
    assert [int(row.sum()) for row in found.word_starts] == [1, 1]
    assert "f: 1 words longer than config.data.max_seq_length, cut" in found.notes


def test_a_word_without_pieces_keeps_its_place():
    found = split((["in", "\u0301", "old"], ["O", "B-X", "O"]))
    assert found.tokens[0].tolist() == [
        *WORDS.encode("in"), WORDS.special.unk, *WORDS.encode("old"), 4, 3,
    ]  # fmt: skip
    assert [tag for tag in found.tags[0] if tag >= 0] == [0, 1, 0]
    assert found.notes == ["f: 1 words without pieces, read as <unk>"]


def test_joined_words_carry_no_mark():
    sentence = "谁在河边发现了北部海岸的地图"
    found, without = WordEncoder(CHINESE, joined=True).encode(list(sentence))
    assert without == 0
    pieces = [CHINESE.pieces[i] for row in found for i in row]
    known = [piece for piece in pieces if piece != "<unk>"]
    assert known
    assert not any(piece.startswith(WORD_MARK) for piece in known)
    assert set(known) <= set(sentence)
    assert found.lengths.tolist() == [1] * len(sentence)


def test_tags_are_checked_and_may_be_missing():
    with pytest.raises(
        ValueError, match="f:1: unknown tag 'B-Y' in this sentence, wanted one of O"
    ):
        split((["a"], ["B-Y"]))
    found = split((["a", "b"], None))
    assert (found.tags, found.wanted) == (None, None)
    assert tag_names(["PER", "LOC"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_features_and_what_is_stored(task, folder):
    assert task.resolved_data() == {"labels": TAGS}
    assert set(task.features("dev").sequences) == {"tokens", "segment_ids", "tags"}
    assert set(task.features("test").sequences) == {"tokens", "segment_ids"}
    (folder / "none.txt").write_text("a O\n")
    with pytest.raises(ValueError, match=r"none.txt has no tag but O \(config.data.tag_column is"):
        tiny_task.make(tagging, train=str(folder / "none.txt"))
    with pytest.raises(FileNotFoundError, match=r"^config\.data\.train: no file gone\.txt$"):
        tiny_task.make(tagging, train="gone.txt")


def test_every_word_counts_alike_whatever_the_padding(task):
    params, outputs = tiny_task.fresh(task)
    features = task.features("train")
    short, long = (tiny_task.numbers(features.batch(np.array([0, 1, -1]), n)) for n in (12, 16))
    losses, found, total = outputs(params, short)
    chosen = short["tags"] >= 0
    words = chosen.sum(axis=1)
    assert float(total.weight) == words[:2].sum() == 6
    np.testing.assert_allclose(total.total, (losses * words)[:2].sum(), rtol=1e-5)
    again = outputs(params, long)
    np.testing.assert_allclose(again[2].total, total.total, rtol=1e-5)
    tags = [{"tags": list(np.asarray(x["tags"])[:2])} for x in (found, again[1])]
    assert task.tags_of_words("dev", tags[0]) == task.tags_of_words("dev", tags[1])


def test_the_loss_is_that_of_the_first_pieces(task):
    logits = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    batch = task.features("train").batch(np.arange(2), 12)
    made = tiny_task.make(tagging, train=task.data.train, max_seq_length=16)
    made.apply = lambda params, batch, key: logits
    chosen = batch["tags"] >= 0
    nll = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, np.maximum(batch["tags"], 0)[..., None], -1)[..., 0]
    )
    losses, weights = made.token_losses({}, batch, None)
    np.testing.assert_allclose(losses * weights, nll * chosen, rtol=1e-5)


def as_predictions(task, name, tags):
    """Tags by number at the first pieces, as the network would give them."""
    rows, tags = [], iter(tags)
    for starts in task.read(name).word_starts:
        row = np.full(16, 2)
        row[16 - len(starts) :][starts] = [next(tags) for _ in range(int(starts.sum()))]
        rows.append(row)
    return {"tags": rows}


def test_scores_and_warnings(task):
    right = as_predictions(task, "dev", [1, 2, 0, 0, 0, 1])
    assert task.score("dev", right)["f1"] == 1.0
    assert task.warning("dev", right) == ""
    wrong = as_predictions(task, "dev", [1, 0, 0, 0, 0, 1])
    assert task.score("dev", wrong)["f1"] == pytest.approx(0.5)
    nothing = as_predictions(task, "dev", [0] * 6)
    assert task.warning("dev", nothing) == "all 6 words are tagged O: a degenerate run"
    with pytest.raises(ValueError, match="the split 'test' has no tags to score against"):
        task.score("test", as_predictions(task, "test", [0] * 3))


def test_predictions_are_a_word_a_line(task, capsys):
    task.write_predictions("test", as_predictions(task, "test", [0, 1, 0]), "-")
    assert capsys.readouterr().out == "Old\tO\nMuseum\tB-X\n\nin\tO\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("O",)}, "config.data.labels is ('O',), wanted at least two tags"),
        ({"tag_column": 0}, "config.data.word_column and config.data.tag_column are both 0"),
        ({"max_seq_length": 2}, "config.data.max_seq_length is 2"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tagging.DataConfig(**changes).validate()


def test_a_split_that_is_not_given():
    with pytest.raises(ValueError, match=r"config.data.dev is empty; set --config.data.dev=FILE"):
        tagging.DataConfig().open("dev", Oddities())


def test_training_end_to_end(tmp_path):
    config = tiny_task.quick(ner.get_config(), tmp_path)
    names = ("Malmö B-LOC", "Porto B-LOC", "Kraków B-LOC", "Galway B-LOC")
    sentences = [f"the O\nriver O\nof O\n{name}\n" for name in names]
    (tmp_path / "train.txt").write_text("\n".join(sentences))
    config.data.train = config.data.dev = str(tmp_path / "train.txt")
    metrics = run.train(config.to_dict(), str(tmp_path / "run"))
    assert metrics["dev_f1"] == 1.0
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored["data"]["labels"] == ["O", "B-LOC", "I-LOC"]
