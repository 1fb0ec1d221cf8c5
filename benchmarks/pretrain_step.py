"""A pretraining step, beside the PyTorch XLNet of transformers and the machine's own matrix rate.

    python -m benchmarks.pretrain_step                    # base, float32: what this machine can do
    python -m benchmarks.pretrain_step --size large --dtype bfloat16 --batch 16 --compile  # a GPU

A step is forward, backward, clipping and the Adam update, on one batch of segments with memory,
target positions and factorization orders, dropout on. Both programs get the same sizes; dropout
draws differ. Ours predicts with P query rows; the PyTorch model has no other way than its own. Each
runs in a process of its own, as its users run it: ours with the settings of the C library's
allocator that `xlnet-jax train` makes, the peer with the library's own, unless --same-allocator
gives it ours (on CPU it then spends less on page faults). Their steps take turns, and so do the
matrix products measured in each, so that a noisy machine disturbs all alike.

Reported: median seconds a step, useful FLOP/s of our step (`tasks.flops.useful_flops`: six
operations a multiply-add of the products that the objective needs, 0.431e12 a sequence for base at
length 512, memory 384, 85 targets), the matrix-product rate of the faster library, and the ratios.
The formula counts all rows in every layer, as the original makes them; ours, unrolled, makes the
query rows alone in the last one, 5.7 % less work at base size (with --scan all rows).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import networks, turns
from xlnet_jax.model.config import REMAT_POLICIES

LENGTH, MEMORY, REUSE, TARGETS, VOCABULARY = 512, 384, 256, 85, 32_000
MATRIX = {"cpu": 2048, "gpu": 8192}

Timers = tuple[Callable[[], float], Callable[[], float]]


def make_batch(batch: int) -> dict[str, np.ndarray]:
    """Random tokens, two segments, P targets a row and a factorization order over them."""
    rng = np.random.default_rng(0)
    ranks = np.zeros((batch, LENGTH), np.int32)
    positions = np.stack(
        [np.sort(rng.choice(LENGTH - 3, TARGETS, replace=False)) for _ in range(batch)]
    ).astype(np.int32)
    for row, places in zip(ranks, positions, strict=True):
        row[places] = 1 + rng.permutation(TARGETS)
    return {
        "tokens": rng.integers(10, VOCABULARY, (batch, LENGTH), dtype=np.int32),
        "segment_ids": np.tile(np.arange(LENGTH, dtype=np.int32) >= 400, (batch, 1)) * np.int32(1),
        "ranks": ranks,
        "target_positions": positions,
        "target_weights": np.ones((batch, TARGETS), np.float32),
        "reset_memory": np.zeros(batch, bool),
    }


def ours(args: argparse.Namespace) -> Timers:
    """Functions that time one step of ours (seconds) and one matrix product (FLOP/s)."""
    import jax

    from xlnet_jax.model.config import RunConfig
    from xlnet_jax.model.heads import PermutationLanguageModel
    from xlnet_jax.tasks.pretraining import PretrainingTask
    from xlnet_jax.tasks.sampling import PretrainingDataConfig
    from xlnet_jax.training import sharding
    from xlnet_jax.training.optimizer import OptimizerConfig, make_optimizer
    from xlnet_jax.training.reporting import measure_matmul
    from xlnet_jax.training.state import make_state
    from xlnet_jax.training.step import make_train_step

    run = RunConfig(
        mem_len=MEMORY, reuse_len=REUSE, dtype=args.dtype, scan_layers=args.scan, remat=args.remat
    )
    network = networks.ours(args.size, VOCABULARY)

    class Source:
        """What a task asks of its source, without any text."""

        config = PretrainingDataConfig(bi_data=False)
        global_batch_size = args.batch

    task = PretrainingTask(PermutationLanguageModel(network, run), Source())  # type: ignore[arg-type]
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.01), 1000, shapes)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    step = sharding.on_mesh(make_train_step(task, optimizer, seed=0), mesh)
    step = jax.jit(step, donate_argnums=0)
    state = jax.jit(lambda: make_state(task, optimizer, 0))()
    batch = jax.device_put(make_batch(args.batch))

    def timed_step() -> float:
        nonlocal state
        start = time.perf_counter()
        state = step(state, batch)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    size = MATRIX["cpu" if jax.default_backend() == "cpu" else "gpu"]
    return timed_step, lambda: measure_matmul(args.dtype, size)


def peer(args: argparse.Namespace) -> Timers:
    """The same for the PyTorch XLNet."""
    import torch
    from transformers import XLNetLMHeadModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = networks.peer(
        args.size, VOCABULARY, mem_len=MEMORY, reuse_len=REUSE, use_mems_train=True
    )
    torch.manual_seed(0)
    model = XLNetLMHeadModel(config).to(device).train()
    forward = torch.compile(model) if args.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, weight_decay=0.01, fused=device == "cuda" or None
    )
    batch = {k: torch.as_tensor(v, device=device) for k, v in make_batch(args.batch).items()}
    ranks, places = batch["ranks"], batch["target_positions"].long()
    hidden = (ranks[:, None, :] >= ranks[:, :, None]) & (ranks[:, None, :] > 0)
    mapping = torch.nn.functional.one_hot(places, LENGTH).float()
    targets = batch["tokens"].long().gather(1, places)
    mems = [
        torch.zeros(MEMORY, args.batch, config.d_model, device=device)
        for _ in range(config.n_layer)
    ]

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def timed_step() -> float:
        nonlocal mems
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            out = forward(
                input_ids=batch["tokens"].long(),
                token_type_ids=batch["segment_ids"].long(),
                perm_mask=hidden.float(),
                target_mapping=mapping,
                mems=mems,
                use_mems=True,
                labels=targets,
            )
        optimizer.zero_grad(set_to_none=True)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mems = [m.detach() for m in out.mems]
        finish()
        return time.perf_counter() - start

    size = MATRIX["cpu" if device == "cpu" else "gpu"]
    return timed_step, lambda: turns.torch_matrix_rate(args.dtype, device, size)


def serve(args: argparse.Namespace) -> None:
    """The child, warmed up."""
    step, matrix_rate = (ours if args.serve == "ours" else peer)(args)
    step()  # compiles
    turns.serve({"step": step, "matrix": matrix_rate})


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Lets both programs take turns; see the top of this file."""
    from xlnet_jax.tasks.flops import useful_flops

    names = ["ours"] if args.no_peer else ["ours", "peer"]
    children = turns.start("benchmarks.pretrain_step", names)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            rates[name].append(children[name].ask("matrix"))
            seconds[name].append(children[name].ask("step"))
    for child in children.values():
        child.close()
    network = networks.ours(args.size, VOCABULARY)
    flops = useful_flops(network, LENGTH, MEMORY, TARGETS) * args.batch
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rate = max(statistics.median(values) for values in rates.values())
    result: dict[str, Any] = {
        "size": args.size,
        "batch": args.batch,
        "dtype": args.dtype,
        "seconds": {k: [round(s, 3) for s in v] for k, v in seconds.items()},
        "seconds_median": {k: round(s, 3) for k, s in median.items()},
        "matrix_tflops": {k: round(statistics.median(v) / 1e12, 4) for k, v in rates.items()},
        "useful_tflops": round(flops / median["ours"] / 1e12, 4),
        "share_of_matrix_rate": round(flops / median["ours"] / rate, 3),
    }
    if "peer" in median:
        pairs = zip(seconds["peer"], seconds["ours"], strict=True)
        result["times_faster_than_peer"] = round(statistics.median(p / o for p, o in pairs), 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain_step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=networks.SIZES, default="base")
    parser.add_argument("--batch", type=turns.positive, default=2, help="sequences a step")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=turns.positive, default=5, help="measured steps of each")
    parser.add_argument("--compile", action="store_true", help="torch.compile the peer")
    turns.add_allocator_flag(parser)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--scan", action="store_true", help="ours with scanned layers")
    parser.add_argument("--remat", choices=REMAT_POLICIES, default="none", help="our remat policy")
    parser.add_argument("--serve", choices=("ours", "peer"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        turns.set_allocator(args)
        serve(args)
        return
    result = measure(args)
    for key, value in result.items():
        print(f"{key:24}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
