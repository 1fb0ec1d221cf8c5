import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.convert import examples
from xlnet_jax.convert import huggingface, huggingface_config, writing
from xlnet_jax.convert.pretrained import load_pretrained


@pytest.fixture
def folder(tmp_path):
    writing.write(tmp_path, examples.pretrained(head="classification"), "hf")
    return tmp_path


def change(folder, **values):
    path = folder / "config.json"
    changed = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in changed.items() if v != "gone"}))


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def test_no_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing: without it the weights"):
        load_pretrained(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no weights: wanted model\.safetensors or pytorch"
    ):
        load_pretrained(folder)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_safetensors(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"model\.safetensors is not a whole safetensors file \(\d"
    ):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bert"}, r"has model_type 'bert', wanted 'xlnet'"),
        ({"ff_activation": "silu"}, r"has ff_activation 'silu', wanted one of relu, gelu"),
        ({"layer_norm_eps": 1e-5}, r"has layer_norm_eps 1e-05, wanted 1e-12"),
        ({"d_inner": "gone"}, r"config\.json lacks d_inner"),
        ({"vocab_size": "gone"}, r"config\.json lacks vocab_size"),
        ({"vocab_size": 1000}, r"word_embedding: wanted shape \(1000, 8\), got \(2000, 8\)"),
        ({"n_layer": 1}, r"variable transformer\.layer\.1\.ff\.layer_1\.bias: not used"),
        ({"n_layer": 3}, r"attention/q: missing variables \['transformer\.layer\.2\.rel_attn\.q'"),
        ({"summary_activation": "relu"}, r"summary_use_proj True with summary_activation 'relu'"),
        ({"summary_use_proj": False}, r"summary_use_proj False with summary_activation 'tanh'"),
        ({"summary_type": "cls_index"}, r"summary_type 'cls_index', wanted last, first or mean"),
        ({"id2label": {"0": "a", "2": "b"}}, r"has id2label of 0, 2, wanted 0 to 1"),
    ],
)
def test_configs_that_do_not_fit(folder, values, message):
    change(folder, **values)
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


def test_a_config_that_is_no_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_pretrained(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: wanted a JSON object, got list"):
        load_pretrained(folder)


def test_what_the_config_says_of_the_network(folder):
    values = json.loads((folder / "config.json").read_text())
    assert values["ff_activation"] == "gelu_new"  # the tanh form
    assert values["architectures"] == ["XLNetForSequenceClassification"]
    assert (values["mem_len"], values["untie_r"], values["vocab_size"]) == (None, True, 2000)
    assert (values["pad_token_id"], values["bos_token_id"], values["eos_token_id"]) == (5, 1, 2)
    assert values["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


def test_older_configs_say_less(folder):
    change(folder, d_head="gone", untie_r="gone", vocab_size="gone", n_token=2000)
    assert load_pretrained(folder).config == examples.config()


def test_gelu_of_the_released_configs_is_the_tanh_form_and_said(folder):
    change(folder, ff_activation="gelu", attn_type="uni")
    loaded = load_pretrained(folder)
    assert loaded.config.ff_activation == "gelu"
    assert "not PyTorch's exact form" in loaded.notes[0]
    assert "attn_type='uni'" in loaded.notes[1]


def test_a_network_that_transformers_does_not_have(tmp_path):
    model = examples.pretrained(network=examples.config(d_head=6))
    with pytest.raises(
        ValueError, match=r"no XLNet with n_head × d_head = 2 × 6 unlike d_model = 8"
    ):
        writing.write(tmp_path, model, "hf")


def test_labels_must_be_as_many_as_outputs(tmp_path):
    model = examples.pretrained(head="tagging", details={"labels": ["O", "B"]})
    with pytest.raises(ValueError, match="the head has 3 outputs, but there are 2 labels"):
        writing.write(tmp_path, model, "hf")


def test_several_labels_a_text(tmp_path):
    details = {"problem_type": "multi_label_classification", "summary_type": "last"}
    model = examples.pretrained(head="classification", details=details)
    writing.write(tmp_path, model, "hf")
    assert load_pretrained(tmp_path).details == details


def test_names_without_the_prefix_of_models_with_a_head(folder):
    loaded = load_pretrained(folder)
    tensors = {k.removeprefix("transformer."): v for k, v in tensors_of(folder).items()}
    huggingface.write_tensors(folder, tensors, as_bin=False)
    examples.assert_equal(load_pretrained(folder).params, loaded.params)


def test_weights_in_several_files(folder):
    loaded = load_pretrained(folder)
    tensors = tensors_of(folder)
    names = sorted(tensors)
    files = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in files.items():
        safetensors.numpy.save_file({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    examples.assert_equal(load_pretrained(folder).params, loaded.params)
    (folder / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names \['b\.safetensors'\], which are missing"):
        load_pretrained(folder)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_types_become_float32(folder, dtype):
    tensors = {name: array.astype(dtype) for name, array in tensors_of(folder).items()}
    huggingface.write_tensors(folder, tensors, as_bin=False)
    got = load_pretrained(folder).params["logits"]["kernel"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, tensors["logits_proj.weight"].astype(np.float32).T)


def test_whole_numbers_are_no_weights(folder):
    tensors = {**tensors_of(folder), "position_ids": np.arange(4)}
    huggingface.write_tensors(folder, tensors, as_bin=False)
    with pytest.raises(ValueError, match=r"position_ids is of type I64, wanted one of F32, F16"):
        load_pretrained(folder)


def test_the_weight_that_is_shared_with_the_embedding(tmp_path):
    writing.write(tmp_path, examples.pretrained(), "hf")
    loaded = load_pretrained(tmp_path)
    tensors = tensors_of(tmp_path)
    tensors["lm_loss.weight"] = tensors["transformer.word_embedding.weight"].copy()
    huggingface.write_tensors(tmp_path, tensors, as_bin=False)
    examples.assert_equal(load_pretrained(tmp_path).params, loaded.params)
    tensors["lm_loss.weight"][3, 3] += 1
    huggingface.write_tensors(tmp_path, tensors, as_bin=False)
    with pytest.raises(ValueError, match=r"lm_loss\.weight differs from the word embedding"):
        load_pretrained(tmp_path)


def test_a_head_without_a_place_here(folder):
    tensors = {**tensors_of(folder), "qa_outputs.weight": np.zeros((2, 8), np.float32)}
    huggingface.write_tensors(folder, tensors, as_bin=False)
    with pytest.raises(ValueError, match=r"variable qa_outputs\.weight: not used"):
        load_pretrained(folder)


def test_parts_that_a_fine_tuned_checkpoint_lacks_are_zeros_and_said(tmp_path):
    model = examples.pretrained(head="span_qa", parts={"trunk", "span"})
    notes = writing.write(tmp_path, model, "hf")
    (zeros,) = [note for note in notes if "written as zeros" in note]
    assert "xlnet/mask_embedding, answer_class/dense_0/kernel" in zeros
    params = examples.flatten(load_pretrained(tmp_path).params)
    assert not params["answer_class/dense_1/kernel"].any()
    assert params.keys() > examples.flatten(model.params).keys()


def test_a_multiple_choice_head_needs_its_architecture(tmp_path):
    writing.write(tmp_path, examples.pretrained(head="multiple_choice"), "hf")
    assert load_pretrained(tmp_path).head == "multiple_choice"
    change(tmp_path, architectures="gone")
    assert load_pretrained(tmp_path).head == "regression"


def test_files_of_a_complete_folder(folder):
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "normalization.json", "special_tokens_map.json",
        "spiece.model", "tokenizer_config.json", "xlnet_config.json",
    }  # fmt: skip
    assert huggingface_config.read_config(folder).config == examples.config()
