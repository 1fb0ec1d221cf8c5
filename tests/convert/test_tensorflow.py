import numpy as np
import pytest

from tests.convert import examples
from xlnet_jax.convert import tensorflow


def variables(step=0):
    weights = examples.variables_of(examples.flat_params(examples.config()), examples.config())
    return {**weights, "global_step": np.array(step, np.int64)}


def test_written_is_read_again(tmp_path):
    wanted = variables(step=3)
    tensorflow.write_checkpoint(tmp_path / "model.ckpt-3", wanted)
    got = tensorflow.read_checkpoint(str(tmp_path / "model.ckpt-3"))
    examples.assert_equal(got, wanted)
    assert tensorflow.variable_names(str(tmp_path / "model.ckpt-3")) == sorted(wanted)
    some = tensorflow.read_checkpoint(str(tmp_path / "model.ckpt-3"), lambda name: "seg" in name)
    assert some.keys() == {"model/transformer/seg_embed"}


def test_the_saver_of_tensorflow_1_restores_it(tmp_path):
    import tensorflow as tf

    wanted = variables(step=7)
    tensorflow.write_checkpoint(tmp_path / "xlnet_model.ckpt", wanted)
    found = tf.compat.v1.train.latest_checkpoint(str(tmp_path))
    assert found == str(tmp_path / "xlnet_model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = {
            name: tf.compat.v1.get_variable(
                name, array.shape, array.dtype, use_resource=False,
                initializer=tf.compat.v1.zeros_initializer(),
            )
            for name, array in wanted.items()
        }  # fmt: skip
        tf.compat.v1.train.Saver().restore(session, found)
        got = session.run(graph)
    examples.assert_equal({k: np.asarray(v) for k, v in got.items()}, wanted)


def touch(folder, *names):
    for name in names:
        (folder / f"{name}.index").write_bytes(b"")


def test_checkpoints_of_a_folder_in_order(tmp_path):
    touch(tmp_path, "model.ckpt-9", "model.ckpt-100", "model.ckpt-20", "xlnet_model.ckpt")
    names = [path.rpartition("/")[2] for path in tensorflow.checkpoints_in(tmp_path)]
    assert names == ["xlnet_model.ckpt", "model.ckpt-9", "model.ckpt-20", "model.ckpt-100"]
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-20"\n'
        'all_model_checkpoint_paths: "/elsewhere/model.ckpt-9"\n'
        'all_model_checkpoint_paths: "model.ckpt-15"\n'
        'all_model_checkpoint_paths: "model.ckpt-20"\n'
    )
    names = [path.rpartition("/")[2] for path in tensorflow.checkpoints_in(tmp_path)]
    assert names == ["model.ckpt-9", "model.ckpt-20"]
    assert tensorflow.find_checkpoint(tmp_path) == str(tmp_path / "model.ckpt-20")


@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_of_its_files_names_a_checkpoint(tmp_path, ending):
    touch(tmp_path, "model.ckpt")
    found = tensorflow.find_checkpoint(f"{tmp_path}/model.ckpt{ending}")
    assert found == f"{tmp_path}/model.ckpt"


def test_what_cannot_be_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no TensorFlow checkpoint in .*ends in \.index"):
        tensorflow.find_checkpoint(tmp_path)
    touch(tmp_path, "a.ckpt", "b.ckpt")
    with pytest.raises(ValueError, match=r"several checkpoints: a\.ckpt, b\.ckpt; give the path"):
        tensorflow.find_checkpoint(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"c\.ckpt\.index does not exist; in .*: a\.ckpt, b"
    ):
        tensorflow.find_checkpoint(tmp_path / "c.ckpt")


@pytest.mark.parametrize("file", ["index", "data-00000-of-00001"])
def test_a_file_that_is_cut_off(tmp_path, file):
    tensorflow.write_checkpoint(tmp_path / "m.ckpt", variables())
    path = tmp_path / f"m.ckpt.{file}"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"TensorFlow checkpoint .*m\.ckpt cannot be read: ") as e:
        tensorflow.read_checkpoint(str(tmp_path / "m.ckpt"))
    assert "\n" not in str(e.value)


def test_no_data_file(tmp_path):
    tensorflow.write_checkpoint(tmp_path / "m.ckpt", variables())
    (tmp_path / "m.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"m\.ckpt cannot be read: .*m\.ckpt\.data-00000-of-00001"):
        tensorflow.read_checkpoint(str(tmp_path / "m.ckpt"))
