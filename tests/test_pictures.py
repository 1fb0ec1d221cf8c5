import dataclasses
import io

import matplotlib.image
import numpy as np
import pytest

from tests.model import small
from xlnet_jax import pictures
from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

TEXT = "the cat sees the dog and the dog sees the cat"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "text.txt").write_text(f"{TEXT}\na dog and a cat\n" * 20)
    train_vocabulary(
        VocabularyConfig(
            input=(str(folder / "text.txt"),),
            output_prefix=str(folder / "spiece"),
            model_type="word",
            vocab_size=32,
            num_threads=1,
            progress=False,
        ),
        report=lambda line: None,
    )
    return Tokenizer(folder / "spiece.model")


def labels(ticks):
    return [label.get_text() for label in ticks]


def test_a_picture_shows_itself():
    picture = pictures.Picture(figsize=(2, 1), dpi=50)
    picture.add_subplot()
    image = matplotlib.image.imread(io.BytesIO(picture._repr_png_()))
    assert image.shape[:2] == (50, 100)


def test_curves_hold_the_numbers_of_the_runs(tmp_path):
    for name, rows in {"one": "1,5.0,\n2,4.0,3.5\n", "two": "1,6.0,\n2,2.0,\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,loss,dev_f1\n" + rows)
    runs = {"first": tmp_path / "one", "second": tmp_path / "two"}
    loss, score = pictures.curves(runs, ["loss", "dev_f1"]).axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[5.0, 4.0], [6.0, 2.0]]
    assert labels(loss.get_legend().get_texts()) == ["first", "second"]
    assert [list(line.get_xydata()[0]) for line in score.lines] == [[2.0, 3.5]]
    (alone,) = pictures.curves(tmp_path / "one").axes
    assert alone.get_legend() is None
    with pytest.raises(ValueError, match=r"no run reports 'mfu'; there are dev_f1, loss"):
        pictures.curves(runs, ["mfu"])
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv: no such file"):
        pictures.curves(tmp_path)


def test_streams_see_what_the_order_lets_them():
    # b is predicted first, then d; a and c are given.
    picture = pictures.streams("abcd", np.array([0, 1, 0, 2]), np.array([1, 3]))
    content, query = picture.axes
    np.testing.assert_array_equal(
        content.images[0].get_array(),
        [[1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1]],
    )
    np.testing.assert_array_equal(query.images[0].get_array(), [[1, 0, 1, 0], [1, 1, 1, 0]])
    assert labels(content.get_yticklabels()) == ["a", "b  1", "c", "d  2"]
    assert labels(query.get_yticklabels()) == ["b  1", "d  2"]


def test_a_factorization_order_is_drawn_for_as_many_pieces_as_asked(tokenizer):
    picture = pictures.factorization_order(tokenizer, TEXT, num_predict=4, seed=2)
    content, query = picture.axes
    assert query.images[0].get_array().shape == (4, len(TEXT.split()))
    names = labels(content.get_xticklabels())
    assert sorted(name[-1] for name in names if name[-1].isdigit()) == list("1234")
    own = content.images[0].get_array()
    assert (np.diag(own) == 1).all()
    again = pictures.factorization_order(tokenizer, TEXT, num_predict=4, seed=2)
    np.testing.assert_array_equal(again.axes[0].images[0].get_array(), own)
    with pytest.raises(ValueError, match="num_predict is 12; wanted 1 to 11"):
        pictures.factorization_order(tokenizer, TEXT, num_predict=12)


def test_an_attention_map_of_a_pair_of_texts(tokenizer):
    config = dataclasses.replace(small.CONFIG, n_token=tokenizer.vocab_size)
    random = np.random.default_rng(0)
    params = dict(small.parameters()["params"])
    params["word_embedding"] = random.normal(size=(config.n_token, config.d_model))
    model = Pretrained(config, {"xlnet": params}, tokenizer, "here")
    picture = pictures.attention_map(model, "the cat", text_b="a dog", layer=1, head=1)
    axes = picture.axes[0]
    assert labels(axes.get_xticklabels()) == [
        "▁the", "▁cat", "<sep>", "▁a", "▁dog", "<sep>", "<cls>"
    ]  # fmt: skip
    np.testing.assert_allclose(axes.images[0].get_array().sum(-1), 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="head 2 does not exist; wanted 0 to 1"):
        pictures.attention_map(model, "the cat", layer=0, head=2)
    with pytest.raises(ValueError, match="the text has 202 pieces; wanted 1 to 128"):
        pictures.attention_map(model, "the cat " * 100, layer=0, head=0)
    nameless = Pretrained(config, {"xlnet": params}, None, "here")
    with pytest.raises(ValueError, match="here has no vocabulary"):
        pictures.attention_map(nameless, "the cat", layer=0, head=0)
