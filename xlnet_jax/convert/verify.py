"""Both sides of a conversion on a fixed input, and how far apart they are.

Distances are max |a - b| / max |b|, over the whole array.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from xlnet_jax.convert import huggingface_config
from xlnet_jax.convert.pretrained import Pretrained
from xlnet_jax.convert.table import Head
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.heads import (
    MultipleChoice,
    PermutationLanguageModel,
    SequenceClassifier,
    TokenTagger,
)
from xlnet_jax.model.span_head import SpanExtractor
from xlnet_jax.model.transformer import XLNet

_RUN = RunConfig(dropout=0.0, activation_dropout=0.0, attention_dropout=0.0)
_BATCH, _TOKENS, _PADDING = 2, 16, 3
_FEW = 12  # results that are said one by one

Arrays = dict[str, np.ndarray]
Distances = dict[str, float]


def read_back(written: Pretrained, loaded: Pretrained) -> Distances:
    """Distance of each parameter of `loaded`; raises ValueError if `written` lacks one."""
    ours, theirs = (traverse_util.flatten_dict(p.params, sep="/") for p in (written, loaded))
    if lost := sorted(theirs.keys() - ours.keys()):
        raise ValueError(f"not found again in what was written: {', '.join(lost)}")
    return {path: distance(ours[path], theirs[path]) for path in theirs}


def distance(got: Any, wanted: Any) -> float:
    """Largest difference, relative to the largest value; infinite for NaN or another shape."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    error = float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30))
    return error if np.isfinite(error) else float("inf")


def judge(distances: Distances, tolerance: float, say: Callable[[str], None]) -> None:
    """Says the largest distance (all of them if they are few).

    Raises FloatingPointError if it is above the tolerance.
    """
    worst = max(distances, key=lambda name: distances[name])
    if len(distances) <= _FEW:
        for name, value in distances.items():
            say(f"verify: {name}: {value:.3g}")
    say(
        f"verify: {len(distances)} arrays compared, largest difference {distances[worst]:.3g} of"
        f" the largest value ({worst})"
    )
    if not distances[worst] <= tolerance:
        raise FloatingPointError(
            f"--verify: {worst} differs by {distances[worst]:.3g} of its largest value, more than"
            f" --tolerance={tolerance:g}; nothing was written"
        )


def against_pytorch(folder: epath.Path, loaded: Pretrained) -> Distances:
    """Distances from what PyTorch computes with the weights of a folder: the network with memory,
    and its head.

    Raises ValueError if PyTorch is not installed, or finds weights missing or superfluous.
    """
    inputs = fixed_inputs(loaded.config.n_token)
    model = _load_pytorch(folder, loaded)
    with _no_gradients():
        distances = _compare_trunk(model, loaded, inputs)
        if "lm_bias" in loaded.params and hasattr(model, "lm_loss"):
            distances |= _compare_language_model(model, loaded, inputs)
        if loaded.head:
            distances |= _compare_head(model, loaded, Head.parse(loaded.head).kind, inputs)
    return distances


def against_recorded(path: str, loaded: Pretrained) -> Distances:
    """Distances from what the original computed, recorded in an .npz in its own layout.

    Inputs: `input_ids` [len, bsz] and, if it had them, `seg_ids`, `input_mask` (1 is padding) and
    `mems` [n_layer, mem, bsz, d_model]. Outputs: `sequence_output` [len, bsz, d_model], and
    `new_mems` if it kept memory. Dropout off, two directions, no `bi_data`, no `clamp_len`.

    Raises ValueError if arrays are missing or unknown.
    """
    if not epath.Path(path).exists():
        raise FileNotFoundError(f"--recorded={path}: no such file")
    with np.load(path) as archive:
        arrays = dict(archive)
    inputs = {"input_ids", "seg_ids", "input_mask", "mems"}
    if unknown := sorted(arrays.keys() - inputs - {"sequence_output", "new_mems"}):
        raise ValueError(f"--recorded={path} holds {', '.join(unknown)}, which are not known here")
    if missing := sorted({"input_ids", "sequence_output"} - arrays.keys()):
        raise ValueError(f"--recorded={path} lacks {', '.join(missing)}")
    mem_len = arrays["new_mems"].shape[1] if "new_mems" in arrays else 0
    memory, padding = arrays.get("mems"), arrays.get("input_mask")
    output = _apply(XLNet(loaded.config, _run(mem_len)))(
        {"params": loaded.params["xlnet"]},
        arrays["input_ids"].T,
        segment_ids=arrays["seg_ids"].T if "seg_ids" in arrays else None,
        padding=None if padding is None else padding.T > 0,
        memory=None if memory is None else memory.transpose(0, 2, 1, 3),
    )
    hidden = np.moveaxis(np.asarray(output.hidden), 0, 1)
    distances = {"sequence_output": distance(hidden, arrays["sequence_output"])}
    if "new_mems" in arrays:
        kept = np.asarray(output.memory).transpose(0, 2, 1, 3)
        distances["new_mems"] = distance(kept, arrays["new_mems"])
    return distances


def fixed_inputs(n_token: int) -> Arrays:
    """Two rows of tokens, the second one padded on the left; the same every time."""
    tokens = np.random.default_rng(0).integers(0, n_token, (_BATCH, _TOKENS), np.int32)
    segment_ids = np.repeat([0, 1, 2], [7, _TOKENS - 8, 1])[None].repeat(_BATCH, 0).astype(np.int32)
    padding = np.zeros((_BATCH, _TOKENS), bool)
    padding[1, :_PADDING] = True
    segment_ids[padding] = 4
    return {"tokens": tokens, "segment_ids": segment_ids, "padding": padding}


def _run(mem_len: int) -> RunConfig:
    return dataclasses.replace(_RUN, mem_len=mem_len)


@functools.lru_cache
def _apply(module: Any) -> Callable[..., Any]:
    """What a module computes, compiled once for all checks with it."""
    return jax.jit(module.apply)


def _load_pytorch(folder: epath.Path, loaded: Pretrained) -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ValueError(
            "--verify needs PyTorch and transformers for a Hugging Face folder: pip install"
            " 'xlnet-jax[hf]', or leave it out"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    described = huggingface_config.read_config(folder)
    config = transformers.XLNetConfig.from_pretrained(os.fspath(folder), local_files_only=True)
    if loaded.config.ff_activation == "gelu":
        config.ff_activation = "gelu_new"  # the tanh form, whatever the folder calls it
    architecture = (described.values.get("architectures") or ["XLNetModel"])[0]
    model, report = getattr(transformers, architecture).from_pretrained(
        os.fspath(folder),
        config=config,
        local_files_only=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    problems = {name: list(report.get(name) or ()) for name in ("missing_keys", "unexpected_keys")}
    problems["missing_keys"] = [k for k in problems["missing_keys"] if k != "lm_loss.weight"]
    if any(problems.values()):
        raise ValueError(f"{architecture}.from_pretrained({os.fspath(folder)}): {problems}")
    return model.eval()


@contextlib.contextmanager
def _no_gradients() -> Iterator[None]:
    import torch

    with torch.no_grad():
        yield


def _for_pytorch(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {
        "input_ids": torch.from_numpy(inputs["tokens"]).long(),
        "token_type_ids": torch.from_numpy(inputs["segment_ids"]).long(),
        "attention_mask": torch.from_numpy(1.0 - inputs["padding"].astype(np.float32)),
    }


def _compare_trunk(model: Any, loaded: Pretrained, inputs: Arrays) -> Distances:
    """Hidden states and memory (the input of every layer), of a segment and of the next one."""
    trunk = getattr(model, "transformer", model)
    params = {"params": loaded.params["xlnet"]}
    network = _apply(XLNet(loaded.config, _run(_TOKENS)))
    distances: Distances = {}
    theirs, ours = None, None
    for name, tokens in (("", inputs["tokens"]), (" with memory", inputs["tokens"][:, ::-1])):
        given = {**inputs, "tokens": np.ascontiguousarray(tokens)}
        wanted = trunk(**_for_pytorch(given), mems=theirs, use_mems=True)
        got = network(params, **given, memory=ours)
        theirs, ours = [layer[-_TOKENS:] for layer in wanted.mems], got.memory
        distances[f"hidden states{name}"] = distance(got.hidden, wanted.last_hidden_state)
        layers = np.stack([layer.numpy() for layer in theirs]).transpose(0, 2, 1, 3)
        distances[f"inputs of the layers{name}"] = distance(ours, layers)
    return distances


def _compare_language_model(model: Any, loaded: Pretrained, inputs: Arrays) -> Distances:
    """Logits of the query stream at two positions that nothing else may see."""
    import torch

    targets = np.array([[5, 9], [6, 15]])
    hidden_from_all = np.zeros((_BATCH, _TOKENS, _TOKENS), bool)
    mapping = np.zeros((_BATCH, 2, _TOKENS), np.float32)
    for row, positions in enumerate(targets):
        hidden_from_all[row, :, positions] = True
        mapping[row, np.arange(2), positions] = 1.0
    wanted = model(
        **_for_pytorch(inputs),
        perm_mask=torch.from_numpy(hidden_from_all.astype(np.float32)),
        target_mapping=torch.from_numpy(mapping),
    ).logits
    visible = ~hidden_from_all
    params = {name: loaded.params[name] for name in ("xlnet", "lm_bias")}
    got = _apply(PermutationLanguageModel(loaded.config, _RUN))(
        {"params": params},
        **inputs,
        visible=visible,
        query_tokens=targets,
        query_visible=np.take_along_axis(visible, targets[:, :, None], axis=1),
    )
    return {"logits of the language model": distance(got[0], wanted)}


def _compare_head(model: Any, loaded: Pretrained, kind: str, inputs: Arrays) -> Distances:
    if kind == "span_qa":
        return _compare_spans(model, loaded, inputs)
    params = loaded.params
    given = {k: v[None] for k, v in inputs.items()} if kind == "multiple_choice" else inputs
    # PyTorch's mean counts padding, and so does the first place of a padded row.
    summary = {
        "summary_type": loaded.details.get("summary_type", "last"),
        "use_projection": "projection" in params.get("summary", {}),
        "count_padding": True,
    }
    module: Any
    if kind == "multiple_choice":
        module = MultipleChoice(loaded.config, _RUN, **summary)
    elif kind == "tagging":
        module = TokenTagger(loaded.config, _RUN, params["logits"]["bias"].shape[0])
    else:
        outputs = params["logits"]["bias"].shape[0]
        module = SequenceClassifier(loaded.config, _RUN, outputs, **summary)
    got = _apply(module)({"params": _parts(params, "xlnet", "summary", "logits")}, **given)
    return {"logits of the head": distance(got, model(**_for_pytorch(given)).logits)}


def _compare_spans(model: Any, loaded: Pretrained, inputs: Arrays) -> Distances:
    """Start, end given the true start, and answerability (PyTorch's fed with soft starts)."""
    import torch

    names = ("xlnet", "start_logits", "end_logits", "answer_class")
    params = _parts(loaded.params, *names)
    starts, cls_positions = np.array([4, 8]), np.array([_TOKENS - 1, _TOKENS - 1])
    got = _apply(SpanExtractor(loaded.config, _RUN, "answer_class" in params))(
        {"params": params},
        **inputs,
        cannot_answer=np.zeros((_BATCH, _TOKENS), bool),
        cls_positions=cls_positions,
        start_positions=starts,
    )
    hidden = model.transformer(**_for_pytorch(inputs)).last_hidden_state
    start = model.start_logits(hidden)
    end = model.end_logits(hidden, start_positions=torch.from_numpy(starts))
    distances = {
        "start logits": distance(got.start, start),
        "end logits": distance(got.end, end),
    }
    if got.answer is not None:
        states = torch.einsum("blh,bl->bh", hidden, torch.softmax(start, -1))
        cls_index = torch.from_numpy(cls_positions)
        answer = model.answer_class(hidden, start_states=states, cls_index=cls_index)
        distances["answerability"] = distance(got.answer, answer)
    return distances


def _parts(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names if name in params}
