"""Schedules, Adam as the original writes it, clipping, decay masks and rates by layer.

Source: `get_train_op` and `AdamWeightDecayOptimizer` in the original's model_utils.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import Array, Float

Params = Any


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Section `optimizer` of a config.

    Attributes:
        learning_rate: its peak, after warmup.
        warmup_steps: steps of linear increase from 0.
        schedule: decay after warmup to `min_lr_ratio` × peak: "polynomial" (linear) or "cosine".
        weight_decay: decoupled; not on LayerNorm and dense biases.
        bias_correction: "reference": Adam's bias correction only without weight decay, as in the
            original; "always".
        clip: global gradient norm above which gradients are scaled down; 0 for no clipping.
        layer_decay: factor per layer below the top one; 1 for none.
        layer_decay_on: "learning_rate" scales the step of a layer, embeddings lowest;
            "gradient" scales clipped gradients before Adam, as the original (of `layer_k`
            variables only), which Adam nearly undoes.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 0
    schedule: str = "polynomial"
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    bias_correction: str = "always"
    clip: float = 1.0
    layer_decay: float = 1.0
    layer_decay_on: str = "learning_rate"

    def __post_init__(self) -> None:
        choices = {
            "schedule": ("polynomial", "cosine"),
            "bias_correction": ("always", "reference"),
            "layer_decay_on": ("learning_rate", "gradient"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"optimizer.{name} must be one of {allowed}, got {getattr(self, name)!r}"
                )
        for name in ("learning_rate", "epsilon", "layer_decay"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"optimizer.{name} must be above 0 and finite, got {getattr(self, name)}"
                )
        for name in ("warmup_steps", "weight_decay", "clip", "min_lr_ratio"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"optimizer.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("weight_decay", "clip"):
            if getattr(self, name) == math.inf:
                raise ValueError(f"optimizer.{name} must be finite, or 0 for none, got inf")
        if self.min_lr_ratio > 1:
            raise ValueError(
                f"optimizer.min_lr_ratio must be from 0 to 1, got {self.min_lr_ratio}: the"
                " learning rate ends at this share of optimizer.learning_rate"
            )
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must be in [0, 1), got {getattr(self, name)}")


Schedule = Callable[[Float[Array, ""] | int], Float[Array, ""]]


def make_schedule(config: OptimizerConfig, train_steps: int) -> Schedule:
    """Learning rate of a step: linear warmup from 0, then decay until `train_steps`.

    Raises ValueError if the warmup leaves no step to train.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if warmup >= train_steps:
        raise ValueError(
            f"optimizer.warmup_steps must be below train.steps = {train_steps}, got {warmup}; set"
            " --config.optimizer.warmup_steps, or train for more steps or epochs"
        )
    decay_steps = train_steps - warmup
    if config.schedule == "polynomial":
        decay = optax.polynomial_schedule(peak, peak * config.min_lr_ratio, 1, decay_steps)
    else:
        decay = optax.cosine_decay_schedule(peak, decay_steps, alpha=config.min_lr_ratio)
    if warmup == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(
    config: OptimizerConfig, train_steps: int, params: Params
) -> optax.GradientTransformation:
    """Clip, scale gradients by layer (if "gradient"), Adam, decay, learning rate (by layer).

    `params` (arrays or shapes) are the ones to be trained; paths decide decay and layer.
    """
    parts = []
    if config.clip > 0:
        parts.append(optax.stateless(functools.partial(_clip, config.clip)))
    if config.layer_decay != 1.0 and config.layer_decay_on == "gradient":
        parts.append(_scale_by_tree(_layer_factors(params, config.layer_decay, reference=True)))
    correct = config.bias_correction == "always" or config.weight_decay == 0
    parts.append(
        scale_by_adam(config.beta_1, config.beta_2, config.epsilon, bias_correction=correct)
    )
    if config.weight_decay > 0:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decays(params)))
    if config.layer_decay != 1.0 and config.layer_decay_on == "learning_rate":
        parts.append(_scale_by_tree(_layer_factors(params, config.layer_decay, reference=False)))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, train_steps)))
    return optax.chain(*parts)


def _clip(limit: float, gradients: Params, params: Params | None = None) -> Params:
    """Scales gradients down to a global norm of `limit`, if it is above.

    `optax.clip_by_global_norm` by one factor: compiled for CPU, that one writes out all gradients.
    """
    del params
    factor = limit / jnp.maximum(optax.tree.norm(gradients), limit)
    return jax.tree.map(lambda g: g * factor, gradients)


def scale_by_adam(
    beta_1: float, beta_2: float, epsilon: float, *, bias_correction: bool
) -> optax.GradientTransformation:
    """m / (sqrt(v) + epsilon), times sqrt(1 - beta_2^t) / (1 - beta_1^t) if corrected.

    TensorFlow's form: epsilon is added to the uncorrected root, unlike in `optax.scale_by_adam`.
    """

    def init(params: Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(
            jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.copy, zeros)
        )

    def update(
        gradients: Params, state: Any, params: Params | None = None
    ) -> tuple[Params, optax.ScaleByAdamState]:
        del params
        count = state.count + 1
        mu = optax.tree.update_moment(gradients, state.mu, beta_1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, beta_2, 2)
        factor = jnp.ones([])
        if bias_correction:
            factor = jnp.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        updates = jax.tree.map(lambda m, v: factor * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def decays(params: Params) -> Params:
    """Tree of bools: which parameters weight decay acts on.

    All but LayerNorm and the biases of dense layers and logits; the head biases `r_*_bias`, the
    mask embedding and the segment embedding do decay, as in the original.
    """

    def decayed(path: tuple[str, ...]) -> bool:
        norm = any(part == "norm" or part.endswith("_norm") for part in path)
        return not norm and not path[-1].startswith("bias") and path[-1] != "lm_bias"

    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({path: decayed(path) for path in flat})


_BESIDE_LAYERS = ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed")


def _layer_factors(params: Params, rate: float, *, reference: bool) -> Params:
    """Factor of each parameter, broadcastable: rate^(Y - 1 - layer), embeddings rate^Y, heads 1.

    With `reference`, what the original keeps outside its layers has factor 1.
    """
    flat = traverse_util.flatten_dict(params)
    factors = {}
    for path, leaf in flat.items():
        factor: Any = 1.0
        if "layers" in path:
            if not (reference and path[-1] in _BESIDE_LAYERS):
                num_layers = leaf.shape[0]
                powers = rate ** jnp.arange(num_layers - 1, -1, -1, dtype=jnp.float32)
                factor = powers.reshape(-1, *(1 for _ in leaf.shape[1:]))
        elif "xlnet" in path and not reference:
            factor = rate ** _num_layers(flat)
        factors[path] = factor
    return traverse_util.unflatten_dict(factors)


def _num_layers(flat: dict[tuple[str, ...], Any]) -> int:
    return next(leaf.shape[0] for path, leaf in flat.items() if "layers" in path)


def _scale_by_tree(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, factors))
