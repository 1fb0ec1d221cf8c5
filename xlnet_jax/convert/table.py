"""The table: variable of the original <-> parameter of ours <-> tensor of PyTorch's XLNet.

One row a parameter, with its shape in the axis letters of `model/transformer.py`; `rules` reads and
writes by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from xlnet_jax.model.config import XLNetConfig

Format = Literal["tensorflow", "pytorch"]

KINDS = ("classification", "regression", "multiple_choice", "tagging", "span_qa")


class Head(NamedTuple):
    """What a network was fine-tuned for; `task` is the end of the original's scope, or ""."""

    kind: str
    task: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.task}" if self.task else self.kind

    @classmethod
    def parse(cls, text: str) -> Head:
        """Reads KIND or KIND:TASK; raises ValueError for an unknown kind."""
        kind, _, task = text.partition(":")
        if kind not in KINDS:
            raise ValueError(
                f"unknown head {text!r}: wanted one of {', '.join(KINDS)}, or KIND:TASK"
            )
        return cls(kind, task)


class Rule(NamedTuple):
    """One parameter; `{layer}` stands for one variable a layer, `{task}` for the head's task.

    Attributes:
        part: parameters of a part are there together or not at all; "trunk" always.
        axes: shape of the parameter; "C" is free, "2D" the width of two vectors side by side.
        tensorflow, pytorch: names, "" where there is no such variable.
        kind: the head that the row belongs to; "" for any or none.
    """

    part: str
    parameter: str
    axes: str
    tensorflow: str
    pytorch: str
    kind: str = ""

    def name(self, format: Format) -> str:
        """The name on the other side."""
        return self.tensorflow if format == "tensorflow" else self.pytorch


def _dense(part: str, ours: str, axes: str, tf: str, pt: str, kind: str = "") -> tuple[Rule, Rule]:
    return (
        Rule(part, f"{ours}/kernel", axes, tf and f"{tf}/kernel", f"{pt}.weight", kind),
        Rule(part, f"{ours}/bias", axes.split()[-1], tf and f"{tf}/bias", f"{pt}.bias", kind),
    )


def _norm(part: str, ours: str, axes: str, tf: str, pt: str) -> tuple[Rule, Rule]:
    return (
        Rule(part, f"{ours}/scale", axes, f"{tf}/gamma", pt and f"{pt}.weight"),
        Rule(part, f"{ours}/bias", axes, f"{tf}/beta", pt and f"{pt}.bias"),
    )


_TF, _PT = "model/transformer", "transformer"
_SUMMARY = "model/sequnece_summary"  # spelled so in the original
_TF_ATT, _PT_ATT = f"{_TF}/layer_{{layer}}/rel_attn", f"{_PT}.layer.{{layer}}.rel_attn"
_TF_FF, _PT_FF = f"{_TF}/layer_{{layer}}/ff", f"{_PT}.layer.{{layer}}.ff"
_ATT, _FF, _POOL = "xlnet/layers/attention", "xlnet/layers/feed_forward", "summary/attention"

# fmt: off
TABLE: tuple[Rule, ...] = (
    Rule("trunk", "xlnet/word_embedding", "V D", f"{_TF}/word_embedding/lookup_table",
         f"{_PT}.word_embedding.weight"),
    *(Rule("trunk", f"{_ATT}/{n}", "Y D N H", f"{_TF_ATT}/{n}/kernel", f"{_PT_ATT}.{n}")
      for n in "qkvro"),
    Rule("trunk", f"{_ATT}/seg_embed", "Y 2 N H", f"{_TF}/seg_embed", f"{_PT_ATT}.seg_embed"),
    *_norm("trunk", f"{_ATT}_norm", "Y D", f"{_TF_ATT}/LayerNorm", f"{_PT_ATT}.layer_norm"),
    Rule("trunk", f"{_FF}/kernel_1", "Y D F", f"{_TF_FF}/layer_1/kernel",
         f"{_PT_FF}.layer_1.weight"),
    Rule("trunk", f"{_FF}/bias_1", "Y F", f"{_TF_FF}/layer_1/bias", f"{_PT_FF}.layer_1.bias"),
    Rule("trunk", f"{_FF}/kernel_2", "Y F D", f"{_TF_FF}/layer_2/kernel",
         f"{_PT_FF}.layer_2.weight"),
    Rule("trunk", f"{_FF}/bias_2", "Y D", f"{_TF_FF}/layer_2/bias", f"{_PT_FF}.layer_2.bias"),
    *_norm("trunk", f"{_FF}_norm", "Y D", f"{_TF_FF}/LayerNorm", f"{_PT_FF}.layer_norm"),
    Rule("mask", "xlnet/mask_embedding", "D", f"{_TF}/mask_emb/mask_emb", f"{_PT}.mask_emb"),
    Rule("lm", "lm_bias", "V", "model/lm_loss/bias", "lm_loss.bias"),
    *_dense("projection", "summary/projection", "D D", f"{_SUMMARY}/summary",
            "sequence_summary.summary"),
    Rule("pooling", f"{_POOL}/bias", "D", f"{_SUMMARY}/summary_bias", ""),
    *(Rule("pooling", f"{_POOL}/{n}", "D N H", f"{_SUMMARY}/abs_attn/{n}/kernel", "")
      for n in "qkvo"),
    *_norm("pooling", f"{_POOL}_norm", "D", f"{_SUMMARY}/abs_attn/LayerNorm", ""),
    *_dense("logits", "logits", "D C", "model/classification_{task}/logit", "logits_proj",
            "classification"),
    *_dense("logits", "logits", "D 1", "model/regression_{task}/logit", "logits_proj",
            "regression"),
    *_dense("logits", "logits", "D 1", "logits/dense", "logits_proj", "multiple_choice"),
    *_dense("logits", "logits", "D C", "", "classifier", "tagging"),
    *_dense("span", "start_logits", "D 1", "start_logits/dense", "start_logits.dense", "span_qa"),
    *_dense("span", "end_logits/dense_0", "2D D", "end_logits/dense_0", "end_logits.dense_0",
            "span_qa"),
    *_norm("span", "end_logits/norm", "D", "end_logits/LayerNorm", "end_logits.LayerNorm"),
    *_dense("span", "end_logits/dense_1", "D 1", "end_logits/dense_1", "end_logits.dense_1",
            "span_qa"),
    *_dense("answer", "answer_class/dense_0", "2D D", "answer_class/dense_0",
            "answer_class.dense_0", "span_qa"),
    Rule("answer", "answer_class/dense_1/kernel", "D 1", "answer_class/dense_1/kernel",
         "answer_class.dense_1.weight", "span_qa"),
)
# fmt: on
_HEAD_BIASES = ("r_w_bias", "r_r_bias", "r_s_bias")


def rules_for(config: XLNetConfig, head: Head | None = None) -> tuple[Rule, ...]:
    """All rows that hold for a network of this shape with this head.

    The head biases have one row a layer if untied, and live beside the embedding if tied; PyTorch's
    XLNet has one a layer in any case. Without a head, rows of heads are left out.
    """
    place, axes = (_ATT, "Y N H") if config.untie_r else ("xlnet", "N H")
    biases = tuple(
        Rule("trunk", f"{place}/{n}", axes, f"{_TF}/{n}", f"{_PT_ATT}.{n}") for n in _HEAD_BIASES
    )
    kind, task = head or Head("")
    rows = [row for row in TABLE + biases if row.kind in ("", kind)]
    return tuple(row._replace(tensorflow=row.tensorflow.replace("{task}", task)) for row in rows)


def shape_of(axes: str, config: XLNetConfig) -> tuple[int | None, ...]:
    """The shape that axis letters stand for; None where any size will do."""
    sizes = {
        "Y": config.n_layer,
        "D": config.d_model,
        "2D": 2 * config.d_model,
        "N": config.n_head,
        "H": config.d_head,
        "F": config.d_inner,
        "V": config.n_token,
        "C": None,
        "1": 1,
        "2": 2,
    }
    return tuple(sizes[letter] for letter in axes.split())


def heads_in(names: Iterable[str]) -> list[Head]:
    """The heads that the variables of a checkpoint of the original belong to."""
    found = set()
    for name in names:
        if scope := re.fullmatch(r"model/(classification|regression)_(.*)/logit/kernel", name):
            found.add(Head(scope[1], scope[2]))
        elif name == "logits/dense/kernel":
            found.add(Head("multiple_choice"))
        elif name == "start_logits/dense/kernel":
            found.add(Head("span_qa"))
    return sorted(found)


def choose_head(found: list[Head], wanted: str | None, path: str) -> Head | None:
    """The wanted one of the heads of a checkpoint, or the only one.

    `wanted` is KIND:TASK, or KIND where that is clear. Raises ValueError if it is not there, or
    if nothing tells which of several.
    """
    fitting = [head for head in found if wanted in (None, str(head), head.kind)]
    if len(fitting) > 1 or (wanted is not None and not fitting):
        listed = ", ".join(map(str, found)) or "none"
        given = "which one is not said" if wanted is None else f"--head={wanted} does not say one"
        raise ValueError(
            f"{path} has these heads: {listed}; {given}, give --head=KIND:TASK of xlnet-jax convert"
        )
    return fitting[0] if fitting else None
