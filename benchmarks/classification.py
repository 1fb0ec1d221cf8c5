"""Classification at base size, beside the PyTorch XLNet of transformers with the same weights.

    python -m benchmarks.classification --data=REVIEWS.tsv --real

Three measurements, each of both programs in turn, in float32 on CPU:

    infer   one batch of 16 sequences of 128 tokens, forward only
    train   a fine-tuning step on such a batch: forward, backward, clipping, Adam, dropout on
    real    (--real) every review of a tab-separated file with a header (columns label and text_a,
            as ChnSentiCorp's dev.tsv), at most 256 tokens: ours by `tasks.classification` with
            batches of like lengths, PyTorch with every batch padded to the maximum. Predictions
            of both are compared. Base size takes minutes here.

The vocabulary is trained on the reviews themselves, the weights are random. Each program runs in a
process of its own, as its users run it: ours with the settings of the C library's allocator that
the verbs make, PyTorch with the library's own, unless --same-allocator gives it ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import networks, turns

LENGTH, BATCH, MAX_LENGTH, CLASSES = 128, 16, 256, 2


def fixed_batch(vocab_size: int) -> dict[str, np.ndarray]:
    """Random sequences that fill their length."""
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(10, vocab_size, (BATCH, LENGTH), dtype=np.int32),
        "segment_ids": np.zeros((BATCH, LENGTH), np.int32),
        "padding": np.zeros((BATCH, LENGTH), bool),
        "labels": rng.integers(0, CLASSES, BATCH),
        "weight": np.ones(BATCH, np.float32),
        "index": np.arange(BATCH, dtype=np.int32),
    }


def make_task(args: argparse.Namespace, *, bucketed: bool) -> Any:
    """The classification task over the reviews, with `bucketed` or full-length batches."""
    from xlnet_jax.convert.model_files import read_tokenizer
    from xlnet_jax.model.config import RunConfig
    from xlnet_jax.tasks import classification
    from xlnet_jax.tasks.task import Context

    folder = Path(args.folder)
    tokenizer = read_tokenizer(folder)
    assert tokenizer is not None
    network = networks.ours(args.size, tokenizer.vocab_size)
    data = classification.DataConfig(
        train=args.data, dev=args.data, form="tsv", text_a="text_a", labels=("0", "1"),
        max_seq_length=MAX_LENGTH, pad_to_multiple=32 if bucketed else 0,
    )  # fmt: skip
    context = Context(
        network=lambda vocab_size: network, vocab_size=network.n_token,
        run=RunConfig(scan_layers=not args.unroll), tokenizer=tokenizer, seed=0, batch_size=BATCH,
        eval_batch_size=BATCH, eval_batch_key="train.eval_batch_size", eval_steps=0,
    )  # fmt: skip
    return classification.make_task(data, context)


def ours(args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """Measurements of ours, in seconds."""
    import jax

    from xlnet_jax.convert.pretrained import load_pretrained, merge_params
    from xlnet_jax.training import sharding
    from xlnet_jax.training.evaluation import Predictor
    from xlnet_jax.training.optimizer import OptimizerConfig, make_optimizer
    from xlnet_jax.training.reporting import measure_matmul
    from xlnet_jax.training.state import make_state
    from xlnet_jax.training.step import make_train_step

    task = make_task(args, bucketed=True)
    fresh = jax.device_get(jax.jit(task.init_params)(jax.random.key(0)))
    params = jax.device_put(merge_params(fresh, load_pretrained(args.folder).params)[0])
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.01), 1000, params)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    step = sharding.on_mesh(make_train_step(task, optimizer, seed=0), mesh)
    step = jax.jit(step, donate_argnums=0)
    state = jax.jit(lambda: make_state(task, optimizer, 0))()
    batch = jax.device_put(fixed_batch(task.network.n_token))
    predict = jax.jit(sharding.on_mesh(task.predict, mesh))

    def infer() -> None:
        jax.block_until_ready(predict(params, batch))

    def train() -> None:
        nonlocal state
        state = step(state, batch)
        jax.block_until_ready(state)

    def real() -> None:
        predictions = Predictor(task, mesh, BATCH)(params, "dev")
        np.save(Path(args.folder) / "ours.npy", predictions["logits"])

    infer()
    train()
    timed = {"infer": infer, "train": train, "real": real}
    return {
        **{name: _timed(function) for name, function in timed.items()},
        "matrix": lambda: measure_matmul("float32", 2048),
    }


def peer(args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """The same for PyTorch."""
    import torch
    from transformers import XLNetForSequenceClassification

    model = XLNetForSequenceClassification.from_pretrained(args.folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    batch = {k: torch.as_tensor(v) for k, v in fixed_batch(model.config.vocab_size).items()}
    task = make_task(args, bucketed=False)

    def logits(batch: dict[str, Any]) -> Any:
        return model(
            input_ids=batch["tokens"].long(),
            token_type_ids=batch["segment_ids"].long(),
            attention_mask=(~batch["padding"]).float(),
            use_mems=False,
        ).logits

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            logits(batch)

    def train() -> None:
        model.train()
        loss = torch.nn.functional.cross_entropy(logits(batch), batch["labels"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def real() -> None:
        model.load_state_dict(weights)
        model.eval()
        found = np.zeros((len(task.features("dev")), CLASSES), np.float32)
        with torch.inference_mode():
            for real_batch in task.predict_batches("dev", slice(0, BATCH)):
                tensors = {name: torch.as_tensor(value) for name, value in real_batch.items()}
                kept = real_batch["index"] >= 0
                found[real_batch["index"][kept]] = logits(tensors).numpy()[kept]
        np.save(Path(args.folder) / "peer.npy", found)

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    infer()
    train()
    timed = {"infer": infer, "train": train, "real": real}
    return {
        **{name: _timed(function) for name, function in timed.items()},
        "matrix": lambda: turns.torch_matrix_rate("float32", "cpu", 2048),
    }


def _timed(function: Callable[[], None]) -> Callable[[], float]:
    def measured() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return measured


def prepare(args: argparse.Namespace) -> None:
    """Vocabulary of the reviews and a PyTorch model with random weights, in `args.folder`."""
    import torch
    from transformers import XLNetForSequenceClassification

    from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

    folder = Path(args.folder)
    lines = Path(args.data).read_text(encoding="utf-8").splitlines()[1:]
    (folder / "text.txt").write_text("\n".join(line.partition("\t")[2] for line in lines) + "\n")
    settings = VocabularyConfig(
        input=(str(folder / "text.txt"),), output_prefix=str(folder / "spiece"),
        vocab_size=args.vocab_size, progress=False,
    )  # fmt: skip
    train_vocabulary(settings, report=lambda line: None)
    torch.manual_seed(0)
    config = networks.peer(args.size, args.vocab_size, num_labels=CLASSES)
    model = XLNetForSequenceClassification(config)
    model.save_pretrained(folder)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Lets both programs take turns; see the top of this file."""
    children = turns.start("benchmarks.classification", ("ours", "peer"))
    result: dict[str, Any] = {"size": args.size, "dtype": "float32"}
    for what in ("infer", "train", *(["real"] if args.real else [])):
        rounds = 1 if what == "real" else args.rounds
        seconds: dict[str, list[float]] = {name: [] for name in children}
        for _ in range(rounds):
            for name, child in children.items():
                seconds[name].append(child.ask(what))
        result[f"{what}_seconds"] = {k: [round(s, 3) for s in v] for k, v in seconds.items()}
        pairs = zip(seconds["peer"], seconds["ours"], strict=True)
        result[f"{what}_times_faster"] = round(statistics.median(p / o for p, o in pairs), 2)
    result["matrix_tflops"] = {k: round(c.ask("matrix") / 1e12, 4) for k, c in children.items()}
    for child in children.values():
        child.close()
    if args.real:
        found = {name: np.load(Path(args.folder) / f"{name}.npy") for name in children}
        same = found["ours"].argmax(1) == found["peer"].argmax(1)
        result["examples"] = len(same)
        result["equal_predictions"] = int(same.sum())
        result["largest_difference"] = float(np.abs(found["ours"] - found["peer"]).max())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classification", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, help="tab-separated reviews with a header")
    parser.add_argument("--real", action="store_true", help="also measure all reviews")
    parser.add_argument("--size", choices=networks.SIZES, default="base")
    parser.add_argument("--vocab_size", type=turns.positive, default=8000)
    parser.add_argument("--rounds", type=turns.positive, default=5, help="measured batches of each")
    parser.add_argument("--unroll", action="store_true", help="ours with unrolled layers")
    turns.add_allocator_flag(parser)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=("ours", "peer"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        turns.set_allocator(args)
        turns.serve((ours if args.serve == "ours" else peer)(args))
        return
    if not Path(args.data).is_file():
        parser.error(f"--data={args.data} is no file")
    with tempfile.TemporaryDirectory() as args.folder:
        sys.argv.append(f"--folder={args.folder}")  # so that the children find it
        try:
            prepare(args)
        except ValueError as error:
            parser.error(str(error))
        result = measure(args)
    for key, value in result.items():
        print(f"{key:24}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
