"""Pictures for notebooks: curves of runs, attention maps, factorization orders.

Each function returns a `Picture`, which a notebook shows where a cell ends in it, and which
`savefig` writes to a file. Pieces in other scripts than matplotlib's own font has need a font that
has them: `matplotlib.rcParams["font.family"]`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.data import counter_random, factorization
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model import visibility
from xlnet_jax.model.attention_maps import attention_probabilities
from xlnet_jax.tasks import spans, text_features

MOST_PIECES = 128  # rows and columns that can still be told apart
_INCHES = 0.22  # a row or column

Path = str | os.PathLike[str]


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook without pyplot's state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self).print_png(buffer)
        return buffer.getvalue()


def read_metrics(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every metric that a run has reported, by name.

    Raises FileNotFoundError if the folder has no metrics.csv.
    """
    file = epath.Path(workdir) / "metrics.csv"
    if not file.exists():
        raise FileNotFoundError(
            f"{os.fspath(file)}: no such file; wanted the work directory of `xlnet-jax train`"
        )
    found: dict[str, list[tuple[int, float]]] = {}
    for row in csv.DictReader(io.StringIO(file.read_text())):
        step = int(row.pop("step"))
        for name, value in row.items():
            if value:
                found.setdefault(name, []).append((step, float(value)))
    return found


def curves(runs: Path | Mapping[str, Path], metrics: Sequence[str] = ("loss",)) -> Picture:
    """One panel a metric (a column of metrics.csv), in it one line a run.

    `runs` is a work directory, or several by the name that the legend shows.

    Raises FileNotFoundError for a folder of no run, ValueError for a metric that no run reports.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    read = {name: read_metrics(workdir) for name, workdir in named.items()}
    picture = Picture(figsize=(5 * len(metrics), 3.2), layout="constrained")
    for index, metric in enumerate(metrics):
        axes = picture.add_subplot(1, len(metrics), index + 1)
        for name, found in read.items():
            if metric in found:
                steps, values = zip(*found[metric], strict=True)
                marker = "o" if len(steps) < 20 else None
                axes.plot(steps, values, label=name or None, marker=marker, markersize=4)
        if not axes.lines:
            there = sorted({name for found in read.values() for name in found})
            raise ValueError(f"no run reports {metric!r}; there are {', '.join(there)}")
        axes.set(title=metric, xlabel="step")
        axes.grid(alpha=0.3)
        if list(named) != [""]:
            axes.legend()
    return picture


def attention_map(
    model: Pretrained, text: str, *, layer: int, head: int, text_b: str = ""
) -> Picture:
    """What each piece of a text (or of two) attends to in one head of one layer, from 0.

    Rows attend, columns are attended to; a row sums to 1. The text is laid out as in fine-tuning:
    A <sep> [B <sep>] <cls>.

    Raises ValueError for a head, layer or vocabulary that is not there, or for a text too long.
    """
    tokenizer = _tokenizer_of(model)
    if not 0 <= head < model.config.n_head:
        raise ValueError(f"head {head} does not exist; wanted 0 to {model.config.n_head - 1}")
    first, second = (text_features.encode(tokenizer, [part]) for part in (text, text_b))
    special = tokenizer.special
    tokens, segments = text_features.join_texts(
        first,
        second,
        max_length=len(first.flat) + len(second.flat) + 3,
        sep=special.sep,
        cls=special.cls,
    )
    _check_length(len(tokens[0]))
    found = attention_probabilities(
        model.config,
        jax.device_put(model.params["xlnet"]),
        jnp.asarray(tokens[0])[None],
        layer,
        segment_ids=jnp.asarray(segments[0], jnp.int32)[None],
    )
    pieces = [tokenizer.pieces[i] for i in tokens[0]]
    picture = _canvas(columns=len(pieces), rows=[len(pieces)])
    axes = picture.add_subplot()
    _matrix(axes, np.asarray(found[0, head]), pieces, pieces)
    axes.set_title(f"layer {layer}, head {head}")
    picture.colorbar(axes.images[0], ax=axes, shrink=0.6)
    return picture


def factorization_order(
    tokenizer: Tokenizer, text: str, *, num_predict: int, seed: int = 0
) -> Picture:
    """One random factorization order of a text, and what each stream may see under it.

    The pieces to predict (`num_predict`) and their order are drawn as pretraining draws them, with
    whole words; memory, which everything sees, is left out.

    Raises ValueError if the text is too long or has too few pieces.
    """
    ids = np.array(tokenizer.encode(text), np.int32)
    _check_length(len(ids))
    if not 0 < num_predict <= len(ids):
        raise ValueError(f"num_predict is {num_predict}; wanted 1 to {len(ids)}, as many as pieces")
    key = counter_random.make_key(seed)
    starts = tokenizer.word_starts[ids][None]
    starts[0, 0] = True
    rule = spans.SpanRule(mask_alpha=6, mask_beta=1, max_gram=5, whole_words=True)
    chosen = spans.choose(key, starts, np.zeros_like(starts), num_predict, rule)
    ranks = factorization.draw_ranks(key, chosen, len(ids), len(ids))
    pieces = [tokenizer.pieces[i] for i in ids]
    return streams(pieces, ranks[0], np.flatnonzero(chosen[0]))


def streams(pieces: Sequence[str], ranks: np.ndarray, targets: np.ndarray) -> Picture:
    """What the content stream (a row a piece) and the query stream (a row a target) may see.

    `ranks` are those of the pieces, int [T]; `targets` the positions to predict, int [P]. A number
    behind a piece says when it is predicted.
    """
    ranks_BT, positions_BP = jnp.asarray(ranks)[None], jnp.asarray(targets)[None]
    content = np.asarray(visibility.content_visibility(ranks_BT)[0])
    query = np.asarray(visibility.query_visibility(ranks_BT, positions_BP)[0])
    order = np.argsort(np.argsort(ranks[targets]))
    labels = list(pieces)
    for place, position in zip(order, targets, strict=True):
        labels[position] = f"{pieces[position]}  {place + 1}"
    picture = _canvas(columns=len(pieces), rows=[len(pieces), len(targets)])
    panels = picture.subplots(2, 1, height_ratios=[len(pieces), len(targets)])
    rows = [labels, [labels[position] for position in targets]]
    titles = "content stream: sees itself", "query stream: does not"
    for axes, seen, names, title in zip(panels, (content, query), rows, titles, strict=True):
        _matrix(axes, seen.astype(float), labels, names)
        axes.set_title(title)
    return picture


def _tokenizer_of(model: Pretrained) -> Tokenizer:
    if model.tokenizer is None:
        raise ValueError(
            f"{model.source} has no vocabulary; give load_pretrained(..., spiece_model=FILE)"
        )
    return model.tokenizer


def _check_length(length: int) -> None:
    if not 0 < length <= MOST_PIECES:
        raise ValueError(
            f"the text has {length} pieces; wanted 1 to {MOST_PIECES}, for a picture to be read"
        )


def _canvas(*, columns: int, rows: Sequence[int]) -> Picture:
    size = (3 + _INCHES * columns, 1.2 * len(rows) + 0.6 + _INCHES * sum(rows))
    return Picture(figsize=size, layout="constrained")


def _matrix(axes: Any, values: np.ndarray, columns: Sequence[str], rows: Sequence[str]) -> None:
    axes.imshow(values, cmap="Blues", vmin=0.0, aspect="equal")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
