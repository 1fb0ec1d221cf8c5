"""How fast question files become features, beside Hugging Face's tokenizer; and how they differ.

    python -m benchmarks.qa_features --data dev.json --spiece_model spiece.model
    python -m benchmarks.qa_features --data dev.json --train_vocabulary 16000 --json
    python -m benchmarks.qa_features --data dev.json --train_vocabulary 16000 --differences out.json

1. Ours: the file is read and checked, every paragraph cut into pieces with exact character offsets,
   every question encoded, all windows laid out: from the path to arrays of tokens, segments and
   allowed positions. With alignment=reference the offsets are those of the original.
2. The peer: json.load, then transformers' fast XLNet tokenizer with truncation of the paragraph,
   overflowing windows and offsets, as its question answering example calls it. Its stride is what
   windows share, ours (and the original's) how far they are apart, so it may make other windows;
   it encodes a paragraph anew for every question, and it lacks what else the original's features
   hold. It is left out where transformers or its tokenizer cannot be had.

Each program is a process of its own with --threads threads; they take turns --turns times, and the
best turn counts, as does the best turn's CPU time. The ratio is to the original, which does 49
questions a second on one core with CMRC 2018 dev (it aligns every paragraph again for every
question, in pure Python). Without --spiece_model a vocabulary is trained on the file itself.

--differences compares the windows of both alignments over the whole file, and writes every piece
that stands elsewhere and every question that only one of them can place.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import turns

ORIGINAL = 49.0  # questions a second, see the docstring
_KINDS = ("exact", "reference", "peer")


def main() -> int:
    args = parse_arguments()
    if args.serve:
        what = peer(args) if args.serve == "peer" else ours(args, args.serve)
        turns.serve({"wall": lambda: timed(what)[0], "cpu": lambda: timed(what)[1],
                     "windows": lambda: float(what())})  # fmt: skip
        return 0
    with tempfile.TemporaryDirectory() as name:
        if not args.spiece_model:
            args.spiece_model = train_vocabulary(args, Path(name))
            sys.argv += [f"--spiece_model={args.spiece_model}"]
        if args.differences:
            print(json.dumps(differences(args), indent=1))
            return 0
        found = measure(args, count_questions(args.data))
    print(json.dumps(found) if args.json else table(found))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.qa_features", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", required=True, help="json in the form of SQuAD")
    parser.add_argument("--spiece_model", help="a vocabulary instead of one made here")
    parser.add_argument("--train_vocabulary", type=int, default=8000, help="pieces of that one")
    parser.add_argument("--max_seq_length", type=int, default=512)
    parser.add_argument("--doc_stride", type=int, default=128)
    parser.add_argument("--max_query_length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each program")
    parser.add_argument("--turns", type=int, default=5, help="of each program (default 5)")
    parser.add_argument("--differences", metavar="FILE", help="list them instead of measuring")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--serve", choices=_KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def count_questions(path: str) -> int:
    from xlnet_jax.data import squad_json

    return len(squad_json.read(path).questions)


def train_vocabulary(args: argparse.Namespace, folder: Path) -> str:
    from xlnet_jax.data import squad_json
    from xlnet_jax.data.normalization import Normalization
    from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

    file = squad_json.read(args.data)
    texts = [p.context for p in file.paragraphs] + [q.text for q in file.questions]
    lines = [" ".join(text.split()) for text in texts]
    (folder / "text.txt").write_text("\n".join(line for line in lines if line) + "\n")
    train_vocabulary(
        VocabularyConfig(
            input=(str(folder / "text.txt"),),
            output_prefix=str(folder / "spiece"),
            vocab_size=args.train_vocabulary,
            normalization=Normalization("reference"),
            progress=False,
        )
    )
    return str(folder / "spiece.model")


def timed(what: Any) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - wall, time.process_time() - cpu


def tokenizer_of(args: argparse.Namespace) -> Any:
    from xlnet_jax.data.normalization import Normalization
    from xlnet_jax.data.tokenizer import Tokenizer

    return Tokenizer(args.spiece_model, Normalization("reference"))


def ours(args: argparse.Namespace, alignment: str) -> Any:
    from xlnet_jax.data import squad_json
    from xlnet_jax.tasks.qa.features import make_windows

    tokenizer, config = tokenizer_of(args), config_of(args, alignment)

    def run() -> int:
        windows = make_windows(squad_json.read(args.data), tokenizer, config, training=False)
        rows = [windows.rows(name) for name in ("tokens", "segment_ids", "cannot_answer")]
        return len(rows[0])

    run()
    return run


def config_of(args: argparse.Namespace, alignment: str) -> Any:
    from xlnet_jax.tasks.qa.config import DataConfig

    config = DataConfig(
        max_seq_length=args.max_seq_length,
        doc_stride=args.doc_stride,
        max_query_length=args.max_query_length,
        num_threads=args.threads,
    ).replace(alignment=alignment)
    config.validate()
    return config


def peer(args: argparse.Namespace) -> Any:
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    from etils import epath
    from transformers import AutoTokenizer

    from xlnet_jax.convert import huggingface_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        huggingface_tokenizer.write(epath.Path(folder), tokenizer_of(args))
        tokenizer = AutoTokenizer.from_pretrained(folder)

    def run() -> int:
        content = json.loads(Path(args.data).read_text("utf-8"))["data"]
        paragraphs = [p for article in content for p in article["paragraphs"]]
        asked = [(p["context"], q["question"]) for p in paragraphs for q in p["qas"]]
        contexts, questions = zip(*asked, strict=True)
        found = tokenizer(
            list(contexts),
            list(questions),
            truncation="only_first",
            max_length=args.max_seq_length,
            stride=args.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        return len(found["input_ids"])

    run()
    return run


def measure(args: argparse.Namespace, questions: int) -> dict[str, Any]:
    kinds = [kind for kind in _KINDS if kind != "peer" or importlib.util.find_spec("transformers")]
    programs: dict[str, turns.Child] = {}
    for kind in kinds:
        try:
            programs |= turns.start("benchmarks.qa_features", [kind])
        except SystemExit as error:
            if kind != "peer":
                raise
            print(f"... no peer: {error}", file=sys.stderr)
    found: dict[str, Any] = {"questions": questions, "threads": args.threads}
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(args.turns):
        for kind, program in programs.items():
            for clock in ("wall", "cpu"):
                times.setdefault(kind, {}).setdefault(clock, []).append(program.ask(clock))
    for kind, program in programs.items():
        found[kind] = {
            "questions_per_second": questions / min(times[kind]["wall"]),
            "questions_per_cpu_second": questions / min(times[kind]["cpu"]),
            "windows": int(program.ask("windows")),
        }
        program.close()
    return found


def differences(args: argparse.Namespace) -> dict[str, Any]:
    from xlnet_jax.data import squad_json
    from xlnet_jax.tasks.qa.features import make_windows

    file, tokenizer = squad_json.read(args.data), tokenizer_of(args)
    exact, reference = (
        make_windows(file, tokenizer, config_of(args, kind), training=True)
        for kind in ("exact", "reference")
    )
    listed = []
    kinds: collections.Counter[str] = collections.Counter()
    for number, context in enumerate(exact.pieces.contexts):
        part = slice(*exact.pieces.bounds[number : number + 2])
        spans = [(w.pieces.begins[part], w.pieces.ends[part]) for w in (exact, reference)]
        for piece, (a, b, c, d) in enumerate(zip(*spans[0], *spans[1], strict=True)):
            ours, theirs = context[a:b], context[c:d]
            if ours == theirs.strip():
                continue
            kind = "a lone word mark" if not ours else "a piece that the clean-up changed"
            kinds[kind] += 1
            places = {"exact": [int(a), int(b), ours], "reference": [int(c), int(d), theirs]}
            listed.append({"paragraph": number, "piece": piece, "kind": kind} | places)
    ids = [{q.id for q in w.questions} for w in (exact, reference)]
    both = [windows_by_question(windows, ids[0] & ids[1]) for windows in (exact, reference)]
    lost = set(reference.report.unmatched)
    moved = [name for name in both[0] if name not in lost and both[0][name] != both[1].get(name)]
    content = {"pieces": listed, "unmatched": sorted(lost), "answers": moved}
    Path(args.differences).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return {
        "questions": len(file.questions),
        "pieces": len(exact.pieces.ids),
        "pieces elsewhere": dict(kinds),
        "questions whose paragraph the reference gives up": len(lost),
        "questions with other windows or answers": len(moved),
        "listed in": args.differences,
    }


def windows_by_question(windows: Any, names: set[str]) -> dict[str, list[Any]]:
    """Tokens and labels of all windows of each question."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    labels = windows.labels
    for number, tokens in enumerate(windows.rows("tokens")):
        name = windows.questions[windows.question[number]].id
        if name in found:
            span = int(labels.starts[number]), int(labels.ends[number])
            found[name].append((tokens.tolist(), span))
    return found


def table(found: dict[str, Any]) -> str:
    head = f"{'what':28}{'windows':>9}{'questions/s':>14}{'to original':>13}{'/CPU second':>14}"
    names = {
        "exact": "ours, exact offsets",
        "reference": "ours, original's offsets",
        "peer": "transformers' tokenizer",
    }
    lines = [head]
    for kind, name in names.items():
        if kind in found:
            one = found[kind]
            lines.append(
                f"{name:28}{one['windows']:9,}{one['questions_per_second']:14,.0f}"
                f"{one['questions_per_second'] / ORIGINAL:13.1f}"
                f"{one['questions_per_cpu_second']:14,.0f}"
            )
    lines.append(f"({found['questions']:,} questions, {found['threads']} threads each)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
