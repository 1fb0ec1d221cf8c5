"""How fast text becomes token shards, and token shards become pretraining batches.

    python -m benchmarks.input                        # CPython's own documentation, repeated
    python -m benchmarks.input --text 'wiki/*.txt' --text_mb 500 --json

1. A text of `--text_mb` megabytes is made by repeating the files of --text (default: the English
   topics of `pydoc_data`, a sentence a line), and a vocabulary is trained on one copy unless
   --spiece_model gives one. Neither is timed. Nothing that is measured remembers earlier lines, so
   repetition does not flatter it; a small text does, by staying in the page cache.
2. `xlnet-jax corpus` runs on it as a command of its own, start-up included: megabytes of text and
   tokens a second, and the peak of the resident memory of all its processes together (sampled 20
   times a second; pages that processes share count once for each).
3. Batches of length 512 with 85 targets go from these shards through `data/pipeline.py` to numpy
   arrays on this side, for `--seconds`: examples a second, and CPU time of all threads for each.
   The drawing of examples alone, in one thread, is measured too.

The ratios are to the original on a machine of two such cores: 673 examples a second from its
TFRecords (pairs and spans drawn beforehand) and 350 KB of text a second in `data_utils.py`.
"""

from __future__ import annotations

import argparse
import glob
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ORIGINAL_EXAMPLES, ORIGINAL_BYTES = 673.0, 350e3  # a second, see the docstring


def main() -> int:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(args, "text")
        piece = write_text(args, folder)
        model = args.spiece_model or train_vocabulary(folder, piece, args.vocab_size)
        report(args, "xlnet-jax corpus")
        found = measure_corpus(args, folder, model)
        for spans in ("words", "pieces"):
            report(args, f"batches, spans={spans}")
            found[f"examples_{spans}"] = measure_batches(args, folder / "shards", spans)
    print(json.dumps(found) if args.json else table(found))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--text", nargs="+", metavar="PATTERN", help="text files, globs in quotes")
    parser.add_argument("--text_mb", type=float, default=64.0, help="size of the text (default 64)")
    parser.add_argument("--spiece_model", help="a vocabulary instead of one made here")
    parser.add_argument("--vocab_size", type=int, default=3000, help="of the one made here")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="of corpus")
    parser.add_argument("--batch_size", type=int, default=32, help="rows a batch (default 32)")
    parser.add_argument("--seconds", type=float, default=10.0, help="a measurement of batches")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def report(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(f"... {text}", file=sys.stderr, flush=True)


def write_text(args: argparse.Namespace, folder: Path) -> Path:
    """The text in files of 8 MB, folder/text-*.txt; returns a file with one copy of it."""
    copy = topics() if args.text is None else read_files(args.text)
    one = folder / "copy.txt"
    one.write_bytes(copy)
    wanted, part = int(args.text_mb * 1e6), 8_000_000
    blocks = itertools.repeat(copy)
    kept = b""
    for number, begin in enumerate(range(0, wanted, part)):
        size = min(part, wanted - begin)
        while len(kept) < size:
            kept += next(blocks)
        end = kept.find(b"\n", size - 1) + 1 or len(kept)
        (folder / f"text-{number:04d}.txt").write_bytes(kept[:end])
        kept = kept[end:]
    return one


def topics() -> bytes:
    """CPython's documentation topics, a sentence a line, a blank line after each."""
    from pydoc_data import topics as pydoc_topics

    texts = (" ".join(str(text).split()) for text in pydoc_topics.topics.values())
    return "".join(text.replace(". ", ".\n") + "\n\n" for text in texts).encode()


def read_files(patterns: list[str]) -> bytes:
    paths = sorted(path for pattern in patterns for path in glob.glob(pattern))
    if not paths:
        raise SystemExit(f"no file matches {' '.join(patterns)} (--text)")
    return b"".join(Path(path).read_bytes() + b"\n" for path in paths)


def run(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "xlnet_jax", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode()[-2000:])


def train_vocabulary(folder: Path, text: Path, size: int) -> str:
    prefix = str(folder / "spiece")
    finish(
        run(
            "vocab",
            f"--input={text}",
            f"--output_prefix={prefix}",
            f"--vocab_size={size}",
            "--no-progress",
        )
    )
    return f"{prefix}.model"


def measure_corpus(args: argparse.Namespace, folder: Path, model: str) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in folder.glob("text-*.txt"))
    shards = folder / "shards"
    begin, peak = time.perf_counter(), 0
    process = run(
        "corpus", f"--input={folder}/text-*.txt", f"--output_dir={shards}",
        f"--spiece_model={model}", f"--num_workers={args.num_workers}", "--no-progress",
    )  # fmt: skip
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - begin
    finish(process)
    tokens = json.loads((shards / "manifest.json").read_text())["totals"]["tokens"]
    return {
        "corpus_seconds": seconds,
        "corpus_text_bytes": size,
        "corpus_bytes_per_second": size / seconds,
        "corpus_tokens_per_second": tokens / seconds,
        "corpus_to_original": size / seconds / ORIGINAL_BYTES,
        "corpus_peak_bytes": peak,
        "corpus_workers": args.num_workers,
    }


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants (Linux; 0 elsewhere)."""
    total, todo = 0, [pid]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        try:
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for task in (folder / "task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # ended in the meantime
    return total


def measure_batches(args: argparse.Namespace, shards: Path, spans: str) -> dict[str, float]:
    from xlnet_jax.data import pipeline
    from xlnet_jax.tasks.sampling import PretrainingDataConfig, open_source

    config = PretrainingDataConfig(spans="words" if spans == "words" else "pieces")
    source = open_source(shards, config, args.batch_size)
    steps = max(1, 256 // args.batch_size)
    block = steps * args.batch_size
    source.block(0, steps)
    count, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < args.seconds / 2:
        source.block(count * steps, steps)
        count += 1
    alone = count * block / (time.process_time() - cpu)

    batches = pipeline.iterate(source.block, steps_per_block=steps)
    for _ in range(4 * steps):
        next(batches)
    count, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < args.seconds:
        next(batches)
        count += args.batch_size
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    batches.close()
    return {
        "per_second": count / seconds,
        "to_original": count / seconds / ORIGINAL_EXAMPLES,
        "cpu_microseconds_each": cpu / count * 1e6,
        "per_cpu_second_drawing_alone": alone,
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{'what':44}{'here':>12}{'original':>12}{'ratio':>8}",
        f"{'corpus, MB of text a second':44}{found['corpus_bytes_per_second'] / 1e6:12.2f}"
        f"{ORIGINAL_BYTES / 1e6:12.2f}{found['corpus_to_original']:8.1f}",
        f"{'corpus, tokens a second':44}{found['corpus_tokens_per_second']:12,.0f}",
        f"{'corpus, peak memory, all processes, MiB':44}{found['corpus_peak_bytes'] / 2**20:12.0f}",
    ]
    for spans in ("words", "pieces"):
        values = found[f"examples_{spans}"]
        lines += [
            f"{f'examples a second, spans={spans}':44}{values['per_second']:12,.0f}"
            f"{ORIGINAL_EXAMPLES:12,.0f}{values['to_original']:8.1f}",
            f"{'    CPU microseconds each':44}{values['cpu_microseconds_each']:12.0f}",
            f"{'    drawn a CPU second, without the pipeline':44}"
            f"{values['per_cpu_second_drawing_alone']:12,.0f}",
        ]
    size, seconds = found["corpus_text_bytes"] / 1e6, found["corpus_seconds"]
    lines.append(f"({size:.0f} MB of text, {found['corpus_workers']} workers, {seconds:.1f} s)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
