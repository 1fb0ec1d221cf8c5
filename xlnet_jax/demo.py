"""`make demo`: from text to a pretrained and a fine-tuned XLNet in minutes, nothing to download.

The text is what ships inside Python: the language documentation (`pydoc_data.topics`) and
docstrings of the standard library. Fine-tuning tells which part of the library a docstring comes
from, once from the pretrained weights and once from random ones. Each step is the plain command a
user would give, printed before it runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pydoc_data.topics
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from xlnet_jax import demo_docstrings

VOCAB_SIZE = 2000
MARKER = ".xlnet_jax_demo"  # a folder that has it was made here and may be made anew
HELDOUT_EVERY = 20  # every twentieth document is kept from training


def write_text(path: Path, labelled: Path) -> dict[str, int]:
    """Documentation topics and docstrings: a sentence a line, a blank line between documents.

    Into the folder `labelled` go the docstrings with their area; those kept for evaluation are not
    in the text. Gives their numbers, see `demo_docstrings.write_examples`.
    """
    counts = demo_docstrings.write_examples(labelled)
    lines = (labelled / "unlabelled.jsonl").read_text(encoding="utf-8").splitlines()
    docstrings = [json.loads(line)["text"] for line in lines]
    documents = ["\n".join(re.split(r"(?<=[.!?:])\s+", text)) for text in docstrings]
    for topic in sorted(pydoc_data.topics.topics):
        text = pydoc_data.topics.topics[topic]
        paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
        sentences = (s for part in paragraphs for s in re.split(r"(?<=[.!?:])\s+", part) if s)
        documents.append("\n".join(sentences))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return counts


def run(*command: str) -> str:
    """Prints an `xlnet-jax` command, runs it with its progress shown; its last line of output."""
    print(f"\n$ xlnet-jax {shlex.join(command)}", flush=True)
    program = [sys.executable, "-m", "xlnet_jax", *command]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line
    if process.wait() != 0:
        raise SystemExit(process.returncode)
    return last


def make_anew(workdir: Path) -> None:
    """An empty folder, marked as the demo's; clears what an earlier demo left, and nothing else."""
    marker = workdir / MARKER
    if workdir.exists() and not workdir.is_dir():
        raise SystemExit(f"--workdir={workdir} is a file; give a folder")
    if workdir.exists() and any(workdir.iterdir()):
        if not marker.exists():
            raise SystemExit(
                f"--workdir={workdir} holds something else than an earlier demo; give another"
            )
        shutil.rmtree(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    marker.touch()


def pretrain(workdir: Path, steps: int) -> dict[str, float]:
    """Text, vocabulary, shards and a pretrained model; its evaluation."""
    text, shards, model = workdir / "text" / "python.txt", workdir / "shards", workdir / "model"
    labelled = workdir / "docstrings"
    counts = write_text(text, labelled)
    print(f"wrote {text}: {text.stat().st_size:,} bytes of Python's documentation")
    print(
        f"wrote {labelled}: {counts['train']:,} docstrings with their area to learn from,"
        f" {counts['dev']:,} to evaluate on, {counts['unlabelled']:,} without for pretraining"
    )

    prefix, source = workdir / "spiece", f"--input={text}"
    run("vocab", source, f"--output_prefix={prefix}", f"--vocab_size={VOCAB_SIZE}")
    vocabulary, heldout = f"--spiece_model={prefix}.model", f"--heldout_every={HELDOUT_EVERY}"
    run("corpus", source, vocabulary, f"--output_dir={shards}", heldout)
    data = (f"--config.data.train={shards}", f"--config.data.heldout={shards}/heldout")
    shorter: tuple[str, ...] = ()
    if steps:
        warmup = max(1, steps // 10)
        shorter = (
            f"--config.train.steps={steps}",
            f"--config.optimizer.warmup_steps={warmup}",
        )
    run("train", "--config=configs/demo.py", f"--workdir={model}", *data, *shorter)
    return json.loads(run("evaluate", f"--workdir={model}"))


def fine_tune(workdir: Path, epochs: float) -> dict[str, float]:
    """Held-out accuracy of a classifier that starts pretrained, and of one at random."""
    model, labelled = workdir / "model", workdir / "docstrings"
    data = [f"--config.data.{split}={labelled / split}.jsonl" for split in ("train", "dev")]
    starts = {
        "pretrained": [f"--config.init_from={model}"],
        "random": [
            f"--config.model.network={model / 'xlnet_config.json'}",
            f"--config.data.spiece_model={workdir / 'shards' / 'spiece.model'}",
        ],
    }
    shorter = [f"--config.train.epochs={epochs}"] if epochs else []
    accuracy = {}
    for name, start in starts.items():
        folder = workdir / f"classifier_{name}"
        settings = ("--config=configs/demo_classify.py", f"--workdir={folder}", *data, *shorter)
        run("train", *settings, *start)
        accuracy[name] = json.loads(run("evaluate", f"--workdir={folder}"))["dev_accuracy"]
    answers = workdir / "answers.tsv"
    classifier = workdir / "classifier_pretrained"
    run("predict", f"--workdir={classifier}", "--split=dev", f"--output={answers}")
    print("".join(answers.read_text(encoding="utf-8").splitlines(keepends=True)[:4]))
    return accuracy


def report(
    workdir: Path, result: dict[str, float], accuracy: dict[str, float], seconds: float
) -> None:
    """The figures in words, and as one JSON object."""
    model = workdir / "model"
    config = json.loads((model / "config.json").read_text())
    with (model / "metrics.csv").open() as file:
        first = next(float(row["loss"]) for row in csv.DictReader(file) if row["loss"])
    below = result["unigram_entropy"] - result["heldout_loss"]
    print(f"\ntraining loss at the first report   {first:.3f} nats a target")
    print(f"unigram entropy of held-out targets {result['unigram_entropy']:.3f}")
    print(f"held-out loss                       {result['heldout_loss']:.3f}  ({below:.3f} below)")
    for name, value in accuracy.items():
        print(f"{'accuracy from ' + name + ' weights':35} {value:.3f} on held-out docstrings")
    print(f"curves: {model / 'curves.png'}   checkpoints: {model / 'checkpoints'}")
    per_step = config["train"]["batch_size"] * config["data"]["seq_len"]
    summary = {
        "heldout_loss": result["heldout_loss"],
        "unigram_entropy": result["unigram_entropy"],
        "steps": result["step"],
        "train_tokens": result["step"] * per_step,
        "seconds": round(seconds, 1),
        "workdir": str(workdir),
        **{f"accuracy_{name}": round(value, 4) for name, value in accuracy.items()},
    }
    print(json.dumps(summary))


def main() -> None:
    """Every step from text to a classifier; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m xlnet_jax.demo", description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("demo_run"), help="made anew")
    parser.add_argument(
        "--steps", type=int, default=0, help="training steps (default: the config's)"
    )
    parser.add_argument(
        "--finetune_epochs",
        type=float,
        default=0,
        help="fine-tuning epochs (default: the config's)",
    )
    args = parser.parse_args()
    start = time.monotonic()
    make_anew(args.workdir)
    # Both classifiers are one program: what one step compiled the later ones take from here.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(args.workdir / "compiled"))
    pretrained = pretrain(args.workdir, args.steps)
    accuracy = fine_tune(args.workdir, args.finetune_epochs)
    report(args.workdir, pretrained, accuracy, time.monotonic() - start)


if __name__ == "__main__":
    main()
