"""`python -m tests.parity DIR`: every case of a goldens folder, one line each.

Exits 1 if a case fails or cannot be read, or if DIR holds none. What is of no known kind is listed
as not run.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from pathlib import Path

import tests.quick_compiles  # noqa: F401
from tests.parity import checkpoints
from tests.parity.case import Case, listed

# Folder of the goldens -> module here that runs it; every other folder is listed as not run.
PARTS = (
    "tokenization",
    "data_utils",
    "pretrain_forward",
    "finetune_forward",
    "pretrain_train",
    "qa",
    "race",
    "squad_features",
    "classifier_features",
)


def all_cases(root: Path) -> list[Case]:
    """Every case below `root`; folders that no case is about are listed as not run."""
    found: list[Case] = []
    for part in PARTS:
        if (root / part).is_dir():
            module = importlib.import_module(f"tests.parity.{part}")
            found += listed(part, functools.partial(module.cases, root))
    found += checkpoints.cases(root)
    names = [f"{case.name}/" for case in found]
    folders = {path.parent.relative_to(root) for path in root.rglob("meta.json")}
    folders |= {path.relative_to(root) for path in root.iterdir() if path.is_dir()}
    unknown = [
        str(folder)
        for folder in sorted(folders)
        if not any(name.startswith(f"{folder}/") for name in names)
    ]
    return found + [Case(name, None, "no case was found in it") for name in unknown]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("dir", type=Path, help="a folder laid out like tests/goldens")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    args = parser.parse_args()
    if not args.dir.is_dir():
        parser.error(f"DIR must be a folder of goldens, got {args.dir}")
    counts = {"ok": 0, "FAIL": 0, "not run": 0}
    for case in all_cases(args.dir):
        if args.only not in case.name:
            continue
        status, text = run(case)
        counts[status] += 1
        print(f"{status:8}{case.name:58} {text}", flush=True)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 0 if counts["ok"] and not counts["FAIL"] else 1


def run(case: Case) -> tuple[str, str]:
    if case.run is None:
        return "not run", case.reason
    try:
        result = case.run()
    except Exception as error:  # one broken case must not hide the others
        return "FAIL", _one_line(f"{type(error).__name__}: {error}")
    status = "ok" if result.passed else "FAIL"
    numbers = f"error {result.error:9.2e}  tolerance {result.tolerance:7.1e}"
    return status, f"{numbers}  {_one_line(result.note)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
