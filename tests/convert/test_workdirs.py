import numpy as np
import pytest

from xlnet_jax.convert import workdirs


def logits(outputs):
    return {"logits": {"kernel": np.zeros((8, outputs)), "bias": np.zeros(outputs)}}


@pytest.mark.parametrize(
    ("task", "data", "outputs", "head", "details"),
    [
        ("pretraining", {}, 0, None, {}),
        ("span_qa", {"train": "x"}, 0, "span_qa", {}),
        (
            "multiple_choice",
            {"summary_type": "last"},
            1,
            "multiple_choice",
            {"summary_type": "last"},
        ),
        ("tagging", {"labels": ["O", "B-X"]}, 2, "tagging", {"labels": ["O", "B-X"]}),
        (
            "classification",
            {"kind": "auto", "name": "", "labels": ["a", "b"], "summary_type": "mean"},
            2,
            "classification",
            {"labels": ["a", "b"], "summary_type": "mean"},
        ),
        (
            "classification",
            {"kind": "multi_label", "name": "", "labels": ["a", "b"]},
            2,
            "classification",
            {"labels": ["a", "b"], "problem_type": "multi_label_classification"},
        ),
        ("classification", {"kind": "auto", "name": "sts-b", "labels": []}, 1, "regression", {}),
        (
            "classification",
            {"kind": "auto", "name": "rte", "labels": []},
            2,
            "classification",
            {"labels": ["entailment", "not_entailment"]},
        ),
    ],
)
def test_the_head_of_a_run_by_its_config(task, data, outputs, head, details):
    params = logits(outputs) if outputs else {}
    assert workdirs.head_of_run({"task": task, "data": data}, params) == (head, details)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("runs/a", ("runs/a", "")),
        ("runs/a@300", ("runs/a", "300")),
        ("runs/a@best", ("runs/a", "best")),
        ("runs/me@home/a", ("runs/me@home/a", "")),
        ("gs://bucket/a@7", ("gs://bucket/a", "7")),
    ],
)
def test_the_step_behind_a_path(path, parts):
    assert workdirs.split_step(path) == parts
