"""A run of another program, or of ours, goes on from its converted checkpoint."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from etils import epath

from configs import classify
from tests.parity import pretrain_train
from tests.tasks import tiny_task
from tests.training import tiny_run
from xlnet_jax.convert import model_files, moments, orbax_folder, workdirs
from xlnet_jax.convert.conversion import Conversion, convert
from xlnet_jax.convert.pretrained import load_pretrained
from xlnet_jax.training import checkpoint, continuation, run, settings, setup
from xlnet_jax.training.optimizer import OptimizerConfig, make_optimizer
from xlnet_jax.training.state import TrainState, Window, fingerprints, state_shardings

GOLDENS = tiny_run.ROOT / "tests" / "goldens" / "pretrain_train" / "adamw_poly"


def quiet(line):
    pass


def run_convert(source, output, formats):
    source_format, target_format = formats.split()
    job = Conversion(str(source), str(output), source_format, target_format, with_optimizer=True)
    convert(job, quiet)


def fresh_state(params, config):
    optimizer = make_optimizer(config, 100, params)
    return TrainState(
        step=jax.numpy.zeros([], "int32"),
        params=params,
        opt_state=optimizer.init(params),
        memory=None,
        window=Window.empty(),
        bad_step=jax.numpy.full([], -1, "int32"),
    )


def one_device():
    from xlnet_jax.training.sharding import MeshConfig, make_mesh

    return make_mesh(MeshConfig())


def converted(tmp_path, name="final_model.ckpt"):
    run_convert(GOLDENS / name, tmp_path / "jax", "tf jax")
    return load_pretrained(tmp_path / "jax").params, moments.load_moments(tmp_path / "jax")


def test_the_state_is_the_original_s(tmp_path):
    params, loaded = converted(tmp_path)
    config = OptimizerConfig(weight_decay=0.01, layer_decay=0.5)
    state = fresh_state(params, config)
    got = continuation.with_moments(state, loaded, state_shardings(state, one_device()))
    variables = pretrain_train.tensorflow.read_checkpoint(str(GOLDENS / "final_model.ckpt"))
    step = int(variables["global_step"])
    (adam,) = (part for part in got.opt_state if isinstance(part, optax.ScaleByAdamState))
    (schedule,) = (p for p in got.opt_state if isinstance(p, optax.ScaleByScheduleState))
    assert int(got.step) == int(adam.count) == int(schedule.count) == step > 0
    wanted = variables["model/transformer/layer_2/rel_attn/v/kernel/adam_v"]
    np.testing.assert_array_equal(adam.nu["xlnet"]["layers"]["attention"]["v"][2], wanted)
    wanted = variables["model/transformer/word_embedding/lookup_table/adam_m"]
    np.testing.assert_array_equal(adam.mu["xlnet"]["word_embedding"], wanted)
    assert got.params is state.params


def test_moments_of_another_model_are_named(tmp_path):
    params, loaded = converted(tmp_path)
    state = fresh_state(params, OptimizerConfig())
    shardings = state_shardings(state, one_device())
    less = dataclasses.replace(loaded, mu={k: v for k, v in loaded.mu.items() if k != "lm_bias"})
    with pytest.raises(ValueError, match=r"mu of lm_bias: missing, wanted \(100,\); set config"):
        continuation.with_moments(state, less, shardings)
    more = dataclasses.replace(loaded, mu={**loaded.mu, "logits/bias": np.zeros(2)})
    with pytest.raises(ValueError, match=r"another model: logits/bias: not in this model"):
        continuation.with_moments(state, more, shardings)
    other = dataclasses.replace(loaded, nu={**loaded.nu, "lm_bias": np.zeros(3)})
    with pytest.raises(ValueError, match=r"nu of lm_bias: \(3,\), wanted \(100,\)"):
        continuation.with_moments(state, other, shardings)


def test_checksums_on_the_host_are_those_of_the_devices():
    arrays = {
        "a": np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32),
        "b": np.arange(11, dtype=np.int32),
        "c": np.array(3.0, np.float32),
        "d": np.array([1, 0, 255], np.uint8),
        "e": np.linspace(0, 1, 9).astype(jax.numpy.bfloat16),
    }
    wanted = {name: int(value) for name, value in fingerprints(arrays).items()}
    assert {f"['{k}']": orbax_folder.fingerprint(v) for k, v in arrays.items()} == wanted


# Without memory, which the original's checkpoints do not hold.
SETTINGS = {
    "model__mem_len": 0, "train__steps": 4, "train__eval_every": 0, "data__heldout": "",
    "checkpoint__save_every": 2, "report__tensorboard": False, "optimizer__warmup_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory):
    """A run of 4 steps, with a checkpoint of step 2."""
    folder = tmp_path_factory.mktemp("continuation")
    run.train(tiny_run.config(shards, **SETTINGS), str(folder))
    return folder


def test_a_run_goes_on_through_a_checkpoint_of_tensorflow(straight, shards, tmp_path, monkeypatch):
    """Ours -> tf -> ours at step 2, taken up by `train`: every bit of the state is there again.

    What follows is a function of the state, so the steps themselves need not be compiled again.
    """
    run_convert(f"{straight}@2", tmp_path / "tf", "jax tf")
    assert (tmp_path / "tf" / "model.ckpt-2.index").exists()
    run_convert(tmp_path / "tf", tmp_path / "jax", "tf jax")
    taken_up = []
    monkeypatch.setattr(run.Loop, "run", lambda loop, state: taken_up.append(state))
    changes = {**SETTINGS, "init_from": tmp_path / "jax", "init_optimizer": True}
    run.train(tiny_run.config(shards, **changes), str(tmp_path / "on"))
    leaves = jax.tree_util.tree_leaves_with_path(checkpoint._parts(taken_up[0]))
    got = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    for optimizer in (False, True):
        _, saved, _ = workdirs.read_newest(epath.Path(straight), "2", optimizer=optimizer)
        for path, leaf in got.items():
            name = orbax_folder._path_of(path)
            if name in saved.arrays and "window" not in name:
                np.testing.assert_array_equal(leaf, saved.arrays[name], err_msg=name)
                saved.arrays.pop(name)
        assert all("window" in name for name in saved.arrays), saved.arrays.keys()


def test_a_work_directory_is_read(straight, shards, tmp_path):
    newest = load_pretrained(straight)
    assert newest.source == f"{straight}@4"
    older = load_pretrained(f"{straight}@2")
    assert not np.array_equal(newest.params["lm_bias"], older.params["lm_bias"])
    assert newest.tokenizer.vocab_size == newest.config.n_token
    assert newest.head is None
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint of step 3 in .*; there are \[2, 4\]"
    ):
        load_pretrained(f"{straight}@3")
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint in .*best"):
        load_pretrained(f"{straight}@best")
    lines = []
    mean = Conversion(str(straight), str(tmp_path / "mean"), "jax", "jax", average=2)
    convert(mean, lines.append)
    got = load_pretrained(tmp_path / "mean").params["lm_bias"]
    both = (newest.params["lm_bias"].astype(np.float64) + older.params["lm_bias"]) / 2
    np.testing.assert_array_equal(got, both.astype(np.float32))


def test_a_damaged_checkpoint_is_passed_over_and_said(straight, tmp_path):
    import shutil

    shutil.copytree(straight, tmp_path / "run")
    info = tmp_path / "run" / "checkpoints" / "4" / "info" / "metadata"
    values = json.loads(info.read_text())
    values["checksums"]["['params']['lm_bias']"] += 1
    info.write_text(json.dumps(values))
    loaded = load_pretrained(tmp_path / "run")
    assert loaded.source.endswith("@2")
    assert "checksums differ: params/lm_bias" in loaded.notes[0]
    with pytest.raises(ValueError, match=r"checksums differ: params/lm_bias"):
        load_pretrained(f"{tmp_path / 'run'}@4")


def test_the_optimizer_needs_a_place_to_come_from(shards):
    with pytest.raises(
        ValueError, match=r"config\.init_optimizer is True, .* needs config\.init_from"
    ):
        run.train(tiny_run.config(shards, init_optimizer=True), "unused")


def test_a_run_stopped_before_its_first_checkpoint_starts_from_its_weights_again(
    straight, shards, tmp_path
):
    config = tiny_run.config(shards, **SETTINGS, init_from=straight)
    loaded = load_pretrained(straight)
    model_files.write_model_files(tmp_path, loaded.config, loaded.tokenizer)
    foundation = setup.find_foundation(settings.parse(config), str(tmp_path))
    assert foundation.weights is not None
    np.testing.assert_array_equal(foundation.weights.params["lm_bias"], loaded.params["lm_bias"])


def finetuning(tmp_path, **model):
    """Settings of a classifier whose config says its whole network."""
    config = tiny_task.quick(classify.get_config("own"), tmp_path)
    config.data.train = "train.tsv"
    config.train.eval_every = 0
    plain = config.to_dict()
    if model:
        del plain["model"]["network"]
        plain["model"] |= model
    return settings.parse(plain)


def test_a_run_stopped_before_its_first_checkpoint_can_have_another_network(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    said = tiny_task.sizes(tiny_task.ENGLISH.vocab_size)
    deeper = dataclasses.replace(said, n_layer=3)
    model_files.write_model_files(folder, deeper, tiny_task.ENGLISH)
    assert setup.find_foundation(finetuning(tmp_path), str(folder)).config == said
    # Evaluation, and training behind a checkpoint, take the run's own.
    assert setup.find_foundation(finetuning(tmp_path), str(folder), begun=True).config == deeper
    (folder / "checkpoints" / "4").mkdir(parents=True)
    assert setup.find_foundation(finetuning(tmp_path), str(folder)).config == deeper


def test_a_resumed_run_has_its_vocabulary_also_where_the_config_says_its_network(tmp_path):
    fields = dataclasses.asdict(tiny_task.sizes(tiny_task.ENGLISH.vocab_size))
    model_files.write_model_files(tmp_path, tiny_task.sizes(5), tiny_task.ENGLISH)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    foundation = setup.find_foundation(finetuning(tmp_path, **fields), str(tmp_path))
    assert foundation.tokenizer is not None
    assert foundation.config is None  # checkpoints are compared with the config
