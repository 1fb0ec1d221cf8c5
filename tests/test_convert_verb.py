"""`xlnet-jax convert`: flags, what is printed, and how wrong input ends."""

import numpy as np
import pytest

from tests.convert import examples
from xlnet_jax import cli
from xlnet_jax.convert import writing
from xlnet_jax.convert.pretrained import load_pretrained


@pytest.fixture
def original(tmp_path):
    writing.write(tmp_path / "tf", examples.pretrained(head="classification:mnli"), "tf")
    return tmp_path / "tf"


def convert(*flags):
    return cli.main(["convert", *map(str, flags)])


def test_there_and_back(original, tmp_path, capsys):
    checkpoint = original / "xlnet_model.ckpt"
    assert convert("--from=tf", "--to=jax", checkpoint, tmp_path / "jax", "--lower") == 0
    printed = capsys.readouterr().out
    assert "23 parameters" in printed
    assert "head classification:mnli" in printed
    loaded = load_pretrained(tmp_path / "jax")
    assert loaded.tokenizer.normalization.lower
    assert convert("--from", "jax", "--to", "hf", tmp_path / "jax", tmp_path / "hf") == 0
    head = "--head=classification:mnli"
    assert convert("--from=hf", "--to=tf", tmp_path / "hf", tmp_path / "again", head) == 0
    again = load_pretrained(tmp_path / "again")
    examples.assert_equal(again.params, loaded.params)
    assert again.tokenizer.normalization.lower
    assert again.head == "classification:mnli"


def test_patterns(original, tmp_path, capsys):
    flags = ["--from=jax", "--to=tf", tmp_path / "jax", tmp_path / "out"]
    writing.write(tmp_path / "jax", examples.pretrained(head="tagging"), "jax")
    assert convert(*flags) == 2
    error = capsys.readouterr().err
    assert "parameter logits/bias: the original has no variable for it" in error
    assert "parameter logits/kernel: the original has no variable for it" in error
    assert not (tmp_path / "out").exists()
    assert convert(*flags, "--allow_unused=logits/b*", "--allow_unused=*/kernel") == 0
    assert "not used, as allowed: logits/bias, logits/kernel" in capsys.readouterr().out


def test_a_difference_ends_with_status_1(original, tmp_path, capsys):
    recorded = tmp_path / "recorded.npz"
    np.savez(recorded, input_ids=np.ones((4, 1), np.int32), sequence_output=np.ones((4, 1, 8)))
    flags = ["--from=tf", "--to=jax", original, tmp_path / "jax"]
    assert convert(*flags, "--verify", f"--recorded={recorded}") == 1
    error = capsys.readouterr().err
    assert error.startswith("xlnet-jax convert: error: --verify: sequence_output differs by")
    assert not (tmp_path / "jax").exists()


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        ("xlnet_model.ckpt.index", [], "no TensorFlow checkpoint in"),
        ("xlnet_config.json", [], "has no xlnet_config.json"),
        ("", ["--head=span_qa"], "--head=span_qa does not say one"),
        ("", ["--spiece_model=no.model"], "no SentencePiece model at no.model"),
    ],
)
def test_wrong_input_ends_in_one_line(original, tmp_path, capsys, change, flags, message):
    if change:
        (original / change).unlink()
    assert convert("--from=tf", "--to=jax", original, tmp_path / "out", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xlnet-jax convert: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--from=jax", "a", "b"], ["--from=x", "--to=tf", "a", "b"]])
def test_a_wrong_command_line(flags):
    with pytest.raises(SystemExit) as left:
        convert(*flags)
    assert left.value.code == 2
