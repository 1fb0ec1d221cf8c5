"""From raw Chinese text to sentiment and question answering, within a time budget.

    python -m benchmarks.chinese --data=DIR --minutes=20

DIR holds cmrc2018/cmrc2018_{trial,dev}.json, drcd/DRCD_dev.json and chnsenticorp/{train,dev}.tsv.
A vocabulary and a small model are pretrained on the paragraphs of CMRC 2018 and DRCD and on the
reviews of ChnSentiCorp (train); then ChnSentiCorp is fine-tuned, and CMRC 2018 (trial, 1,002
questions, evaluated on dev), each from the pretrained weights and from scratch. The steps of each
part are worked out from its share of the budget and from the speed of a short run before it.

The paragraphs of CMRC's dev part are among the pretraining text, without questions and answers. The
training parts of CMRC 2018 and DRCD are not used, so the figures are no match for published ones.
Commands are printed as they run; the table goes to standard output, and to --output as Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

SIZES = {  # Y, D, N
    "tiny": (2, 128, 2),
    "small": (4, 256, 4),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
}
TEXTS = ("cmrc2018/cmrc2018_trial.json", "cmrc2018/cmrc2018_dev.json", "drcd/DRCD_dev.json")
REVIEWS = ("chnsenticorp/train.tsv", "chnsenticorp/dev.tsv")
# Shares of the budget; what is left over is for start-up, evaluation and the short runs.
SHARES = {"pretraining": 0.5, "sentiment": 0.08, "questions": 0.1}
PROBE_STEPS = 20


def write_text(data: Path, path: Path) -> None:
    """Paragraphs and reviews: a sentence a line, a blank line between documents."""
    documents = []
    for name in TEXTS:
        articles = json.loads((data / name).read_text(encoding="utf-8"))["data"]
        documents += [p["context"] for article in articles for p in article["paragraphs"]]
    lines = (data / REVIEWS[0]).read_text(encoding="utf-8").splitlines()[1:]
    documents += [line.partition("\t")[2] for line in lines]
    sentences = ("\n".join(s for s in re.split(r"(?<=[。！？!?])\s*", d) if s) for d in documents)
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")


def run(*command: str) -> str:
    """Prints an `xlnet-jax` command and runs it; its last line of output."""
    print(f"$ xlnet-jax {shlex.join(command)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "xlnet_jax", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:  # what was wrong stands above
        raise SystemExit(done.returncode)
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else ""


def train(folder: Path, config: list[str], seconds: float) -> int:
    """Trains for about so many seconds; returns the steps, found by a short run before."""
    probe = folder.with_name(folder.name + "_probe")
    run("train", f"--workdir={probe}", *config, *_length(PROBE_STEPS, 10**6))
    with (probe / "metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["tokens_per_second"]][-1]
    settings = json.loads((probe / "config.json").read_text())
    length = settings["data"].get("seq_len") or settings["data"]["max_seq_length"]
    per_step = settings["train"]["batch_size"] * length
    steps = max(PROBE_STEPS, int(seconds * float(last["tokens_per_second"]) / per_step))
    run("train", f"--workdir={folder}", *config, *_length(steps, max(1, steps // 10)))
    return steps


def _for_width(width: int, rate: float) -> list[str]:
    """Weights of 0.02, and `rate`, suit a width of 1024; narrow networks hardly move with them."""
    return [
        f"--config.model.init_std={0.02 * (1024 / width) ** 0.5:.3f}",
        f"--config.optimizer.learning_rate={rate * 1024 / width:.1e}",
    ]


def _length(steps: int, log_every: int) -> list[str]:
    return [
        f"--config.train.steps={steps}",
        "--config.train.epochs=0.0",
        f"--config.optimizer.warmup_steps={max(1, steps // 10)}",
        f"--config.checkpoint.save_every={steps}",
        f"--config.report.log_every={min(log_every, 10)}",
    ]


def pretrain(args: argparse.Namespace, folder: Path, dtype: str) -> tuple[dict[str, float], int]:
    """Vocabulary, shards and a pretrained model in FOLDER; its held-out loss, and the steps."""
    text, shards = folder / "text.txt", folder / "shards"
    write_text(args.data, text)
    prefix = f"--output_prefix={folder / 'spiece'}"
    run("vocab", f"--input={text}", prefix, f"--vocab_size={args.vocab_size}")
    vocabulary = f"--spiece_model={folder / 'spiece.model'}"
    run("corpus", f"--input={text}", vocabulary, f"--output_dir={shards}", "--heldout_every=50")
    layers, width, heads = SIZES[args.size]
    config = [
        "--config=configs/pretrain.py:tiny",
        f"--config.model.n_layer={layers}",
        f"--config.model.d_model={width}",
        f"--config.model.n_head={heads}",
        f"--config.model.d_head={width // heads}",
        f"--config.model.d_inner={4 * width}",
        f"--config.model.dtype={dtype}",
        *_for_width(width, 2.5e-4),
        # Few steps: no dropout, every row forwards, a third of the tokens predicted (see demo.py).
        "--config.model.dropout=0.0",
        "--config.model.activation_dropout=0.0",
        "--config.model.attention_dropout=0.0",
        "--config.data.bi_data=False",
        "--config.data.mask_beta=2",
        "--config.data.num_predict=42",
        "--config.data.spans=pieces",
        f"--config.data.train={shards}",
        f"--config.data.heldout={shards}/heldout",
        f"--config.train.batch_size={args.batch}",
        "--config.train.eval_batch_size=4",
        "--config.train.eval_every=0",
    ]
    steps = train(folder / "model", config, 60 * args.minutes * SHARES["pretraining"])
    return json.loads(run("evaluate", f"--workdir={folder / 'model'}")), steps


def fine_tune(
    args: argparse.Namespace, folder: Path, name: str, config: list[str]
) -> dict[str, tuple[dict[str, float], int]]:
    """Scores and steps from the pretrained weights and from scratch; as many steps for both."""
    starts = {
        "pretrained": [f"--config.init_from={folder / 'model'}"],
        "from scratch": [
            f"--config.model.network={folder / 'model' / 'xlnet_config.json'}",
            f"--config.data.spiece_model={folder / 'shards' / 'spiece.model'}",
        ],
    }
    results: dict[str, tuple[dict[str, float], int]] = {}
    for start, flags in starts.items():
        place = folder / f"{name}_{start.replace(' ', '_')}"
        settings = [*config, *flags, "--config.train.eval_every=0"]
        if not results:
            steps = train(place, settings, 60 * args.minutes * SHARES[name])
        else:
            run("train", f"--workdir={place}", *settings, *_length(steps, steps))
        results[start] = (json.loads(run("evaluate", f"--workdir={place}")), steps)
    return results


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks.chinese", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chinese", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--minutes", type=float, default=20, help="the whole budget")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16, help="rows of a pretraining step")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--workdir", type=Path, default=Path("chinese_run"), help="must be new")
    parser.add_argument("--output", type=Path, help="file for the table")
    args = parser.parse_args()
    if missing := [name for name in (*TEXTS, *REVIEWS) if not (args.data / name).is_file()]:
        parser.error(f"--data={args.data} lacks {', '.join(missing)}")
    if args.minutes <= 0:
        parser.error(f"--minutes is {args.minutes:g}, wanted more than 0")
    if args.workdir.exists():
        parser.error(f"--workdir={args.workdir} is there already; give one that is not")
    start = time.monotonic()
    args.workdir.mkdir(parents=True)
    pretrained, steps = pretrain(args, args.workdir, args.dtype)
    rows = [
        ("pretraining, held-out loss", f"{pretrained['heldout_loss']:.3f}", steps),
        ("the same targets, unigram entropy", f"{pretrained['unigram_entropy']:.3f}", 0),
    ]
    common = [f"--config.model.dtype={args.dtype}", *_for_width(SIZES[args.size][1], 1.25e-4)]
    reviews, questions = args.data / "chnsenticorp", args.data / "cmrc2018"
    sentiment = [
        "--config=configs/chnsenticorp.py", *common,
        f"--config.data.folder={reviews}",
        "--config.data.max_seq_length=128",
        "--config.data.pad_to_multiple=128",  # one shape, so that the short run tells the speed
        "--config.data.summary_type=mean",  # in so short a pretraining <cls> learns nothing
    ]  # fmt: skip
    answers = [
        "--config=configs/cmrc2018.py", *common,
        f"--config.data.train={questions / 'cmrc2018_trial.json'}",
        f"--config.data.dev={questions / 'cmrc2018_dev.json'}",
        "--config.data.max_seq_length=256",
        "--config.data.pad_to_multiple=256",
    ]  # fmt: skip
    for start_name, (scores, steps) in fine_tune(
        args, args.workdir, "sentiment", sentiment
    ).items():
        shown = f"{100 * scores['dev_accuracy']:.1f}"
        rows.append((f"ChnSentiCorp dev accuracy, {start_name}", shown, steps))
    for start_name, (scores, steps) in fine_tune(args, args.workdir, "questions", answers).items():
        shown = f"{scores['dev_em']:.1f}/{scores['dev_f1']:.1f}"
        rows.append((f"CMRC 2018 dev EM/F1, {start_name}", shown, steps))
    minutes = (time.monotonic() - start) / 60
    table = ["| what | figure | steps |", "| --- | --- | --- |"]
    table += [f"| {what} | {figure} | {steps or ''} |" for what, figure, steps in rows]
    table.append(f"\n{args.size}, {args.dtype}, {minutes:.1f} minutes: `{_command()}`")
    print("\n".join(table))
    if args.output:
        args.output.write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
