"""The rows of the table for heads: their parameters, their names, and how a head is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.convert import examples
from xlnet_jax.convert import rules
from xlnet_jax.convert.table import KINDS, Head, choose_head, heads_in, rules_for, shape_of
from xlnet_jax.model.config import RunConfig
from xlnet_jax.model.heads import MultipleChoice, SequenceClassifier, TokenTagger
from xlnet_jax.model.span_head import SpanExtractor


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("summary_type", ["last", "attn"])
def test_the_table_has_just_the_parameters_of_the_models(kind, summary_type):
    network = examples.config()
    tokens = jnp.zeros((1, 2, 3) if kind == "multiple_choice" else (1, 3), jnp.int32)
    inputs = {}
    if kind == "span_qa":
        model = SpanExtractor(network, RunConfig(), answerability=True)
        at = jnp.zeros([1], jnp.int32)
        inputs = {
            "cannot_answer": jnp.zeros((1, 3), bool), "cls_positions": at, "start_positions": at
        }  # fmt: skip
    elif kind == "tagging":
        model = TokenTagger(network, RunConfig(), 4)
    elif kind == "multiple_choice":
        model = MultipleChoice(network, RunConfig(), summary_type=summary_type)
    else:
        outputs = 1 if kind == "regression" else 4
        model = SequenceClassifier(network, RunConfig(), outputs, summary_type)
    tree = jax.eval_shape(model.init, jax.random.key(0), tokens, **inputs)["params"]
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(tree, sep="/").items()}
    rows = {row.parameter: row for row in rules_for(network, Head(kind))}
    assert shapes.keys() <= rows.keys()
    for path, shape in shapes.items():
        wanted = shape_of(rows[path].axes, network)
        assert tuple(size or 4 for size in wanted) == shape, path
    parts = {rows[path].part for path in shapes}
    assert {path for path, row in rows.items() if row.part in parts} == shapes.keys()


# Names in the original and in PyTorch's XLNet, restated.
HEAD_NAMES = {
    "classification": {
        "summary/projection/kernel": (
            "model/sequnece_summary/summary/kernel", "sequence_summary.summary.weight"
        ),
        "summary/projection/bias": (
            "model/sequnece_summary/summary/bias", "sequence_summary.summary.bias"
        ),
        "logits/kernel": ("model/classification_mnli/logit/kernel", "logits_proj.weight"),
        "logits/bias": ("model/classification_mnli/logit/bias", "logits_proj.bias"),
    },
    "regression": {
        "logits/kernel": ("model/regression_mnli/logit/kernel", "logits_proj.weight"),
        "logits/bias": ("model/regression_mnli/logit/bias", "logits_proj.bias"),
    },
    "multiple_choice": {
        "logits/kernel": ("logits/dense/kernel", "logits_proj.weight"),
        "logits/bias": ("logits/dense/bias", "logits_proj.bias"),
    },
    "tagging": {
        "logits/kernel": (None, "classifier.weight"),
        "logits/bias": (None, "classifier.bias"),
    },
    "span_qa": {
        "start_logits/kernel": ("start_logits/dense/kernel", "start_logits.dense.weight"),
        "start_logits/bias": ("start_logits/dense/bias", "start_logits.dense.bias"),
        "end_logits/dense_0/kernel": ("end_logits/dense_0/kernel", "end_logits.dense_0.weight"),
        "end_logits/dense_0/bias": ("end_logits/dense_0/bias", "end_logits.dense_0.bias"),
        "end_logits/norm/scale": ("end_logits/LayerNorm/gamma", "end_logits.LayerNorm.weight"),
        "end_logits/norm/bias": ("end_logits/LayerNorm/beta", "end_logits.LayerNorm.bias"),
        "end_logits/dense_1/kernel": ("end_logits/dense_1/kernel", "end_logits.dense_1.weight"),
        "end_logits/dense_1/bias": ("end_logits/dense_1/bias", "end_logits.dense_1.bias"),
        "answer_class/dense_0/kernel": (
            "answer_class/dense_0/kernel", "answer_class.dense_0.weight"
        ),
        "answer_class/dense_0/bias": ("answer_class/dense_0/bias", "answer_class.dense_0.bias"),
        "answer_class/dense_1/kernel": (
            "answer_class/dense_1/kernel", "answer_class.dense_1.weight"
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_heads(kind):
    head = Head(kind, "mnli")
    network = examples.config()
    params = examples.flat_params(network, head)
    torch = rules.from_params(params, network, "pytorch", head=head).arrays
    everything = rules.Allowed(unused=("logits/*",))
    original = rules.from_params(params, network, "tensorflow", head=head, allowed=everything)
    for path, (theirs, torch_name) in HEAD_NAMES[kind].items():
        kernel = path.endswith("kernel")
        wanted = params[path].T if kernel else params[path]
        np.testing.assert_array_equal(torch[torch_name], wanted, err_msg=path)
        if theirs is not None:
            np.testing.assert_array_equal(original.arrays[theirs], params[path], err_msg=path)


def test_names_of_attention_pooling():
    network, head = examples.config(), Head("classification", "x")
    params = examples.flat_params(network, head, parts={"trunk", "pooling", "logits"})
    variables = rules.from_params(params, network, "tensorflow", head=head).arrays
    names = {"q": "q/kernel", "k": "k/kernel", "v": "v/kernel", "o": "o/kernel"}
    for ours, theirs in names.items():
        np.testing.assert_array_equal(
            variables[f"model/sequnece_summary/abs_attn/{theirs}"],
            params[f"summary/attention/{ours}"],
        )
    pairs = {
        "summary/attention/bias": "summary_bias",
        "summary/attention_norm/scale": "abs_attn/LayerNorm/gamma",
        "summary/attention_norm/bias": "abs_attn/LayerNorm/beta",
    }
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(variables[f"model/sequnece_summary/{theirs}"], params[ours])
    with pytest.raises(ValueError, match="summary/attention/q: PyTorch's XLNet has no variable"):
        rules.from_params(params, network, "pytorch", head=head)


NAMES = [
    "model/classification_mnli/logit/kernel",
    "model/classification_mnli/logit/bias",
    "model/regression_sts-b/logit/kernel",
    "logits/dense/kernel",
    "start_logits/dense/kernel",
    "model/transformer/seg_embed",
]


def test_heads_are_found_by_their_variables():
    found = heads_in(NAMES)
    assert found == [
        Head("classification", "mnli"),
        Head("multiple_choice"),
        Head("regression", "sts-b"),
        Head("span_qa"),
    ]
    assert choose_head(found, "classification", "x") == Head("classification", "mnli")
    assert choose_head(found, "regression:sts-b", "x") == Head("regression", "sts-b")
    assert choose_head(found[:1], None, "x") == found[0]
    assert choose_head([], None, "x") is None
    with pytest.raises(ValueError, match="x has these heads: classification:mnli, multiple"):
        choose_head(found, None, "x")
    with pytest.raises(ValueError, match="--head=regression:mnli does not say one"):
        choose_head(found, "regression:mnli", "x")
    with pytest.raises(ValueError, match="unknown head 'classify': wanted one of classification"):
        Head.parse("classify")
