"""One recipe over several seeds, and how its scores spread."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from xlnet_jax.data.storage import write_atomic
from xlnet_jax.training import run
from xlnet_jax.training.best import is_better
from xlnet_jax.training.evaluation import SUSPICIOUS
from xlnet_jax.training.reporting import COLUMNS

SUMMARY_NAME = "seeds.json"


def train_seeds(config: Mapping[str, Any], folder: str, count: int) -> dict[str, Any] | None:
    """Runs `config` with `count` seeds from its own on, one after another, in FOLDER/seed-K.

    The same call again goes on where the last one stopped. Returns (and writes to
    FOLDER/seeds.json) for each metric of the last evaluation - of the best one, if
    `checkpoint.best_metric` is set - max, mean, median and standard deviation over the seeds, the
    values by seed, and the seeds whose predictions were suspicious; None, and writes nothing, if
    SIGTERM has stopped a run.

    Raises ValueError for fewer than one seed, and what `run.train` raises.
    """
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, got {count}")
    by_seed: dict[int, dict[str, float]] = {}
    for seed in range(config["seed"], config["seed"] + count):
        place = os.fspath(epath.Path(folder) / f"seed-{seed}")
        if run.train({**config, "seed": seed}, place) is None:
            return None
        by_seed[seed] = judged(place, config["checkpoint"]["best_metric"])
    summary = summarize(by_seed)
    if jax.process_index() == 0:
        text = json.dumps(summary, indent=2) + "\n"
        write_atomic(epath.Path(folder) / SUMMARY_NAME, [text.encode()])
    return summary


def judged(folder: str, best_metric: str) -> dict[str, float]:
    """Held-out metrics of a finished run: those of its last evaluation, or of its best.

    Raises ValueError if it was never evaluated.
    """
    path = epath.Path(folder) / "metrics.csv"
    common = set(COLUMNS) - {"heldout_loss", "heldout_perplexity"}
    rows = [
        {name: float(value) for name, value in row.items() if value and name not in common}
        for row in csv.DictReader(io.StringIO(path.read_text()))
    ]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError(
            f"{folder} was never evaluated; --seeds needs held-out data and"
            " config.train.eval_every other than 0"
        )
    if not best_metric:
        return rows[-1]
    best = rows[0]  # of equals the first, which is the one that was saved
    for row in rows[1:]:
        if is_better(best_metric, row[best_metric], best[best_metric]):
            best = row
    return best


def summarize(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """Spread of each metric; see `train_seeds`. The deviation is that of a sample, 0 for one."""
    names = sorted({name for metrics in by_seed.values() for name in metrics})
    suspicious = [
        seed
        for seed, metrics in by_seed.items()
        if any(name.endswith(SUSPICIOUS) for name in metrics)
    ]
    spread = {}
    for name in names:
        values = [metrics[name] for metrics in by_seed.values() if name in metrics]
        if name.endswith(SUSPICIOUS):
            continue
        spread[name] = {
            "max": max(values),
            "mean": statistics.mean(values),
            "median": statistics.median(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "by_seed": {str(seed): metrics.get(name) for seed, metrics in by_seed.items()},
        }
    return {"seeds": list(by_seed), "suspicious_seeds": suspicious, "metrics": spread}


def table(summary: Mapping[str, Any]) -> Sequence[str]:
    """The summary as lines to print."""
    lines = [f"{'metric':24} {'max':>10} {'mean':>10} {'median':>10} {'std':>10}"]
    for name, values in summary["metrics"].items():
        shown = " ".join(f"{values[key]:10.4f}" for key in ("max", "mean", "median", "std"))
        lines.append(f"{name:24} {shown}")
    if summary["suspicious_seeds"]:
        lines.append(
            f"warning: seeds {summary['suspicious_seeds']} gave suspicious predictions, see above"
        )
    return lines
