"""A real run in miniature: text, vocabulary and shards by our own code, and configs for them."""

import contextlib
import fcntl
import random
from pathlib import Path

from xlnet_jax import config_files
from xlnet_jax.data.corpus import CorpusConfig, build_corpus
from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

ROOT = Path(__file__).parents[2]

TINY = {
    "model.n_layer": 2,
    "model.d_model": 16,
    "model.n_head": 2,
    "model.d_head": 8,
    "model.d_inner": 32,
    "model.mem_len": 8,
    "data.seq_len": 24,
    "data.reuse_len": 12,
    "data.num_predict": 6,
    "data.perm_size": 12,
    "train.batch_size": 4,
    "train.steps": 12,
    "train.eval_every": 6,
    "train.eval_steps": 2,
    "optimizer.warmup_steps": 2,
    "optimizer.learning_rate": 0.01,
    "checkpoint.save_every": 3,
    "report.log_every": 2,
}


def write_text(path, seed, num_words):
    """Documents of made-up words, some of them far more frequent than others."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(num_words)]
    weights = [1 / (1 + rank) for rank in range(num_words)]

    def sentence():
        return " ".join(rng.choices(words, weights, k=rng.randint(4, 10))) + "."

    documents = ["\n".join(sentence() for _ in range(rng.randint(3, 8))) for _ in range(200)]
    path.write_text("\n\n".join(documents) + "\n")


def build(folder, seed=0, num_words=150, vocab_size=90):
    """FOLDER/shards and FOLDER/shards/heldout."""
    write_text(folder / "text.txt", seed, num_words)
    text = (str(folder / "text.txt"),)
    train_vocabulary(
        VocabularyConfig(
            input=text,
            output_prefix=str(folder / "spiece"),
            vocab_size=vocab_size,
            num_threads=1,
            progress=False,
        ),
        report=lambda line: None,
    )
    build_corpus(
        CorpusConfig(
            input=text,
            spiece_model=str(folder / "spiece.model"),
            output_dir=str(folder / "shards"),
            heldout_every=8,
            num_workers=1,
            progress=False,
        ),
        report=lambda line: None,
    )
    return folder / "shards"


@contextlib.contextmanager
def only_one(folder):
    """Held by one of pytest's worker processes at a time."""
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def flags(shards, workdir, **changes):
    """Command-line flags of a tiny run; `changes` by key, with __ for the point."""
    values = {
        "data.train": shards,
        "data.heldout": shards / "heldout",
        **TINY,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    config = ROOT / "configs" / "pretrain.py"
    settings = [f"--config.{name}={value}" for name, value in values.items()]
    return [f"--config={config}:tiny", f"--workdir={workdir}", *settings]


def config(shards, **changes):
    """The config that `flags` give, as plain dicts."""
    file, _, *overrides = flags(shards, "", **changes)
    return config_files.load(file.removeprefix("--config="), overrides).to_dict()
