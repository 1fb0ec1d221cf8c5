"""Labelled text that ships with Python: docstrings of the standard library and where they are from.

Only source files are read; nothing of the library is imported.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

AREAS = {
    "data types": ("collections", "datetime", "calendar", "decimal", "fractions", "statistics",
                   "numbers", "random", "enum", "dataclasses", "heapq", "bisect", "_pydecimal",
                   "_pydatetime", "functools", "typing", "types", "operator", "_collections_abc"),
    "files": ("pathlib", "shutil", "tempfile", "zipfile", "tarfile", "gzip", "bz2", "lzma", "glob",
              "os", "posixpath", "ntpath", "csv", "configparser", "plistlib", "pickle", "shelve",
              "dbm", "_pyio"),
    "network": ("http", "urllib", "email", "socket", "socketserver", "ssl", "ftplib", "smtplib",
                "imaplib", "poplib", "xmlrpc", "ipaddress", "wsgiref", "mailbox"),
    "text": ("string", "re", "textwrap", "difflib", "codecs", "encodings", "locale", "gettext",
             "html", "xml", "argparse", "optparse"),
    "user interface": ("tkinter", "turtle", "idlelib", "curses"),
    "tests": ("unittest", "doctest"),
}  # fmt: skip
DEV_SHARE = 0.2
TRAIN_SHARE = 0.15  # few labels and much text: where pretraining helps
FEWEST_WORDS = 8


def docstrings() -> Iterator[tuple[str, str]]:
    """(docstring on one line, area) of functions, classes and modules; each text once."""
    root = Path(sysconfig.get_path("stdlib"))
    seen = set()
    for area, modules in AREAS.items():
        for module in modules:
            single = root / f"{module}.py"
            files = [single] if single.exists() else sorted((root / module).rglob("*.py"))
            for path in files:
                if "test" in path.parts or "idle_test" in path.parts:
                    continue
                for text in _docstrings_of(path):
                    if text not in seen:
                        seen.add(text)
                        yield text, area


def _docstrings_of(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            words = text.split()
            if len(words) >= FEWEST_WORDS:
                yield " ".join(words)


def write_examples(folder: Path) -> dict[str, int]:
    """FOLDER/train.jsonl and dev.jsonl, {"text", "label"} a line; how many each has.

    Beside them unlabelled.jsonl, {"text"} a line: for pretraining, all that is not in dev. Where a
    docstring goes to is a function of its text alone.
    """
    lines: dict[str, list[str]] = {"train": [], "dev": [], "unlabelled": []}
    for text, area in docstrings():
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
        example = json.dumps({"text": text, "label": area}, ensure_ascii=False)
        if place < DEV_SHARE:
            lines["dev"].append(example)
            continue
        lines["unlabelled"].append(json.dumps({"text": text}, ensure_ascii=False))
        if place < DEV_SHARE + TRAIN_SHARE:
            lines["train"].append(example)
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(found) + "\n", encoding="utf-8")
    return {name: len(found) for name, found in lines.items()}
