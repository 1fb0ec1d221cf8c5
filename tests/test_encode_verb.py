"""`xlnet-jax encode`, from texts in files to vectors in files, and what it refuses."""

import io
import json

import numpy as np
import pytest

import xlnet_jax
from tests.convert import examples
from tests.model import small
from xlnet_jax import cli
from xlnet_jax.convert import writing

TEXTS = ["A first line, with 10 words in it.", "", "Another one"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    writing.write(folder, examples.pretrained(), "hf")
    return folder


def encode(model, source, output, *flags):
    common = ("--pad_to_multiple=16", f"--model={model}", f"--input={source}")
    return cli.main(["encode", *common, f"--output={output}", *flags])


def lines_file(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS))
    return path


def test_vectors_are_those_of_python(model, tmp_path, capsys):
    flags = ("--layers=all", "--pooling=mean", "--length=8", "--stride=4")
    assert encode(model, lines_file(tmp_path), tmp_path / "x.npz", *flags) == 0
    said = capsys.readouterr().err
    assert "1 of 3 texts are without a token" in said
    assert f"3 texts encoded into {tmp_path / 'x.npz'}" in said
    options = {"length": 8, "stride": 4, "pad_to_multiple": 16}
    wanted = xlnet_jax.XLNet.load(model).encode(TEXTS, layers=[0, 1, 2], pooling="mean", **options)
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["layers"].tolist() == [0, 1, 2]
        small.assert_close(archive["vectors"], np.stack([one.vectors for one in wanted]))


def test_standard_input_to_standard_output(model, capfdbinary, monkeypatch):
    text = "".join(f"{text}\n" for text in TEXTS)
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert encode(model, "-", "-", "--long=memory") == 0
    entries = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [entry["text"] for entry in entries] == TEXTS
    assert [len(entry["layers"]["2"]) for entry in entries] == [
        len(entry["tokens"]) for entry in entries
    ]
    assert entries[0]["tokens"][0].startswith("▁")


def test_columns_of_tables_and_objects(model, tmp_path):
    rows = [("1", "Another one"), ("2", "A third")]
    (tmp_path / "x.tsv").write_text("id\tbody\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    (tmp_path / "x.csv").write_text("id,body\n" + "".join(f"{a},{b}\n" for a, b in rows))
    objects = (json.dumps({"id": a, "body": b}) for a, b in rows)
    (tmp_path / "x.jsonl").write_text("".join(f"{line}\n" for line in objects))
    results = []
    for ending in ("tsv", "csv", "jsonl"):
        output = tmp_path / f"{ending}.jsonl"
        flags = ("--column=body", "--pooling=cls")
        assert encode(model, tmp_path / f"x.{ending}", output, *flags) == 0
        results.append(output.read_text())
    assert results[0] == results[1] == results[2]
    assert [json.loads(line)["text"] for line in results[0].splitlines()] == [b for _, b in rows]


WRONG = {
    "model": (("--model=nowhere",), "nowhere"),
    "layer": (("--layers=5",), "layer 5 is asked for, but the network has 2"),
    "pooling": (("--pooling=max",), "pooling is 'max', wanted one of tokens, words"),
    "length": (("--length=1",), "length is 1, wanted at least 3 (--length)"),
    "output": (("--output=x.txt",), "--output=x.txt: wanted a name that ends in .npz"),
    "input": (("--input=nowhere.txt",), "--input=nowhere.txt: no such file"),
    "dtype": (("--dtype=half",), "model.dtype must be one of"),
    "too long": (("--length=5", "--long=error"), "text 1 has"),
    "stride": (
        ("--long=cut", "--stride=4"),
        "--stride=4 is for --long=windows, got --long=cut: leave out",
    ),
    "memory": (
        ("--mem_len=4",),
        "--mem_len=4 is for --long=memory, got --long=windows: leave",
    ),
    "column": (("--column=body",), "--column=body is for .jsonl, .tsv and .csv, got --input="),
    "vocabulary": (("--spiece_model=nowhere.model",), "nowhere.model"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(model, tmp_path, capsys, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags, message = WRONG[name]
    assert encode(model, lines_file(tmp_path), tmp_path / "x.npz", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xlnet-jax encode: error: ")
    assert message in line
    assert not (tmp_path / "x.npz").exists()


FILES = {
    "x.tsv": ("id\ttext\n1\ta\n2\n", "x.tsv, line 3: 1 fields, wanted 2 as in the header line"),
    "y.tsv": ("id\tbody\n1\ta\n", "has the columns ['id', 'body'], wanted 'text' among them"),
    "x.jsonl": ('{"body": "a"}\n', "line 1: wanted a text under the key 'text', the object has"),
    "x.txt": ("", "x.txt holds no text"),
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_files(model, tmp_path, capsys, name):
    content, message = FILES[name]
    (tmp_path / name).write_text(content)
    assert encode(model, tmp_path / name, tmp_path / "out.npz") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_layers_that_are_no_numbers(model, capsys):
    with pytest.raises(SystemExit) as caught:
        encode(model, "-", "-", "--layers=last")
    assert caught.value.code == 2
    assert "wanted whole numbers with commas between, or all; got 'last'" in capsys.readouterr().err
