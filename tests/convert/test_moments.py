import json

import numpy as np
import pytest
from etils import epath
from flax import traverse_util

from tests.convert import examples
from xlnet_jax.convert import moments, rules, tensorflow
from xlnet_jax.convert.conversion import Conversion, convert
from xlnet_jax.convert.pretrained import load_pretrained

CHAINS = examples.GOLDENS / "pretrain_train"
CHECKPOINTS = [
    CHAINS / "adam_poly" / "mid_model.ckpt",
    CHAINS / "adamw_poly" / "final_model.ckpt",
]
IDS = [path.parent.name for path in CHECKPOINTS]


def run(source, output, formats, **options):
    lines = []
    source_format, target_format = formats.split()
    job = Conversion(
        str(source), str(output), source_format, target_format, with_optimizer=True, **options
    )
    convert(job, lines.append)
    return lines


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=IDS)
def test_tf_to_jax_to_tf_with_slots_is_the_same_to_the_last_bit(tmp_path, checkpoint):
    wanted = tensorflow.read_checkpoint(str(checkpoint))
    step = int(wanted["global_step"])
    lines = run(checkpoint, tmp_path / "jax", "tf jax")
    assert lines[-1].endswith(f"Adam's state of step {step}")
    run(tmp_path / "jax", tmp_path / "tf", "jax tf")
    got = tensorflow.read_checkpoint(str(tmp_path / "tf" / f"model.ckpt-{step}"))
    examples.assert_equal(got, wanted)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=IDS)
def test_every_slot_goes_where_its_variable_goes(tmp_path, checkpoint):
    run(checkpoint, tmp_path / "jax", "tf jax")
    loaded = moments.load_moments(tmp_path / "jax")
    variables = tensorflow.read_checkpoint(str(checkpoint))
    assert loaded.step == variables["global_step"]
    assert loaded.decayed == ("model/lm_loss/bias/adam_m" in variables)
    for ours, endings in ((loaded.mu, ("adam_m", "Adam")), (loaded.nu, ("adam_v", "Adam_1"))):
        slot = {k.rpartition("/")[2]: v for k, v in variables.items() if "layer_1/rel_attn/k" in k}
        (wanted,) = (slot[ending] for ending in endings if ending in slot)
        np.testing.assert_array_equal(ours["xlnet/layers/attention/k"][1], wanted)
        assert ours.keys() == examples.flatten(load_pretrained(tmp_path / "jax").params).keys()


def test_powers_of_beta_are_those_of_the_step():
    """What a run of ours computes for TensorFlow is what TensorFlow has."""
    variables = tensorflow.read_checkpoint(str(CHECKPOINTS[0]))
    step = int(variables["global_step"])
    assert step > 0
    np.testing.assert_allclose(variables["beta1_power"], 0.9 ** (step + 1), rtol=1e-6)
    np.testing.assert_allclose(variables["beta2_power"], 0.999 ** (step + 1), rtol=1e-6)


def test_a_variable_without_a_gradient_has_no_slot(tmp_path):
    variables = tensorflow.read_checkpoint(str(CHECKPOINTS[0]))
    for ending in ("Adam", "Adam_1"):
        del variables[f"model/transformer/mask_emb/mask_emb/{ending}"]
    (tmp_path / "tf").mkdir()
    tensorflow.write_checkpoint(tmp_path / "tf" / "model.ckpt", variables)
    config = str(CHECKPOINTS[0].parent / "xlnet_config.json")
    options = {"xlnet_config": config}
    with pytest.raises(ValueError, match=r"xlnet/mask_embedding: missing variables"):
        run(tmp_path / "tf", tmp_path / "jax", "tf jax", **options)
    allowed = rules.Allowed(missing=("xlnet/mask_embedding",))
    lines = run(tmp_path / "tf", tmp_path / "jax", "tf jax", allowed=allowed, **options)
    assert "optimizer: missing, as allowed: xlnet/mask_embedding" in lines
    loaded = moments.load_moments(tmp_path / "jax")
    assert not loaded.mu["xlnet/mask_embedding"].any()
    assert not loaded.nu["xlnet/mask_embedding"].any()


def test_a_slot_of_nothing_is_an_error(tmp_path):
    variables = tensorflow.read_checkpoint(str(CHECKPOINTS[0]))
    variables["model/other/Adam"] = np.zeros(1, np.float32)
    tensorflow.write_checkpoint(tmp_path / "model.ckpt", variables)
    config = str(CHECKPOINTS[0].parent / "xlnet_config.json")
    with pytest.raises(ValueError, match=r"variable model/other: not used"):
        run(tmp_path / "model.ckpt", tmp_path / "jax", "tf jax", xlnet_config=config)


def test_where_there_is_no_state(tmp_path):
    source = CHAINS / "adam_poly" / "xlnet_model.ckpt"
    with pytest.raises(ValueError, match=r"has no optimizer slots .* leave out --with_optimizer"):
        run(source, tmp_path / "jax", "tf jax")
    convert(Conversion(str(source), str(tmp_path / "jax"), "tf", "jax"), lambda line: None)
    with pytest.raises(ValueError, match=r"has no optimizer state; convert with --with_optimizer"):
        moments.load_moments(tmp_path / "jax")
    with pytest.raises(ValueError, match=r"make one with xlnet-jax convert --with_optimizer"):
        moments.load_moments(source)


def test_damage_is_seen(tmp_path):
    run(CHECKPOINTS[0], tmp_path / "jax", "tf jax")
    path = tmp_path / "jax" / "convert.json"
    info = json.loads(path.read_text())
    info["checksums"]["optimizer/nu/lm_bias"] += 1
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"checksums differ: optimizer/nu/lm_bias"):
        moments.load_moments(tmp_path / "jax")
    assert load_pretrained(epath.Path(tmp_path / "jax")).config.n_layer == 3
    assert traverse_util.flatten_dict(load_pretrained(tmp_path / "jax").params)
