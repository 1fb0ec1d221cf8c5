import dataclasses
import json
import shutil

import numpy as np
import pytest

import xlnet_jax
from tests.convert import examples
from xlnet_jax.convert import orbax_folder, pretrained, writing
from xlnet_jax.convert.pretrained import load_pretrained, merge_params
from xlnet_jax.convert.rules import Allowed
from xlnet_jax.data.normalization import Normalization

HEADS_OF_TF = ("classification:mnli", "regression:sts-b", "multiple_choice", "span_qa")


def written(folder, target, **options):
    model = examples.pretrained(**options)
    writing.write(folder, model, target)
    return model


@pytest.mark.parametrize("target", ["tf", "hf", "jax"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_every_format_gives_back_what_was_written(tmp_path, target, tied):
    model = written(tmp_path, target, network=examples.config(untie_r=not tied))
    loaded = load_pretrained(tmp_path)
    examples.assert_equal(loaded.params, model.params)
    assert loaded.config == model.config
    assert loaded.tokenizer.sha256 == model.tokenizer.sha256
    assert loaded.tokenizer.normalization == Normalization(form="reference")
    assert loaded.head is None


@pytest.mark.parametrize("target", ["tf", "hf", "jax"])
@pytest.mark.parametrize("head", [*HEADS_OF_TF, "tagging"])
def test_heads_in_every_format(tmp_path, target, head):
    if (target, head) == ("tf", "tagging"):
        with pytest.raises(ValueError, match="parameter logits/kernel: the original has no vari"):
            written(tmp_path, target, head=head)
        return
    model = written(tmp_path, target, head=head)
    loaded = load_pretrained(tmp_path)
    examples.assert_equal(loaded.params, model.params)
    assert loaded.head == (head if target != "hf" else head.partition(":")[0])


@pytest.mark.parametrize("form", ["nfc", "none"])
@pytest.mark.parametrize("target", ["tf", "hf", "jax"])
def test_the_clean_up_travels_along(tmp_path, target, form):
    normalization = Normalization(form=form, lower=True)
    written(tmp_path, target, normalization=normalization)
    assert load_pretrained(tmp_path).tokenizer.normalization == normalization
    (tmp_path / "normalization.json").unlink()
    got = load_pretrained(tmp_path).tokenizer.normalization
    assert got == Normalization(form="reference", lower=target == "hf")  # as tokenizer_config says
    assert load_pretrained(tmp_path, lower=True).tokenizer.normalization.lower
    assert not load_pretrained(tmp_path, lower=False).tokenizer.normalization.lower


def test_labels_and_summary_type_travel_along(tmp_path):
    details = {"summary_type": "mean", "labels": ["no", "maybe", "yes"]}
    for target in ("hf", "jax"):
        written(tmp_path / target, target, head="classification", details=details)
        assert load_pretrained(tmp_path / target).details == details


def test_the_vocabulary_from_elsewhere(tmp_path):
    written(tmp_path, "tf")
    (tmp_path / "spiece.model").unlink()
    assert load_pretrained(tmp_path).tokenizer is None
    loaded = load_pretrained(tmp_path, spiece_model=examples.SPIECE_MODEL)
    assert loaded.tokenizer.vocab_size == 2000


def test_the_config_from_elsewhere(tmp_path):
    written(tmp_path / "model", "tf")
    config = (tmp_path / "model" / "xlnet_config.json").rename(tmp_path / "config.json")
    with pytest.raises(
        FileNotFoundError, match=r"has no xlnet_config\.json, .*--xlnet_config=FILE"
    ):
        load_pretrained(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model" / "xlnet_model.ckpt", xlnet_config=config)
    assert loaded.config == examples.config()
    with pytest.raises(FileNotFoundError, match=r"--xlnet_config=nowhere: no such file"):
        load_pretrained(tmp_path / "model", xlnet_config="nowhere")


@pytest.mark.parametrize("target", ["hf", "jax"])
def test_only_tensorflow_checkpoints_take_a_config_from_elsewhere(tmp_path, target):
    written(tmp_path / "model", target)
    with pytest.raises(ValueError, match=r"^--xlnet_config=x.json is for TensorFlow checkpoints"):
        load_pretrained(tmp_path / "model", xlnet_config="x.json")


@pytest.mark.parametrize("target", ["tf", "hf", "jax"])
def test_a_vocabulary_of_another_size(tmp_path, target):
    written(tmp_path, target, network=examples.config(n_token=100))
    with pytest.raises(ValueError, match=r"has 2000 pieces, but the network of .* has n_token 100"):
        load_pretrained(tmp_path, spiece_model=examples.SPIECE_MODEL)


def change_config(folder, **changes):
    path = folder / "xlnet_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_wrong_activation(tmp_path):
    written(tmp_path, "tf")
    change_config(tmp_path, ff_activation="swish")
    with pytest.raises(
        ValueError, match=r"xlnet_config\.json: model\.ff_activation must be one of"
    ):
        load_pretrained(tmp_path)


def test_another_network_names_the_shapes(tmp_path):
    written(tmp_path, "tf")
    change_config(tmp_path, d_inner=16)
    with pytest.raises(ValueError, match=r"kernel_1: wanted shape \(2, 8, 16\), got \(2, 8, 8\)"):
        load_pretrained(tmp_path)


def test_several_heads_in_one_checkpoint():
    path = examples.GOLDENS / "finetune_forward" / "tied_gelu_wide" / "xlnet_model.ckpt"
    with pytest.raises(
        ValueError,
        match=r"these heads: classification:demo, regression:demo; which.*of xlnet-jax convert",
    ):
        load_pretrained(path)
    allowed = Allowed(unused=("model/regression_demo/*",))
    loaded = load_pretrained(path, head="classification:demo", allowed=allowed)
    assert loaded.head == "classification:demo"
    assert loaded.details == {"summary_type": "attn"}
    assert loaded.notes[0].startswith("not used, as allowed: model/regression_demo/logit/bias")
    assert loaded.notes[1] == "1 variables of the optimizer are no part of the model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"convert\.json is not JSON"),
        ("[]", r"convert\.json: wanted a JSON object, got list"),
        ('{"format": 1}', r"has no params state"),
    ],
)
def test_a_garbled_info_is_named(tmp_path, text, message):
    written(tmp_path, "jax")
    (tmp_path / "convert.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["convert.json", "params"])
def test_half_a_folder_is_refused(tmp_path, part):
    written(tmp_path, "jax")
    if part == "params":
        for path in (tmp_path / "params").rglob("*"):
            if path.is_file() and path.parent.name == "d":
                path.write_bytes(b"")
        wanted = r"params cannot be read: "
    else:
        (tmp_path / part).unlink()
        wanted = r"convert\.json is missing: the folder is not complete"
    with pytest.raises((ValueError, FileNotFoundError), match=wanted):
        load_pretrained(tmp_path)


def test_exchanged_weights_are_seen_by_their_checksums(tmp_path):
    written(tmp_path / "a", "jax")
    written(tmp_path / "b", "jax", seed=1)
    shutil.rmtree(tmp_path / "a" / "params")
    (tmp_path / "b" / "params").rename(tmp_path / "a" / "params")
    with pytest.raises(ValueError, match="is damaged, checksums differ: params/lm_bias, "):
        load_pretrained(tmp_path / "a")


def test_a_folder_of_a_later_format(tmp_path):
    written(tmp_path, "jax")
    path = tmp_path / orbax_folder.INFO_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    with pytest.raises(ValueError, match="format 9, this program reads format 1"):
        load_pretrained(tmp_path)


def test_what_holds_no_weights(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds no weights: wanted a TensorFlow checkpoint"
    ):
        load_pretrained(tmp_path)
    wanted = r"/nothing: no such file or folder, wanted a TensorFlow checkpoint .* or a folder"
    with pytest.raises(FileNotFoundError, match=wanted):
        load_pretrained(tmp_path / "nothing")
    (tmp_path / "model.ckpt.index").touch()
    with pytest.raises(FileNotFoundError, match=r"at .*/nothing: .* there are: model\.ckpt"):
        load_pretrained(tmp_path / "nothing")


def test_the_public_name():
    assert xlnet_jax.load_pretrained is pretrained.load_pretrained


def test_merging_reports_what_it_did():
    fresh = {"xlnet": {"a": np.zeros(2), "b": np.zeros(3)}, "logits": {"bias": np.zeros(4)}}
    loaded = {"xlnet": {"a": np.ones(2), "c": np.ones(1)}, "lm_bias": np.ones(9)}
    params, report = merge_params(fresh, loaded)
    assert report.loaded == ["xlnet/a"]
    assert report.fresh == ["xlnet/b", "logits/bias"]
    assert report.unused == ["xlnet/c", "lm_bias"]
    np.testing.assert_array_equal(params["xlnet"]["a"], np.ones(2))
    assert params["xlnet"]["b"] is fresh["xlnet"]["b"]
    assert params.keys() == fresh.keys()


def test_merging_refuses_another_number_of_labels():
    fresh = {"logits": {"kernel": np.zeros((8, 3)), "bias": np.zeros(3)}}
    loaded = {"logits": {"kernel": np.zeros((8, 2)), "bias": np.zeros(2)}}
    with pytest.raises(ValueError, match="number of labels") as caught:
        merge_params(fresh, loaded)
    assert "logits/kernel is (8, 2) in the checkpoint, (8, 3) is wanted" in str(caught.value)
    assert "logits/bias is (2,) in the checkpoint, (3,) is wanted" in str(caught.value)


def test_fields_are_what_others_rely_on():
    names = [field.name for field in dataclasses.fields(pretrained.Pretrained)]
    assert names[:5] == ["config", "params", "tokenizer", "source", "head"]
