"""`xlnet-jax records`: what it writes is what training draws."""

import glob
import json
from pathlib import Path

import numpy as np
import pytest

from xlnet_jax import cli
from xlnet_jax.data.corpus import CorpusConfig, build_corpus
from xlnet_jax.tasks import sampling, sources

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    text = folder / "text.txt"
    words = np.random.default_rng(0).choice(["one", "two", "three", "four", "five"], 4000)
    text.write_text("\n".join(" ".join(line) + "." for line in words.reshape(-1, 8)) + "\n")
    build_corpus(
        CorpusConfig(
            input=(str(text),),
            spiece_model=str(GOLDENS / "tokenization" / "en" / "spiece.model"),
            output_dir=str(folder / "shards"),
            num_workers=1,
            progress=False,
        ),
        report=lambda line: None,
    )
    return folder / "shards"


def test_records_hold_the_examples_of_each_epoch(shards, tmp_path, capsys):
    config = ["--config=configs/pretrain.py:tiny", f"--config.data.train={shards}"]
    config += [
        "--config.train.batch_size=4",
        "--config.data.seq_len=64",
        "--config.model.mem_len=0",
    ]
    config += ["--config.data.reuse_len=32", "--config.data.perm_size=32"]
    config += ["--config.data.num_predict=10"]
    assert cli.main(["records", *config, f"--output_dir={tmp_path}", "--num_passes=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert len(glob.glob(str(tmp_path / "tfrecords" / "*.tfrecords"))) == 2
    assert json.loads((tmp_path / "corpus_info.json").read_text())["bsz_per_host"] == 4

    from xlnet_jax import config_files
    from xlnet_jax.training import settings

    parsed = settings.parse(config_files.load(config[0][9:], config[1:]).to_dict())
    drawn = sampling.open_source(str(shards), parsed.data, 4)
    vocab_size = drawn.manifest.vocab_size
    read = sources.open_source(str(tmp_path / "tfrecords"), parsed.data, 4, vocab_size=vocab_size)
    steps = drawn.steps_per_epoch
    of_records = {read.batch(step)["tokens"].tobytes() for step in range(2 * steps)}
    of_shards = {drawn.batch(step)["tokens"].tobytes() for step in range(2 * steps)}
    assert of_records == of_shards


def test_no_passes_is_refused(shards, capsys):
    argv = ["records", "--config=configs/pretrain.py:tiny", f"--config.data.train={shards}"]
    assert cli.main([*argv, "--output_dir=x", "--num_passes=0"]) == 2
    assert "--num_passes must be at least 1, got 0" in capsys.readouterr().err
