"""What all cases that run the network share: loading, layouts, comparing.

The goldens are time-major and keep reversed rows in the second half of the batch; ours are
batch-major with directions alternating. Everything is converted here, at the edge.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from tests.parity.case import Case, listed, relative_error, unlisted
from xlnet_jax.convert import rules, tensorflow
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel
from xlnet_jax.model.transformer import XLNet

TOLERANCE = 1e-5
# A gradient whose largest value is less than this of the case's largest is rounding noise. In the
# goldens such gradients are below 2e-7 and all others above 6e-3.
_NOISE = 1e-6
# Either makes a folder one of cases.
_FILES = ("meta.json", "xlnet_config.json")
# How meta.json names checkpoints, and what they are called where it doesn't.
_CHECKPOINTS = {
    "checkpoint": "xlnet_model.ckpt",
    "mid_checkpoint": "mid_model.ckpt",
    "final_checkpoint": "final_model.ckpt",
}


def folder_cases(
    root: Path, part: str, cases_of: Callable[[Path, dict[str, Any]], Iterable[Case]]
) -> Iterator[Case]:
    """The cases of every folder of a part, from its meta.json.

    A folder that cannot be read is a case that fails.
    """
    paths = (path for name in _FILES for path in (root / part).rglob(name))
    for folder in sorted({path.parent for path in paths}):

        def of_folder(folder: Path = folder) -> Iterable[Case]:
            return cases_of(folder, meta_of(folder))

        yield from listed(str(folder.relative_to(root)), of_folder)


def named_cases(
    root: Path, part: str, run_of: Callable[[Path, str, dict[str, Any]], Any]
) -> Iterator[Case]:
    """Those that meta.json lists under "cases"; `run_of` takes folder, name and options."""

    def cases_of(folder: Path, meta: dict[str, Any]) -> Iterator[Case]:
        title, cases = folder.relative_to(root), meta.get("cases", {})
        for name, case in cases.items():
            run = functools.partial(run_of, folder, name, case.get("options", {}))
            yield Case(f"{title}/{name}", run)
        yield from unlisted(str(title), folder / "outputs.npz", cases)

    return folder_cases(root, part, cases_of)


def meta_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text("utf-8"))


def checkpoint(folder: Path, which: str = "checkpoint") -> Path:
    """The file that meta.json names, with or without words about it."""
    said = re.match(r"[^\s:(]+", meta_of(folder).get(which, ""))
    return folder / (said[0] if said else _CHECKPOINTS[which])


@functools.lru_cache
def load_model(folder: Path) -> tuple[XLNetConfig, dict[str, Any]]:
    """The network's shape and parameters; variables of heads and optimizer are left aside."""
    config = XLNetConfig.from_json((folder / "xlnet_config.json").read_text())
    variables = tensorflow.read_checkpoint(str(checkpoint(folder)))
    params = params_from(variables, config, language_model="model/lm_loss/bias" in variables)
    return config, params


def params_from(
    variables: Mapping[str, np.ndarray], config: XLNetConfig, *, language_model: bool
) -> dict[str, Any]:
    ours = {
        name: value
        for name, value in variables.items()
        if name.startswith(("model/transformer/", "model/lm_loss/"))
        and not rules.is_optimizer_slot(name)
    }
    shapes = parameter_shapes(config, language_model=language_model)
    flat = rules.to_params(ours, config, "tensorflow", wanted=shapes).arrays
    return {"params": traverse_util.unflatten_dict(flat, sep="/")}


@functools.lru_cache
def parameter_shapes(config: XLNetConfig, *, language_model: bool) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of all parameters, without the pretraining ones if not `language_model`."""
    tokens = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    if language_model:
        model = PermutationLanguageModel(config, RunConfig())
        tree = jax.eval_shape(model.init, jax.random.key(0), tokens, query_tokens=tokens)["params"]
    else:
        tree = jax.eval_shape(XLNet(config).init, jax.random.key(0), tokens)
        tree = {"xlnet": tree["params"]}
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def run_config(options: Mapping[str, Any], **changes: Any) -> RunConfig:
    return RunConfig(
        dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        causal=options.get("attn_type", "bi") == "uni",
        same_length=bool(options.get("same_length")) and options.get("attn_type") == "uni",
        bi_data=bool(options.get("bi_data", False)),
        clamp_len=options.get("clamp_len", -1),
        mem_len=options.get("mem_len") or 0,
        reuse_len=options.get("reuse_len") or 0,
        **changes,
    )


class Layout:
    """Reorders the batch axis: halves of directions <-> alternating directions."""

    def __init__(self, batch: int, *, bi_data: bool):
        order = np.arange(batch)
        self.order = order.reshape(2, -1).T.ravel() if bi_data else order
        self.inverse = np.argsort(self.order)

    def batch_first(self, array: np.ndarray) -> np.ndarray:
        """From [B, ...] of the goldens to ours."""
        return array[self.order]

    def time_first(self, array: np.ndarray, batch_axis: int) -> np.ndarray:
        """From [..., B at batch_axis, ...] of the goldens to ours, batch first."""
        return np.moveaxis(array, batch_axis, 0)[self.order]

    def memory_in(self, memory: np.ndarray) -> np.ndarray:
        """[Y, M, B, D] -> [Y, B, M, D]."""
        return memory.transpose(0, 2, 1, 3)[:, self.order]

    def memory_out(self, memory: Any) -> np.ndarray:
        """[Y, B, M, D] -> [Y, M, B, D]."""
        return np.asarray(memory)[:, self.inverse].transpose(0, 2, 1, 3)

    def hidden_out(self, hidden: Any) -> np.ndarray:
        """[B, T, ...] -> [T, B, ...]."""
        return np.moveaxis(np.asarray(hidden)[self.inverse], 0, 1)


def arrays_of(archive: Mapping[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    prefix = f"{case}/"
    return {key[len(prefix) :]: archive[key] for key in archive if key.startswith(prefix)}


def pretraining_inputs(features: Mapping[str, np.ndarray], layout: Layout) -> dict[str, Any]:
    """Arguments of the model from one batch of the original's pretraining features."""
    visible = layout.batch_first(features["perm_mask"]) == 0
    tokens = layout.batch_first(features["input_k"])
    segment_ids = layout.batch_first(features["seg_id"])
    predicts = None
    if "target_mapping" in features:
        query_tokens = layout.batch_first(features["target_mapping"]).argmax(-1)
    else:
        query_tokens = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        predicts = layout.batch_first(features["input_q"]) > 0
    return {
        "tokens": tokens,
        "segment_ids": segment_ids,
        "visible": visible,
        "query_tokens": query_tokens,
        "query_visible": np.take_along_axis(visible, query_tokens[:, :, None], axis=1),
        "query_predicts": predicts,
    }


def gradient_errors(
    got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Of every "grad:..." in `wanted`, and of the true norm if it is there.

    Gradients that are zero in exact arithmetic (of what shifts all logits alike, say) hold noise:
    these are measured by the largest of the case, as the goldens' README says of those it names.
    """
    gradients = {
        key.removeprefix("grad:"): value for key, value in wanted.items() if key.startswith("grad:")
    }
    absent = gradients.keys() - got.keys()
    assert not absent, f"nothing to compare with {absent}"
    sizes = {name: float(np.abs(value).max(initial=0)) for name, value in gradients.items()}
    largest = max(sizes.values(), default=0.0)
    errors = {}
    for name, value in gradients.items():
        scale = largest if sizes[name] <= _NOISE * largest else 0.0
        errors[f"grad:{name}"] = relative_error(got[name], value, scale), TOLERANCE
    if "grad_norm_dense" in wanted:
        errors["grad_norm_dense"] = relative_error(norm(got), wanted["grad_norm_dense"]), TOLERANCE
    return errors


def norm(gradients: Mapping[str, np.ndarray]) -> float:
    """Of all of them together."""
    return float(np.sqrt(sum(np.square(np.float64(g)).sum() for g in gradients.values())))
