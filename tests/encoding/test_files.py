"""Encodings as files of three forms: all hold the same, whole or not at all."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from xlnet_jax.encoding import files
from xlnet_jax.encoding.encoder import Encoding

PIECES = ["▁a", "b", "▁ü"]
LAYERS = (12, 0)
TEXTS = ["ab ü", "", "a"]
IDS = [[0, 1, 2], [], [0]]
TOKEN_SPANS = [[[0, 1], [1, 2], [3, 4]], [], [[0, 1]]]
WORD_SPANS = [[[0, 2], [3, 4]], [], [[0, 1]]]
ALL_IDS = [i for ids in IDS for i in ids]
random = np.random.default_rng(0)


def encodings(pooling):
    for text, ids, tokens, words in zip(TEXTS, IDS, TOKEN_SPANS, WORD_SPANS, strict=True):
        spans = {"tokens": tokens, "words": words}.get(pooling, [[0, len(text)]])
        shape = (2, len(spans), 3) if pooling in ("tokens", "words") else (2, 3)
        yield Encoding(
            random.normal(size=shape).astype(np.float32),
            np.array(spans, np.int64).reshape(-1, 2),
            np.array(ids, np.int32),
            text,
        )


def written(path, pooling):
    made = list(encodings(pooling))
    with files.writer(str(path), LAYERS, pooling, PIECES) as write:
        for encoding in made:
            write(encoding)
            assert not path.exists()
    return made


def stacked(made, pooling):
    """[rows, Y, D] over all texts."""
    if pooling in ("tokens", "words"):
        return np.concatenate([encoding.vectors.swapaxes(0, 1) for encoding in made])
    return np.stack([encoding.vectors for encoding in made])


@pytest.mark.parametrize("pooling", ["tokens", "words", "mean"])
def test_npz(tmp_path, pooling):
    made = written(tmp_path / "x.npz", pooling)
    with np.load(tmp_path / "x.npz") as archive:
        arrays = dict(archive)
    np.testing.assert_array_equal(arrays.pop("vectors"), stacked(made, pooling))
    assert arrays.pop("layers").tolist() == [12, 0]
    if pooling != "mean":
        assert arrays.pop("lengths").tolist() == [len(encoding.spans) for encoding in made]
        spans = np.concatenate([encoding.spans for encoding in made])
        np.testing.assert_array_equal(arrays.pop("spans"), spans)
    if pooling == "tokens":
        assert arrays.pop("tokens").tolist() == ALL_IDS
    assert not arrays


@pytest.mark.parametrize("pooling", ["tokens", "words", "mean"])
def test_jsonl(tmp_path, pooling):
    made = written(tmp_path / "x.jsonl", pooling)
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    for line, encoding in zip(lines, made, strict=True):
        entry = json.loads(line)
        assert entry.pop("text") == encoding.text
        layers = entry.pop("layers")
        assert list(layers) == ["12", "0"]
        for numbers, vectors in zip(layers.values(), encoding.vectors, strict=True):
            got = np.array(numbers, np.float32).reshape(vectors.shape)
            np.testing.assert_array_equal(got, vectors)  # to the last bit
        if pooling == "mean":
            assert not entry
        else:
            assert entry.pop("spans") == encoding.spans.tolist()
            (names,) = entry.values()
            wanted = [PIECES[i] for i in encoding.tokens]
            assert names == (wanted if pooling == "tokens" else encoding.text.split())


@pytest.mark.parametrize("pooling", ["tokens", "words", "mean"])
@pytest.mark.parametrize("together", [1, 4096])
def test_parquet(tmp_path, pooling, together, monkeypatch):
    monkeypatch.setattr(files, "_ROWS_TOGETHER", together)
    made = written(tmp_path / "x.parquet", pooling)
    table = pq.read_table(tmp_path / "x.parquet").to_pydict()
    wanted = stacked(made, pooling)
    for place, layer in enumerate(LAYERS):
        got = np.array(table.pop(f"layer_{layer}"), np.float32)
        np.testing.assert_array_equal(got, wanted[:, place])
    numbers = [i for i, encoding in enumerate(made) for _ in encoding.spans]
    assert table.pop("text_number") == numbers
    if pooling == "mean":
        assert table.pop("text") == TEXTS
    else:
        spans = np.concatenate([encoding.spans for encoding in made])
        assert table.pop("begin") == spans[:, 0].tolist()
        assert table.pop("end") == spans[:, 1].tolist()
        names = [PIECES[i] for i in ALL_IDS] if pooling == "tokens" else ["ab", "ü", "a"]
        assert table.pop(pooling[:-1]) == names
    assert not table


@pytest.mark.parametrize("form", files.FORMS)
def test_a_vector_that_is_not_finite_leaves_no_file(tmp_path, form):
    path = tmp_path / f"x.{form}"
    one, two, _ = encodings("mean")
    two.vectors[0, 0] = np.nan

    def write_both():
        with files.writer(str(path), LAYERS, "mean", PIECES) as write:
            write(one)
            write(two)

    with pytest.raises(FloatingPointError, match="text 2 has a vector that is not finite"):
        write_both()
    assert list(tmp_path.iterdir()) == []


def test_unknown_ending():
    with pytest.raises(ValueError, match=r"--output=x.txt: wanted a name that ends in .npz, "):
        files.form_of("x.txt")
    assert [files.form_of(name) for name in ("-", "a/b.NPZ")] == ["jsonl", "npz"]


def test_lines():
    text = "\ufeffeins\r\n\nzwei".encode()
    assert list(files.read_lines(io.BytesIO(text), "x")) == ["eins", "", "zwei"]
    with pytest.raises(ValueError, match=r"x, line 2: not UTF-8 \(invalid start byte\)"):
        list(files.read_lines(io.BytesIO(b"a\n\xff\n"), "x"))
