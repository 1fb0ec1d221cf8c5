"""Questions and answers that ship with Python, in the form of SQuAD 2.0.

A paragraph says of a function or method of the standard library where it is, what it takes and what
it does (the first sentence of its docstring). The questions ask for each of these, in a few fixed
wordings; what the paragraph does not say has no answer. Only source files are read.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xlnet_jax.demo_docstrings import AREAS

DEV_MODULES = ("calendar", "ftplib", "ipaddress", "shutil", "statistics", "tarfile", "urllib")
QUESTIONS = {
    "name": ("What is it called?", "What is its name?"),
    "module": ("Which module is it in?", "Where is it defined?"),
    "owner": ("Which class does it belong to?", "Whose method is it?"),
    "arguments": ("Which arguments does it take?", "What does it take?"),
    "purpose": ("What does it do?", "What is it for?"),
}
_WORDS = range(3, 16)  # lengths of a docstring's sentence


@dataclasses.dataclass(frozen=True)
class Function:
    """What is known of a function; `owner` is the class of a method, "" for others."""

    name: str
    module: str
    owner: str
    arguments: str
    purpose: str


def write_questions(folder: Path) -> dict[str, int]:
    """FOLDER/train.json and dev.json; how many questions each has.

    Functions of `DEV_MODULES` are in the one, those of all other modules in the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    for module in sorted({name for names in AREAS.values() for name in names}):
        found = [_paragraph(module, i, one) for i, one in enumerate(_functions(module))]
        if found:
            split = "dev" if module in DEV_MODULES else "train"
            splits[split].append({"title": module, "paragraphs": found})
    counts = {}
    for split, articles in splits.items():
        text = json.dumps({"version": "v2.0", "data": articles}, ensure_ascii=False, indent=1)
        (folder / f"{split}.json").write_text(text + "\n", encoding="utf-8")
        counts[split] = sum(len(p["qas"]) for a in articles for p in a["paragraphs"])
    return counts


def _functions(module: str) -> Iterator[Function]:
    """The functions of a module or package that say in one sentence what they do."""
    root = Path(sysconfig.get_path("stdlib"))
    single = root / f"{module}.py"
    for path in [single] if single.exists() else sorted((root / module).rglob("*.py")):
        if {"test", "idle_test"}.isdisjoint(path.parts):
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
            classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
            places = [("", tree.body), *((node.name, node.body) for node in classes)]
            for owner, body in places:
                for node in body:
                    if isinstance(node, ast.FunctionDef):
                        yield from _described(node, module, owner)


def _described(node: ast.FunctionDef, module: str, owner: str) -> Iterator[Function]:
    text = " ".join((ast.get_docstring(node) or "").split())
    purpose = re.split(r"\.(?:\s|$)", text)[0]
    if not node.name.startswith("__") and len(purpose.split()) in _WORDS:
        names = [
            arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        ]
        names = [name for name in names if name not in ("self", "cls")]
        arguments = " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])
        yield Function(node.name, module, owner, arguments, purpose)


def _paragraph(module: str, number: int, function: Function) -> dict[str, Any]:
    """The text about one function, its sentences in any order, and every question about it."""
    draw = random.Random(f"{module}-{number}")
    known = dataclasses.asdict(function)
    # Sentences as [words, or the name of a field whose words are meant].
    kind = ["The method ", "name", " of the class ", "owner"]
    kind = kind if function.owner else ["The function ", "name"]
    sentences = [[*kind, " is in the module ", "module", ". "], ["purpose", ". "]]
    if function.arguments:
        sentences.append(["It takes ", "arguments", ". "])
    draw.shuffle(sentences)
    context, starts = "", {}
    for part in (part for sentence in sentences for part in sentence):
        if part in known:
            starts[part] = len(context)
        context += known.get(part, part)
    questions = []
    for field, wordings in QUESTIONS.items():
        answers = []
        if field in starts:
            answers = [{"text": known[field], "answer_start": starts[field]}]
        questions.append(
            {
                "id": f"{module}-{number}-{field}",
                "question": draw.choice(wordings),
                "answers": answers,
                "is_impossible": not answers,
            }
        )
    return {"context": context.strip(), "qas": questions}
