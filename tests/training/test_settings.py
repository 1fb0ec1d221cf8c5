import ast
import dataclasses
import re
from pathlib import Path

import pytest

import xlnet_jax
from configs import demo, pretrain
from xlnet_jax.model.config import RunConfig, XLNetConfig
from xlnet_jax.tasks import classification, multiple_choice, pretraining, span_qa, tagging
from xlnet_jax.training import setup
from xlnet_jax.training.checkpoint import CheckpointConfig
from xlnet_jax.training.optimizer import OptimizerConfig
from xlnet_jax.training.reporting import ReportConfig
from xlnet_jax.training.settings import TrainConfig, parse
from xlnet_jax.training.sharding import MeshConfig

PACKAGE = Path(xlnet_jax.__file__).parent
TASK = ("tasks/finetuning", "tasks/data_config.py", "training/setup.py")
TEXT = ("tasks/text_splits.py", "tasks/text_config.py")
# Each section: the files that get to see it, and what an object of it is called there.
SECTIONS = {
    XLNetConfig: (("model/", "training/", "tasks/"), "cfg config network"),
    RunConfig: (("model/", "training/"), "run"),
    OptimizerConfig: (("training/optimizer.py",), "config"),
    TrainConfig: (("training/",), "train"),
    CheckpointConfig: (("training/",), "checkpoint config"),
    ReportConfig: (("training/",), "report _config"),
    MeshConfig: (("training/sharding.py",), "config"),
    pretraining.DataConfig: (
        ("tasks/pretraining.py", "tasks/sampling.py", "tasks/data_config.py"), "data config",
    ),
    classification.DataConfig: (
        ("tasks/classification.py", *TEXT, *TASK), "data config self",
    ),
    multiple_choice.DataConfig: (("tasks/multiple_choice.py", *TASK), "data"),
    span_qa.DataConfig: (("tasks/span_qa.py", "tasks/qa/", *TASK), "data config"),
    tagging.DataConfig: (("tasks/tagging.py", *TASK), "data self"),
}  # fmt: skip
# By getattr: `FineTuningConfig.file` takes a split's name, `find_foundation` the vocabulary's.
READ_BY_NAME = {"train", "dev", "test", "predict", "spiece_model"}


def config(**changes):
    """A whole config; `changes` by key, with __ for the point."""
    values = pretrain.get_config("tiny").to_dict() | {}
    values["data"]["train"] = "shards"
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (values[section] if section else values)[key] = value
    return values


def network(settings, vocab_size):
    foundation = setup.find_foundation(settings, "")
    return setup.network_for(settings, foundation, vocab_size)


def named_configs():
    for size in pretrain.SIZES:
        for behaviour in ("", ",behaviour=fixed", ",behaviour=reference"):
            yield f"pretrain.py:{size}{behaviour}", pretrain.get_config(size + behaviour)
    yield "demo.py", demo.get_config()


@pytest.mark.parametrize(("name", "named"), list(named_configs()), ids=lambda x: str(x)[:40])
def test_every_named_config_is_accepted(name, named):
    del name
    named.data.train = "shards"
    parsed = parse(named.to_dict())
    assert parsed.train.steps == named.train.steps
    assert parsed.optimizer.learning_rate == named.optimizer.learning_rate
    assert parsed.run.bi_data == named.data.bi_data
    assert parsed.run.reuse_len == named.data.reuse_len
    assert parsed.network["n_layer"] == named.model.n_layer


@pytest.mark.parametrize("value", [None, 3, {}])
def test_a_network_is_a_name_or_a_path(value):
    values = config()
    run_keys = {field.name for field in dataclasses.fields(RunConfig)}
    values["model"] = {k: v for k, v in values["model"].items() if k in run_keys}
    values["model"]["network"] = value
    with pytest.raises(ValueError, match=re.escape("model.network must be text (a name, or")):
        parse(values)


def package_text():
    return {
        str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))
    }


def reads(files):
    """(file, receiver, name) of each `receiver.name` that is read; in `a.b.name` b is the receiver.

    What only checks a section (`__post_init__`, `validate`) does not count.
    """
    found = set()
    for file, text in files.items():
        tree = ast.parse(text)
        checks = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name in ("__post_init__", "validate")
        ]
        inside = {id(node) for check in checks for node in ast.walk(check)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inside:
                receiver = getattr(node.value, "attr", getattr(node.value, "id", ""))
                found.add((file, receiver, node.attr))
    return found


def unread_keys(files):
    """Keys of all sections that are read on nothing that is called like an object of theirs."""
    found = reads(files)
    unread = []
    for section, (places, names) in SECTIONS.items():
        known = {
            key
            for file, receiver, key in found
            if file.startswith(places) and receiver in names.split()
        }
        label = f"{section.__module__.removeprefix('xlnet_jax.')}.{section.__name__}"
        keys = {field.name for field in dataclasses.fields(section)} - READ_BY_NAME
        unread += [f"{label}.{key}" for key in sorted(keys - known)]
    return unread


def test_every_key_of_a_config_is_read_somewhere():
    assert unread_keys(package_text()) == []


@pytest.mark.parametrize(
    ("file", "read", "key"),
    [
        ("training/sharding.py", "config.fsdp", "training.sharding.MeshConfig.fsdp"),
        ("tasks/qa/gold.py", "config.misplaced_answers", "tasks.qa.config.DataConfig.misplaced_an"),
        ("tasks/tagging.py", "self.data.joined", "tasks.tagging.DataConfig.joined"),
        ("tasks/classification.py", "self.data.threshold", "tasks.classification.DataConfig.thr"),
        ("training/loop.py", "self.settings.checkpoint.save_every", "training.checkpoint.Checkpo"),
        ("training/setup.py", "train.eval_steps", "training.settings.TrainConfig.eval_steps"),
        ("model/transformer.py", "run.causal", "model.config.RunConfig.causal"),
    ],
)
def test_a_key_that_is_read_no_more_is_found(file, read, key):
    """Other attributes of the same name do not hide it."""
    files = package_text()
    assert read in files[file]
    files[file] = files[file].replace(read, "0")
    (found,) = unread_keys(files)
    assert found.startswith(key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "config.seed is -1, wanted 0 to 4294967295"),
        ({"seed": 2**32}, "config.seed is 4294967296, wanted 0 to 4294967295"),
        ({"seed": None}, "config.seed is None, wanted a whole number"),
        ({"train__steps": 0}, "train.steps must be at least 1, or 0 with .* got train.steps 0"),
        ({"train__epochs": 2.0}, "got train.steps 2000 and train.epochs 2.0"),
        ({"train__epochs": -1.0}, "train.epochs must be 0 or more, got -1.0"),
        ({"task": "pretrainin"}, "config.task is 'pretrainin', wanted one of .*pretraining"),
        ({"task": 3}, "config.task is 3, wanted text"),
        ({"init_from": None}, "config.init_from is None, wanted text"),
        ({"train__steps": None}, "train.steps must be a whole number, got None"),
        ({"train__steps": 10.5}, "train.steps must be a whole number, got 10.5"),
        ({"train__steps": True}, "train.steps must be a whole number, got True"),
        ({"train__batch_size": 0}, "train.batch_size must be at least 1, got 0"),
        ({"train__accumulation_steps": 0}, "train.accumulation_steps must be at least 1"),
        ({"train__eval_every": -2}, "train.eval_every must be -1, 0 or more, got -2"),
        ({"train__eval_steps": -1}, "train.eval_steps must be 0 or more, got -1"),
        ({"train__eval_batch_size": -2}, "train.eval_batch_size must be 0 or more, got -2"),
        ({"optimizer__learning_rate": "1e-4"}, "learning_rate must be a number, got '1e-4'"),
        ({"optimizer__clip": None}, "optimizer.clip must be a number, got None"),
        ({"checkpoint__asynchronous": 1}, "checkpoint.asynchronous must be true or false, got 1"),
        ({"checkpoint__save_every": 0}, "checkpoint.save_every must be at least 1, got 0"),
        (
            {"checkpoint__best_metric": "f1", "train__eval_every": 0},
            "checkpoint.best_metric is 'f1', but train.eval_every 0 never measures it",
        ),
        ({"report__log_every": 0}, "report.log_every must be at least 1, got 0"),
        ({"report__profile_steps": 0}, "report.profile_steps must be at least 1, got 0"),
        ({"data__train": ""}, "data.train is empty; set --config.data.train=DIR"),
        ({"data__train": None}, "data.train must be text, got None"),
        ({"data__reuse_len": 124}, "config.data.reuse_len is 124; .* must be at most 123"),
        ({"data__perm_size": 65}, "config.data.perm_size is 65; it must be at most 64"),
        ({"data__num_predict": 200}, "config.data.num_predict is 200; it must be at most"),
        ({"data__num_predict": 0}, "config.data.num_predict is 0; it must be a whole number"),
        ({"data__seq_len": 0}, "config.data.seq_len is 0; it must be a whole number"),
        ({"model__mem_len": -1}, "model.mem_len must be 0 or more, got -1"),
        ({"model__mem_len": None}, "model.mem_len must be a whole number, got None"),
        ({"model__dropout": 1.0}, r"model.dropout must be in \[0, 1\), got 1.0"),
        ({"model__dropout": None}, "model.dropout must be a number, got None"),
        ({"model__dtype": "float16"}, "model.dtype must be one of .*, got 'float16'"),
        ({"model__d_model": 127}, "model.d_model must be even, got 127"),
        ({"model": 3}, "config.model must be a section of keys, got 3"),
        ({"train__stepz": 3}, "keys that nothing reads: train.stepz; known here: .*train.steps"),
        ({"model__bi_data": True}, "keys that nothing reads: model.bi_data"),
        ({"speed": 3}, "keys that nothing reads: speed"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        network(parse(config(**changes)), 100)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "model", "train.steps", "data.train", "model.n_layer"])
def test_a_missing_key_is_named(key):
    values = config()
    section, _, name = key.rpartition(".")
    del (values[section] if section else values)[name]
    with pytest.raises(ValueError, match=f"the config lacks {key}"):
        parse(values)


@pytest.mark.parametrize("mem_len", [0, 1, 5000])
def test_any_length_of_memory_fits(mem_len):
    assert parse(config(model__mem_len=mem_len)).run.mem_len == mem_len


def test_the_size_of_the_vocabulary_is_taken_or_compared():
    assert network(parse(config(model__n_token=0)), 123).n_token == 123
    assert network(parse(config(model__n_token=123)), 123).n_token == 123
    with pytest.raises(
        ValueError, match=r"model.n_token is 99, but the vocabulary of the data has 123 pieces"
    ):
        network(parse(config(model__n_token=99)), 123)
