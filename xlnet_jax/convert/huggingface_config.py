"""What stands beside the weights in folders of transformers: config.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from xlnet_jax.convert.table import Head
from xlnet_jax.data.storage import read_object
from xlnet_jax.data.tokenizer import Tokenizer
from xlnet_jax.model.config import XLNetConfig
from xlnet_jax.model.transformer import LAYER_NORM_EPSILON

CONFIG_NAME = "config.json"

# transformers' name -> ours. Its "gelu" is the exact form; the released configs say so although the
# weights were trained with the tanh form, which is "gelu_new" there.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_python_tanh": "gelu",
    "gelu_fast": "gelu",
}
_ARCHITECTURES = {
    "classification": "XLNetForSequenceClassification",
    "regression": "XLNetForSequenceClassification",
    "multiple_choice": "XLNetForMultipleChoice",
    "tagging": "XLNetForTokenClassification",
    "span_qa": "XLNetForQuestionAnswering",
}


class Described(NamedTuple):
    """What a config.json says: the network, the rest as it stands, the head's details, remarks."""

    config: XLNetConfig
    values: Mapping[str, Any]
    details: dict[str, Any]
    notes: tuple[str, ...]


def read_config(folder: epath.Path) -> Described:
    """Reads config.json.

    Raises FileNotFoundError if there is none, ValueError if it is of another model, or asks for
    what this network does not compute.
    """
    path = folder / CONFIG_NAME
    name = os.fspath(path)
    if not path.exists():
        raise FileNotFoundError(f"{name} is missing: without it the weights have no meaning")
    values = read_object(path)
    if values.get("model_type") != "xlnet":
        raise ValueError(f"{name} has model_type {values.get('model_type')!r}, wanted 'xlnet'")
    if (epsilon := values.get("layer_norm_eps", LAYER_NORM_EPSILON)) != LAYER_NORM_EPSILON:
        raise ValueError(f"{name} has layer_norm_eps {epsilon}, wanted {LAYER_NORM_EPSILON}")
    activation = values.get("ff_activation", "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{name} has ff_activation {activation!r}, wanted one of {', '.join(_ACTIVATIONS)}"
        )
    size = "n_token" if values.keys() & {"n_token", "vocab_size"} == {"n_token"} else "vocab_size"
    if missing := sorted({size, "d_model", "n_layer", "n_head", "d_inner"} - values.keys()):
        raise ValueError(f"{name} lacks {', '.join(missing)}")
    config = XLNetConfig(
        n_token=values[size],
        d_model=values["d_model"],
        n_layer=values["n_layer"],
        n_head=values["n_head"],
        d_head=values.get("d_head") or values["d_model"] // values["n_head"],
        d_inner=values["d_inner"],
        ff_activation=_ACTIVATIONS[activation],
        untie_r=values.get("untie_r", True),
    )
    return Described(config, values, _details(values), _remarks(name, values))


def _details(values: Mapping[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = {"summary_type": values.get("summary_type", "last")}
    labels = values.get("id2label") or {}
    if set(labels) != set(map(str, range(len(labels)))):
        raise ValueError(
            f"{CONFIG_NAME} has id2label of {', '.join(map(str, labels))}, wanted 0 to"
            f" {len(labels) - 1}"
        )
    if labels and any(label != f"LABEL_{i}" for i, label in labels.items()):
        details["labels"] = [labels[str(i)] for i in range(len(labels))]
    if values.get("problem_type") == "multi_label_classification":
        details["problem_type"] = values["problem_type"]
    return details


def _remarks(name: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    remarks = []
    if values.get("ff_activation") == "gelu":
        remarks.append(
            f"{name} says gelu; here that is the tanh form, which the released weights were trained"
            " with, and not PyTorch's exact form (they differ by 5e-4 at most)"
        )
    for key, plain in (("attn_type", "bi"), ("clamp_len", -1), ("same_length", False)):
        if (value := values.get(key, plain)) != plain:
            remarks.append(
                f"{name} says {key}={value!r}: set it in the config of a run, it is not kept"
            )
    return tuple(remarks)


def head_of(described: Described, tensors: Mapping[str, np.ndarray]) -> Head | None:
    """The head of a folder: by its architecture where several would fit."""
    architectures = described.values.get("architectures") or []
    if "classifier.weight" in tensors:
        return Head("tagging")
    if "start_logits.dense.weight" in tensors:
        return Head("span_qa")
    if "logits_proj.weight" not in tensors:
        return None
    _check_summary(described.values)
    if _ARCHITECTURES["multiple_choice"] in architectures:
        return Head("multiple_choice")
    is_regression = tensors["logits_proj.weight"].shape[0] == 1
    return Head("regression" if is_regression else "classification")


def _check_summary(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a summary that there is none of here."""
    projected = values.get("summary_use_proj", True)
    activation = values.get("summary_activation", "tanh") or ""
    if activation != ("tanh" if projected else ""):
        raise ValueError(
            f"{CONFIG_NAME} has summary_use_proj {projected} with summary_activation"
            f" {activation!r}; here a summary is projected with tanh, or neither"
        )
    if (summary_type := values.get("summary_type", "last")) not in ("last", "first", "mean"):
        raise ValueError(
            f"{CONFIG_NAME} has summary_type {summary_type!r}, wanted last, first or mean"
        )


def write_config(
    folder: epath.Path,
    config: XLNetConfig,
    head: Head | None,
    details: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    params: Mapping[str, np.ndarray],
) -> None:
    """Writes the config.json that makes transformers compute what this network does.

    Raises ValueError for a network or head that transformers has no class for.
    """
    if config.n_head * config.d_head != config.d_model:
        raise ValueError(
            f"transformers has no XLNet with n_head × d_head = {config.n_head} × {config.d_head}"
            f" unlike d_model = {config.d_model}; this network cannot be converted to it"
        )
    special = tokenizer.special if tokenizer else None
    values: dict[str, Any] = {
        "architectures": [_architecture(head, params)],
        "model_type": "xlnet",
        "vocab_size": config.n_token,
        **{k: getattr(config, k) for k in ("d_model", "n_layer", "n_head", "d_head", "d_inner")},
        # "gelu" would be the exact form there; this is the tanh form.
        "ff_activation": "gelu_new" if config.ff_activation == "gelu" else config.ff_activation,
        "untie_r": config.untie_r,
        "attn_type": "bi",
        "bi_data": False,
        "clamp_len": -1,
        "same_length": False,
        "mem_len": None,
        "reuse_len": None,
        "use_mems_eval": True,
        "use_mems_train": False,
        "dropout": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "summary_type": details.get("summary_type", "last"),
        "summary_use_proj": "summary/projection/kernel" in params,
        # Without the projection the original has no tanh either; "" is none there.
        "summary_activation": "tanh" if "summary/projection/kernel" in params else "",
        "summary_last_dropout": 0.1,
        "start_n_top": 5,
        "end_n_top": 5,
        "bos_token_id": _known(special.bos) if special else 1,
        "eos_token_id": _known(special.eos) if special else 2,
        "pad_token_id": special.pad if special else 5,
        "tie_word_embeddings": True,
    }
    values |= _label_values(head, details, params)
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _label_values(
    head: Head | None, details: Mapping[str, Any], params: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    if head is None or head.kind not in ("classification", "regression", "tagging"):
        return {}
    count = params["logits/bias"].shape[0]
    labels = list(details.get("labels") or (f"LABEL_{i}" for i in range(count)))
    if len(labels) != count:
        raise ValueError(f"the head has {count} outputs, but there are {len(labels)} labels")
    values: dict[str, Any] = {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    if head.kind == "regression":
        values["problem_type"] = "regression"
    elif "problem_type" in details:
        values["problem_type"] = details["problem_type"]
    return values


def _known(number: int) -> int | None:
    return number if number >= 0 else None


def _architecture(head: Head | None, params: Mapping[str, np.ndarray]) -> str:
    if head is not None:
        return _ARCHITECTURES[head.kind]
    return "XLNetLMHeadModel" if "lm_bias" in params else "XLNetModel"
