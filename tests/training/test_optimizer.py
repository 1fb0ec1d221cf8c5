import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.model.heads import PermutationLanguageModel, SequenceClassifier
from xlnet_jax.model.span_head import SpanExtractor
from xlnet_jax.training import optimizer as opt
from xlnet_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule

LAYERS = 3


@pytest.fixture(scope="module")
def shapes():
    """Parameters of a small two-stream model, as shapes."""
    config = XLNetConfig(
        n_token=11, d_model=4, n_layer=LAYERS, n_head=2, d_head=2, d_inner=6, ff_activation="gelu"
    )
    model = PermutationLanguageModel(config, RunConfig())
    tokens = jnp.zeros((1, 2), jnp.int32)

    def init(key):
        return model.init(key, tokens, query_tokens=tokens)["params"]

    return jax.eval_shape(init, jax.random.key(0))


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


# Every parameter by name, and whether it decays. A new one must be sorted in by hand.
DECAYS = {
    "lm_bias": False,
    "xlnet/layers/attention/k": True,
    "xlnet/layers/attention/o": True,
    "xlnet/layers/attention/q": True,
    "xlnet/layers/attention/r": True,
    "xlnet/layers/attention/r_r_bias": True,
    "xlnet/layers/attention/r_s_bias": True,
    "xlnet/layers/attention/r_w_bias": True,
    "xlnet/layers/attention/seg_embed": True,
    "xlnet/layers/attention/v": True,
    "xlnet/layers/attention_norm/bias": False,
    "xlnet/layers/attention_norm/scale": False,
    "xlnet/layers/feed_forward/bias_1": False,
    "xlnet/layers/feed_forward/bias_2": False,
    "xlnet/layers/feed_forward/kernel_1": True,
    "xlnet/layers/feed_forward/kernel_2": True,
    "xlnet/layers/feed_forward_norm/bias": False,
    "xlnet/layers/feed_forward_norm/scale": False,
    "xlnet/mask_embedding": True,
    "xlnet/word_embedding": True,
}


@pytest.mark.parametrize(
    ("options", "points"),
    [
        # 10 steps of warmup to 0.5, then in 20 steps down to nothing.
        (
            {"warmup_steps": 10},
            {0: 0.0, 1: 0.05, 5: 0.25, 10: 0.5, 15: 0.375, 20: 0.25, 29: 0.025, 30: 0.0, 40: 0.0},
        ),
        ({"warmup_steps": 10, "min_lr_ratio": 0.1}, {10: 0.5, 20: 0.275, 30: 0.05, 99: 0.05}),
        ({"warmup_steps": 0}, {0: 0.5, 15: 0.25, 30: 0.0}),
        (
            {"warmup_steps": 10, "schedule": "cosine"},
            {0: 0.0, 5: 0.25, 10: 0.5, 15: 0.25 * (1 + np.sqrt(0.5)), 20: 0.25, 30: 0.0, 50: 0.0},
        ),
        (
            {"warmup_steps": 0, "schedule": "cosine", "min_lr_ratio": 0.2},
            {0: 0.5, 15: 0.3, 30: 0.1, 31: 0.1},
        ),
    ],
)
def test_schedules_at_literal_points(options, points):
    schedule = make_schedule(OptimizerConfig(learning_rate=0.5, **options), 30)
    got = [float(schedule(step)) for step in points]
    np.testing.assert_allclose(got, list(points.values()), rtol=1e-5, atol=1e-7)


def test_warmup_must_leave_steps_to_train():
    with pytest.raises(ValueError, match=r"below train.steps = 30, got 30; set --config\.opt"):
        make_schedule(OptimizerConfig(warmup_steps=30), 30)


GRADIENTS = np.array([[0.3, -2.0, 0.0], [0.1, 1.0, 1e-4], [-0.5, 0.25, 3.0]])  # step by step


def slow_adam(gradients, beta_1, beta_2, epsilon, bias_correction):
    """The original's update in float64, one number at a time: epsilon beside the bare root."""
    updates = []
    m, v = [0.0] * gradients.shape[1], [0.0] * gradients.shape[1]
    for t, gradient in enumerate(gradients, 1):
        row = []
        for i, g in enumerate(gradient):
            m[i] = beta_1 * m[i] + (1 - beta_1) * g
            v[i] = beta_2 * v[i] + (1 - beta_2) * g * g
            update = m[i] / (v[i] ** 0.5 + epsilon)
            if bias_correction:
                update *= (1 - beta_2**t) ** 0.5 / (1 - beta_1**t)
            row.append(update)
        updates.append(row)
    return np.array(updates)


def run_adam(transform, gradients=GRADIENTS):
    state = transform.init({"w": jnp.zeros(gradients.shape[1])})
    updates = []
    for gradient in gradients:
        update, state = transform.update({"w": jnp.asarray(gradient, jnp.float32)}, state)
        updates.append(np.asarray(update["w"]))
    return np.array(updates)


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("epsilon", [1e-8, 0.1])
def test_adam_is_the_slow_definition(bias_correction, epsilon):
    got = run_adam(opt.scale_by_adam(0.9, 0.99, epsilon, bias_correction=bias_correction))
    wanted = slow_adam(GRADIENTS, 0.9, 0.99, epsilon, bias_correction)
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-7)


def test_epsilon_is_added_to_the_root_that_is_not_corrected():
    """Where epsilon is large the form shows: sqrt(v) = 0.1 |g| on the first step."""
    got = run_adam(opt.scale_by_adam(0.9, 0.99, 0.1, bias_correction=True), np.array([[1.0]]))
    tensorflow_form = 0.1 / (0.1 + 0.1) * np.sqrt(1 - 0.99) / (1 - 0.9)  # = 0.5
    np.testing.assert_allclose(got, [[tensorflow_form]], rtol=1e-5)
    assert abs(got[0, 0] - 1 / 1.1) > 0.3  # what epsilon beside the corrected root would give


def one_update(config, gradients, params, steps=1):
    transform = make_optimizer(config, 1000, params)

    @jax.jit
    def run(gradients, params):
        state = transform.init(params)
        for _ in range(steps):
            updates, state = transform.update(gradients, state, params)
        return updates

    return run(gradients, params)


def test_bias_correction_modes_differ_by_its_factor_exactly_where_weights_decay():
    params, gradients = {"w": jnp.zeros(2)}, {"w": jnp.array([0.1, -0.2])}

    def update(mode, decay, steps):
        config = OptimizerConfig(learning_rate=1.0, bias_correction=mode, weight_decay=decay)
        return one_update(config, gradients, params, steps)["w"]

    for steps in (1, 4):
        plain = [update(mode, 0.0, steps) for mode in ("always", "reference")]
        np.testing.assert_array_equal(*plain)
        always, reference = (update(mode, 0.01, steps) for mode in ("always", "reference"))
        factor = np.sqrt(1 - 0.999**steps) / (1 - 0.9**steps)
        np.testing.assert_allclose(always, reference * factor, rtol=1e-4)
        assert abs(factor - 1) > 0.5


def test_decay_is_decoupled_and_takes_the_learning_rate():
    params, gradients = {"w": jnp.array([2.0, -4.0])}, {"w": jnp.array([0.1, 0.1])}
    with_decay = one_update(OptimizerConfig(learning_rate=0.5, weight_decay=0.1), gradients, params)
    without = one_update(OptimizerConfig(learning_rate=0.5), gradients, params)
    np.testing.assert_allclose(
        with_decay["w"] - without["w"], [-0.5 * 0.1 * 2, 0.5 * 0.1 * 4], rtol=1e-4
    )


@pytest.mark.parametrize(("clip", "scale"), [(1.0, 0.2), (5.0, 1.0), (100.0, 1.0), (0.0, 1.0)])
def test_clipping_scales_all_gradients_by_their_global_norm(clip, scale):
    """Norm 5. Seen through Adam with a huge epsilon, which keeps the size of a gradient."""
    params = {"a": jnp.zeros(1), "b": jnp.zeros(2)}
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([0.0, 4.0])}
    config = OptimizerConfig(learning_rate=1.0, clip=clip, epsilon=1e6, beta_1=0.0)
    updates = one_update(config, gradients, params)
    factor = -1e6 / np.sqrt(1 - 0.999)
    np.testing.assert_allclose(updates["a"] * factor, [3 * scale], rtol=1e-3)
    np.testing.assert_allclose(updates["b"] * factor, [0, 4 * scale], rtol=1e-3)


def test_which_parameters_decay(shapes):
    assert flat(opt.decays(shapes)) == DECAYS


def test_which_parameters_of_heads_decay():
    # As in the original: kernels, and not what is called LayerNorm or bias there.
    config = XLNetConfig(
        n_token=11, d_model=4, n_layer=LAYERS, n_head=2, d_head=2, d_inner=6, ff_activation="gelu"
    )
    ids = jnp.zeros((1, 2), jnp.int32)
    heads: dict[str, bool] = {}
    for model, inputs in (
        (SequenceClassifier(config, RunConfig(), 3, "attn"), {}),
        (
            SpanExtractor(config, RunConfig()),
            {"start_positions": ids[:, 0], "cls_positions": ids[:, 0]},
        ),
    ):
        init = functools.partial(model.init, jax.random.key(0), ids, **inputs)
        decayed = flat(opt.decays(jax.eval_shape(init)["params"]))
        heads |= {path: value for path, value in decayed.items() if "xlnet/" not in path}
    assert len(heads) == 11 + 11
    for path, value in heads.items():
        assert value == path.endswith(("kernel", "/q", "/k", "/v", "/o")), path


def applied_factors(shapes, rate, on):
    """What one parameter's update is scaled by, seen from outside as a ratio of updates."""
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    ones = jax.tree.map(np.ones_like, params)
    # A huge epsilon keeps Adam proportional to gradients, so that both kinds of scaling show.
    options = {"learning_rate": 1.0, "epsilon": 1e6, "clip": 0.0, "layer_decay_on": on}
    scaled = one_update(OptimizerConfig(layer_decay=rate, **options), ones, params)
    plain = one_update(OptimizerConfig(**options), ones, params)
    return flat(
        jax.tree.map(
            lambda a, b: np.unique((np.asarray(a) / np.asarray(b)).round(5)), scaled, plain
        )
    )


@pytest.mark.parametrize("on", ["learning_rate", "gradient"])
def test_layer_decay_factors(shapes, on):
    factors = applied_factors(shapes, 0.5, on)
    beside = ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed")
    for path, factor in factors.items():
        if path == "lm_bias":
            wanted = [1.0]
        elif "/layers/" not in path:
            wanted = [0.125] if on == "learning_rate" else [1.0]
        elif on == "gradient" and path.endswith(beside):
            wanted = [1.0]
        else:
            wanted = [0.25, 0.5, 1.0]
        np.testing.assert_allclose(factor, wanted, rtol=1e-4, err_msg=path)


def test_the_top_layer_has_the_full_rate(shapes):
    tree = opt._layer_factors(shapes, 0.5, reference=False)
    factors = flat(tree)["xlnet/layers/attention/q"]
    assert factors.ravel().tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "optimizer.schedule must be one of .*polynomial.*got 'linear'"),
        ({"bias_correction": "never"}, "optimizer.bias_correction must be one of .*got 'never'"),
        ({"layer_decay_on": "x"}, "optimizer.layer_decay_on must be one of .*got 'x'"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate must be above 0 and finite, got 0.0"),
        (
            {"learning_rate": float("nan")},
            "optimizer.learning_rate must be above 0 and finite, got nan",
        ),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0 and finite, got inf"),
        ({"min_lr_ratio": 1.5}, "optimizer.min_lr_ratio must be from 0 to 1, got 1.5"),
        ({"epsilon": 0.0}, "optimizer.epsilon must be above 0 and finite, got 0.0"),
        ({"layer_decay": -1.0}, "optimizer.layer_decay must be above 0 and finite, got -1.0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps must be 0 or more, got -1"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay must be 0 or more, got -0.1"),
        ({"clip": -1.0}, "optimizer.clip must be 0 or more, got -1.0"),
        ({"clip": float("inf")}, "optimizer.clip must be finite, or 0 for none, got inf"),
        ({"weight_decay": float("inf")}, "optimizer.weight_decay must be finite, or 0 for none"),
        ({"min_lr_ratio": -1.0}, "optimizer.min_lr_ratio must be 0 or more, got -1.0"),
        ({"beta_1": 1.0}, r"optimizer.beta_1 must be in \[0, 1\), got 1.0"),
        ({"beta_2": -0.5}, r"optimizer.beta_2 must be in \[0, 1\), got -0.5"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)
