"""Every checkpoint of the goldens, wherever it lies: to ours and back, bit for bit, slots too."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.case import Case, Result, listed
from xlnet_jax.convert import rules, tensorflow
from xlnet_jax.convert.conversion import Conversion, convert
from xlnet_jax.convert.table import Head, heads_in

STEP = "global_step"


def cases(root: Path) -> Iterator[Case]:
    for index in sorted(root.rglob("*.ckpt.index")):
        path = index.with_suffix("")
        name = f"checkpoints/{path.relative_to(root)}"
        yield from listed(name, functools.partial(_cases_of, name, path))


def _cases_of(name: str, path: Path) -> Iterator[Case]:
    heads = heads_in(tensorflow.variable_names(str(path)))
    choices: list[Head | None] = [*heads] or [None]
    for head in choices:
        more = f"/{head}" if len(heads) > 1 else ""
        yield Case(f"{name}{more}", functools.partial(there_and_back, path, head))


def there_and_back(path: Path, head: Head | None) -> Result:
    wanted = tensorflow.read_checkpoint(str(path))
    others = [other for other in heads_in(wanted) if other != head]
    scopes = tuple(f"model/{other.kind}_{other.task}/*" for other in others)
    slots = {name for name in wanted if rules.is_optimizer_slot(name)} - {STEP}
    allowed = rules.Allowed(missing=("*",), unused=scopes)
    with tempfile.TemporaryDirectory() as folder:
        ours, back = f"{folder}/jax", f"{folder}/tf"
        options: dict[str, Any] = {"allowed": allowed, "with_optimizer": bool(slots)}
        name = str(head) if head else None
        convert(Conversion(str(path), ours, "tf", "jax", head=name, **options), quiet)
        convert(Conversion(ours, back, "jax", "tf", **options), quiet)
        got = tensorflow.read_checkpoint(tensorflow.find_checkpoint(back))
    left_out = {name for name in wanted if allowed.may_ignore(name)}
    if not slots:
        wanted[STEP] = np.zeros_like(wanted[STEP]) if STEP in wanted else np.array(0, np.int64)
    different = [
        name
        for name in wanted.keys() - left_out
        if name not in got or not same(got[name], wanted[name])
    ]
    # A variable without a gradient has no slots in the original; ours are zero.
    different += [name for name in got.keys() - wanted.keys() if got[name].any()]
    text = f"{len(got)} variables, {len(slots)} of them of the optimizer"
    if different:
        text += f"; differing: {', '.join(sorted(different)[:5])}"
    return Result(len(different), 0, text)


def quiet(line: str) -> None:
    pass


def same(got: np.ndarray, wanted: np.ndarray) -> bool:
    return got.dtype == wanted.dtype and np.array_equal(got, wanted)
