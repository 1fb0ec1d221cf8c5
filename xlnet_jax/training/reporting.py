"""What a run shows: metrics.csv, TensorBoard, progress, the picture of curves, MFU."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from xlnet_jax.data import storage

# bfloat16 peak of one device as JAX counts devices (a core of v2 and v3, else a chip), FLOP/s.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "perplexity",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "mfu",
    "heldout_loss",
    "heldout_perplexity",
)
SHOWN = ("loss", "heldout_loss", "tokens_per_second", "learning_rate")
SILENCE = 30.0  # seconds after which a line is printed where there is no progress bar


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Section `report` of a config.

    Attributes:
        log_every: steps between lines of metrics, which are means over these steps.
        tensorboard: write TensorBoard events beside metrics.csv.
        profile_start: first step of a profiler trace (workdir/profile); -1 for none.
        profile_steps: steps traced.
    """

    log_every: int = 100
    tensorboard: bool = True
    profile_start: int = -1
    profile_steps: int = 5

    def __post_init__(self) -> None:
        for name in ("log_every", "profile_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"report.{name} must be at least 1, got {getattr(self, name)}")


def peak_flops(dtype: str) -> tuple[float, str]:
    """Peak FLOP/s of all devices together, and where the number comes from.

    Published bfloat16 peaks where known; else the rate of a matrix product measured here.
    """
    kind = jax.devices()[0].device_kind
    for name in sorted(PEAK_FLOPS, key=len, reverse=True):
        if kind.startswith(name):
            return PEAK_FLOPS[name] * jax.device_count(), f"published bfloat16 peak of {name}"
    rate = measure_matmul(dtype)
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()  # CPU devices share cores
    return rate * devices, f"{dtype} matrix product measured on this {kind}"


def measure_matmul(dtype: str, size: int = 1536) -> float:
    """FLOP/s of a square matrix product on one device: the best of a few tries."""
    # Random numbers: a GPU multiplies ones or zeros faster, as they take less power.
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


class Reporter:
    """Writes one process's reports; on other processes than the first it only profiles.

    On a terminal there is a progress bar; elsewhere each report is a line, and so is each half
    minute without one.
    """

    def __init__(self, workdir: str, config: ReportConfig, *, train_steps: int, start_step: int):
        self._active = jax.process_index() == 0
        self._config, self._train_steps = config, train_steps
        self.folder = epath.Path(workdir)
        self._rows = self._read_rows(start_step) if self._active else []
        self._start_step = start_step
        self._writer: Any = None
        self._bar: Any = None
        self._profiling = False
        self._last_line = time.monotonic()

    def start(self) -> None:
        """Opens the TensorBoard log and the progress bar."""
        if not self._active:
            return
        if self._config.tensorboard:
            import tensorflow as tf

            with self._log_errors():
                self._writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._train_steps,
                initial=self._start_step,
                desc="train",
                unit="step",
                smoothing=0.05,
            )

    def progress(self, step: int) -> None:
        """Shows that a step is finished (or on its way)."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._last_line > SILENCE:
            self.say(f"step {step:,} of {self._train_steps:,}")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line of metrics, everywhere."""
        if not self._active:
            return
        self._rows.append({"step": step, **metrics})
        self._flush()
        if self._writer is not None:
            import tensorflow as tf

            with self._log_errors(), self._writer.as_default(step=step):
                for name, value in metrics.items():
                    tf.summary.scalar(name, value)
                self._writer.flush()
        shown = {k: f"{v:.4g}" for k, v in metrics.items() if k in SHOWN or k not in COLUMNS}
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            values = ", ".join(f"{name} {value}" for name, value in shown.items())
            self.say(f"step {step:,} of {self._train_steps:,}: {values}")

    def say(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        if self._active:
            tqdm.write(text)
            sys.stdout.flush()
            self._last_line = time.monotonic()

    def profile(self, step: int) -> None:
        """Starts and ends the profiler trace where the config says so; call it before each step."""
        first = self._config.profile_start
        if step == first:
            jax.profiler.start_trace(str(self.folder / "profile"))
            self._profiling = True
        elif step == first + self._config.profile_steps:
            self._end_profile()

    def close(self) -> None:
        """Ends what is open and draws the curves; says so if they cannot be written.

        That would hide what ended the run before: a save that the same full disk stopped, say.
        """
        self._end_profile()
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()
        if self._active:
            try:
                draw_curves(self._rows, self.folder / "curves.png")
            except OSError as error:
                self.say(f"no picture of the curves: {error}")

    @contextlib.contextmanager
    def _log_errors(self) -> Iterator[None]:
        """Turns TensorFlow's errors into an OSError of one line."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            reason = error.message.split("\n")[0].rpartition("}} ")[2].partition(" [Op:")[0]
            place = self.folder / "tensorboard"
            raise OSError(f"{place}: cannot write the TensorBoard log ({reason})") from error

    def _end_profile(self) -> None:
        if self._profiling:
            self._profiling = False
            jax.profiler.stop_trace()

    def _read_rows(self, start_step: int) -> list[dict[str, Any]]:
        """Rows of an earlier part of the run, up to the step it resumes from."""
        path = self.folder / "metrics.csv"
        if start_step == 0 or not path.exists():
            return []
        try:
            rows = csv.DictReader(io.StringIO(path.read_text()))
            read = [
                {k: int(v) if k == "step" else float(v) for k, v in row.items() if v}
                for row in rows
            ]
            return [row for row in read if row["step"] <= start_step]
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise ValueError(
                f"{path} is no longer as training wrote it ({error!r}): mend it, or move it away to"
                " go on without the earlier metrics"
            ) from error

    def _flush(self) -> None:
        text = io.StringIO()
        others = {name for row in self._rows for name in row} - set(COLUMNS)
        writer = csv.DictWriter(text, [*COLUMNS, *sorted(others)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        storage.write_atomic(self.folder / "metrics.csv", [text.getvalue().encode()])


def draw_curves(rows: list[dict[str, Any]], path: epath.Path) -> None:
    """One picture: loss (training and held-out), learning rate, gradient norm, throughput."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    scores = sorted({name for row in rows for name in row} - set(COLUMNS))
    panels = (
        ("nats", ("loss", "heldout_loss")),
        ("learning rate", ("learning_rate",)),
        ("gradient norm", ("grad_norm",)),
        ("held-out scores", tuple(scores))
        if scores
        else ("tokens a second", ("tokens_per_second",)),
    )
    for index, (title, names) in enumerate(panels):
        axes = figure.add_subplot(2, 2, index + 1)
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                marker = "o" if name == "heldout_loss" or name in scores else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=4)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    storage.write_atomic(path, [buffer.getvalue()])
