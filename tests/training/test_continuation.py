"""A run of another program, or of ours, goes on from its converted checkpoint."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from tests.parity import pretrain_train
from tests.training import tiny_run
from xlnet_jax.convert import moments, orbax_folder, workdirs
from xlnet_jax.convert.conversion import Conversion, convert
from xlnet_jax.convert.pretrained import load_pretrained
from xlnet_jax.training import continuation, run
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


@pytest.fixture(scope="module")
def stopped_and_straight(shards, tmp_path_factory):
    """A run of 6 steps, with its checkpoint of step 3."""
    folder = tmp_path_factory.mktemp("continuation")
    config = tiny_run.config(shards, **SETTINGS)
    run.train(config, str(folder / "straight"))
    return folder / "straight"


# Without memory, which the original's checkpoints do not hold.
SETTINGS = {
    "model__mem_len": 0, "train__steps": 6, "train__eval_every": 0, "data__heldout": "",
    "checkpoint__save_every": 3, "report__tensorboard": False,
}  # fmt: skip


def test_a_run_goes_on_through_a_checkpoint_of_tensorflow(stopped_and_straight, shards, tmp_path):
    """ours -> tf -> ours at step 3, then to step 6: the same bits as without a stop."""
    straight = stopped_and_straight
    run_convert(f"{straight}@3", tmp_path / "tf", "jax tf")
    assert (tmp_path / "tf" / "model.ckpt-3.index").exists()
    run_convert(tmp_path / "tf", tmp_path / "jax", "tf jax")
    config = tiny_run.config(shards, **SETTINGS, init_from=tmp_path / "jax", init_optimizer=True)
    run.train(config, str(tmp_path / "on"))
    assert orbax_folder.steps_of(tiny_run.Path(tmp_path / "on")) == [6]
    for optimizer in (False, True):
        _, got, _ = workdirs.read_newest(tiny_run.Path(tmp_path / "on"), "6", optimizer=optimizer)
        _, wanted, _ = workdirs.read_newest(tiny_run.Path(straight), "6", optimizer=optimizer)
        for name, array in wanted.arrays.items():
            if "window" not in name:
                np.testing.assert_array_equal(got.arrays[name], array, err_msg=name)


def test_a_work_directory_is_read(stopped_and_straight, shards, tmp_path):
    newest = load_pretrained(stopped_and_straight)
    assert newest.source == f"{stopped_and_straight}@6"
    older = load_pretrained(f"{stopped_and_straight}@3")
    assert not np.array_equal(newest.params["lm_bias"], older.params["lm_bias"])
    assert newest.tokenizer.vocab_size == newest.config.n_token
    assert newest.head is None
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint of step 4 in .*; there are \[3, 6\]"
    ):
        load_pretrained(f"{stopped_and_straight}@4")
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint in .*best"):
        load_pretrained(f"{stopped_and_straight}@best")
    lines = []
    mean = Conversion(str(stopped_and_straight), str(tmp_path / "mean"), "jax", "jax", average=2)
    convert(mean, lines.append)
    got = load_pretrained(tmp_path / "mean").params["lm_bias"]
    both = (newest.params["lm_bias"].astype(np.float64) + older.params["lm_bias"]) / 2
    np.testing.assert_array_equal(got, both.astype(np.float32))


def test_a_damaged_checkpoint_is_passed_over_and_said(stopped_and_straight, tmp_path):
    import shutil

    shutil.copytree(stopped_and_straight, tmp_path / "run")
    info = tmp_path / "run" / "checkpoints" / "6" / "info" / "metadata"
    values = json.loads(info.read_text())
    values["checksums"]["['params']['lm_bias']"] += 1
    info.write_text(json.dumps(values))
    loaded = load_pretrained(tmp_path / "run")
    assert loaded.source.endswith("@3")
    assert "checksums differ: params/lm_bias" in loaded.notes[0]
    with pytest.raises(ValueError, match=r"checksums differ: params/lm_bias"):
        load_pretrained(f"{tmp_path / 'run'}@6")


def test_the_optimizer_needs_a_place_to_come_from(shards):
    with pytest.raises(
        ValueError, match=r"config\.init_optimizer is True, .* needs config\.init_from"
    ):
        run.train(tiny_run.config(shards, init_optimizer=True), "unused")
