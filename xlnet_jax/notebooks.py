"""What the notebooks share: the verbs of the command line in this process, and a small model."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from xlnet_jax import cli, demo
from xlnet_jax.convert import model_files
from xlnet_jax.convert.pretrained import load_pretrained
from xlnet_jax.data.manifest import MANIFEST_NAME


def command(*arguments: str | os.PathLike[str]) -> None:
    """Prints `xlnet-jax ARGUMENTS` and runs it in this process, which so keeps the accelerator.

    Raises RuntimeError if it does not end well; what was wrong stands above.
    """
    words = [os.fspath(argument) for argument in arguments]
    print(f"$ xlnet-jax {shlex.join(words)}", flush=True)
    try:
        status = cli.main(words)
    except SystemExit as error:
        status = cli.exit_status(error)
    if status != 0:
        raise RuntimeError(f"xlnet-jax {words[0]} ended with exit status {status}, see above")


def python_text(folder: str | os.PathLike[str]) -> Path:
    """FOLDER/python.txt: documentation that ships inside Python, a sentence a line.

    Docstrings that `demo_docstrings` keeps for evaluation are not in it.
    """
    path = Path(folder) / "python.txt"
    demo.write_text(path, Path(folder) / "docstrings")
    return path


def small_model(folder: str | os.PathLike[str], steps: int) -> Path:
    """The work directory of a small XLNet pretrained for so many steps on Python's documentation.

    A stand-in for a released checkpoint, of no use beyond a look around. What is there already is
    taken as it is, and what was interrupted goes on.
    """
    text, spiece, shards = (Path(folder) / name for name in ("python.txt", "spiece", "shards"))
    source, vocabulary = f"--input={text}", f"{spiece}.model"
    if not Path(vocabulary).exists():
        python_text(folder)
        command("vocab", source, f"--output_prefix={spiece}", f"--vocab_size={demo.VOCAB_SIZE}")
    if not (shards / MANIFEST_NAME).exists():
        model_flag = f"--spiece_model={vocabulary}"
        command("corpus", source, model_flag, f"--output_dir={shards}", "--num_workers=1")
    model = Path(folder) / "model"
    command(
        "train",
        "--config=configs/demo.py",
        f"--workdir={model}",
        f"--config.data.train={shards}",
        f"--config.train.steps={steps}",
        f"--config.optimizer.warmup_steps={max(1, steps // 10)}",
        "--config.train.eval_every=0",
    )
    return model


def random_start(
    checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> tuple[str, str]:
    """Flags with which fine-tuning starts at random, with network and vocabulary of a checkpoint.

    Both are written to `folder`. Raises ValueError if the checkpoint has no vocabulary.
    """
    model = load_pretrained(checkpoint)
    if model.tokenizer is None:
        raise ValueError(f"{model.source} has no vocabulary; put its spiece.model beside it")
    Path(folder).mkdir(parents=True, exist_ok=True)
    model_files.write_model_files(folder, model.config, model.tokenizer)
    return (
        f"--config.model.network={Path(folder) / model_files.CONFIG_NAME}",
        f"--config.data.spiece_model={Path(folder) / model_files.VOCABULARY_NAME}",
    )
