"""What an XLNet is made of (`XLNetConfig`) and how one run uses it (`RunConfig`).

`XLNetConfig` is the content of the released `xlnet_config.json`; nothing that may differ
between two uses of the same weights belongs there. `RunConfig` holds those: dropout, memory,
precision, rematerialization.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

ACTIVATIONS = ("relu", "gelu")
REMAT_POLICIES = ("none", "attention", "dots", "full")
SUMMARY_TYPES = ("last", "first", "mean", "attn")


@dataclasses.dataclass(frozen=True)
class XLNetConfig:
    """Shape of the network; field names are those of the released `xlnet_config.json`.

    Raises:
        ValueError: a size below 1, an odd `d_model` (position codes are sine and cosine
            halves) or an unknown activation.
    """

    n_token: int
    d_model: int
    n_layer: int
    n_head: int
    d_head: int
    d_inner: int
    ff_activation: str
    untie_r: bool = True

    def __post_init__(self) -> None:
        for name in ("n_token", "d_model", "n_layer", "n_head", "d_head", "d_inner"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"model.{name} must be a whole number of at least 1, got {value!r}"
                )
        if self.d_model % 2:
            raise ValueError(f"model.d_model must be even, got {self.d_model}")
        if self.ff_activation not in ACTIVATIONS:
            raise ValueError(
                f"model.ff_activation must be one of {ACTIVATIONS}, got {self.ff_activation!r}"
            )
        if not isinstance(self.untie_r, bool):
            raise ValueError(f"model.untie_r must be true or false, got {self.untie_r!r}")

    @classmethod
    def from_json(cls, text: str) -> XLNetConfig:
        """Reads the text of an `xlnet_config.json`; every field must be there, and no other."""
        values: Any = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(
                f"xlnet_config.json must hold a JSON object, got {type(values).__name__}"
            )
        wanted = {field.name for field in dataclasses.fields(cls)}
        if missing := sorted(wanted - values.keys()):
            raise ValueError(f"xlnet_config.json lacks {missing}; it must hold {sorted(wanted)}")
        if unknown := sorted(values.keys() - wanted):
            raise ValueError(
                f"xlnet_config.json has unknown keys {unknown}; known: {sorted(wanted)}"
            )
        return cls(**values)

    def to_json(self) -> str:
        """The text of an `xlnet_config.json` that the original code reads too."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"


def _sizes(n_layer: int, d_model: int, ff_activation: str, n_token: int = 32000) -> XLNetConfig:
    return XLNetConfig(
        n_token=n_token,
        d_model=d_model,
        n_layer=n_layer,
        n_head=d_model // 64,
        d_head=64,
        d_inner=4 * d_model,
        ff_activation=ff_activation,
    )


NAMED_CONFIGS: dict[str, XLNetConfig] = {
    # Released English models: XLNet-Base and XLNet-Large, cased.
    "base": _sizes(12, 768, "gelu"),
    "large": _sizes(24, 1024, "gelu"),
    # Chinese-XLNet: its pretraining command leaves the activation at the code's default, relu.
    "base_zh": _sizes(12, 768, "relu"),
    "mid_zh": _sizes(24, 768, "relu"),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run uses the network.

    Attributes:
        dropout: rate on embeddings, position codes, attention output, feed-forward and output.
        activation_dropout: rate inside the feed-forward, after the activation. The original's code
            has `dropout` there; the paper's large model (v2, table 7) had 0.
        attention_dropout: rate on attention probabilities (`dropatt` of the original).
        causal: attend to the past only (`attn_type=uni` of the original).
        same_length: with `causal`, every token sees equally many keys.
        bi_data: odd batch rows hold reversed text and use negated distances.
        clamp_len: largest relative distance told apart; -1 for no limit.
        mem_len: tokens of memory carried to the next segment; 0 for none.
        reuse_len: first tokens of a segment that may enter the memory; 0 for all.
        dtype: of matrix products and activations, "float32" or "bfloat16".
        scan_layers: loop over one compiled layer (fast to compile) or unroll all of them (faster;
            with two streams the last layer then makes the query rows alone).
        remat: what the backward pass recomputes: "none"; "attention" (the attention core);
            "dots" (all but matrix products); "full" (each layer from its input).
        init: "normal" (standard deviation `init_std`) or "uniform" (within `init_range`).
    """

    dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    causal: bool = False
    same_length: bool = False
    bi_data: bool = False
    clamp_len: int = -1
    mem_len: int = 0
    reuse_len: int = 0
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    init: str = "normal"
    init_std: float = 0.02
    init_range: float = 0.1

    def __post_init__(self) -> None:
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"model.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("mem_len", "reuse_len"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("init_std", "init_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"model.{name} must be above 0, got {getattr(self, name)}")
        _check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        _check_choice("remat", self.remat, REMAT_POLICIES)
        _check_choice("init", self.init, ("normal", "uniform"))
        if self.same_length and not self.causal:
            raise ValueError("model.same_length needs model.causal=True, got causal=False")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"model.{name} must be one of {choices}, got {value!r}")
