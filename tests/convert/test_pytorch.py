"""What PyTorch's own XLNet computes with converted weights, beside ours; both sides run here."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from etils import epath
from flax import traverse_util

from tests.convert import examples
from xlnet_jax.convert import huggingface, verify, writing
from xlnet_jax.convert.conversion import Conversion, convert
from xlnet_jax.convert.pretrained import load_pretrained

CLASSES = {
    None: "XLNetLMHeadModel",
    "classification": "XLNetForSequenceClassification",
    "regression": "XLNetForSequenceClassification",
    "multiple_choice": "XLNetForMultipleChoice",
    "tagging": "XLNetForTokenClassification",
    "span_qa": "XLNetForQuestionAnswering",
}
TRUNK = {
    "hidden states", "inputs of the layers", "hidden states with memory",
    "inputs of the layers with memory",
}  # fmt: skip
OF_HEAD = {
    None: {"logits of the language model"},
    "span_qa": {"start logits", "end logits", "answerability"},
}


RELU_TIED = {"ff_activation": "relu", "untie_r": False}


@pytest.mark.parametrize(
    ("head", "changes"), [*((head, {}) for head in CLASSES), (None, RELU_TIED)]
)
def test_the_same_numbers(tmp_path, head, changes):
    model = examples.pretrained(examples.config(**changes), head)
    writing.write(tmp_path, model, "hf")
    distances = verify.against_pytorch(epath.Path(tmp_path), load_pretrained(tmp_path))
    assert distances.keys() == TRUNK | OF_HEAD.get(head, {"logits of the head"})
    assert max(distances.values()) < 1e-5, distances
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [CLASSES[head]]


@pytest.mark.parametrize(("summary_type", "projection"), [("first", False), ("mean", True)])
def test_summaries(tmp_path, summary_type, projection):
    parts = {"trunk", "mask", "logits"} | ({"projection"} if projection else set())
    details = {"summary_type": summary_type}
    model = examples.pretrained(head="classification", parts=parts, details=details)
    notes = writing.write(tmp_path, model, "hf")
    assert any("counts padding" in note for note in notes)
    distances = verify.against_pytorch(epath.Path(tmp_path), load_pretrained(tmp_path))
    assert max(distances.values()) < 1e-5, distances


SWAPS = [
    ("rel_attn.q", "rel_attn.k"),
    ("rel_attn.v", "rel_attn.o"),
    ("rel_attn.r", "rel_attn.q"),
    ("rel_attn.r_w_bias", "rel_attn.r_r_bias"),
    ("rel_attn.r_s_bias", "rel_attn.r_w_bias"),
    ("ff.layer_1.bias", "ff.layer_2.bias"),
    ("ff.layer_1.weight", "ff.layer_2.weight"),
    ("rel_attn.layer_norm.bias", "ff.layer_norm.bias"),
]


@pytest.mark.parametrize("swap", SWAPS, ids="-".join)
def test_any_swap_shows(tmp_path, swap):
    """Parameters of one shape exchanged in the folder alone give other numbers."""
    model = examples.pretrained()
    writing.write(tmp_path, model, "hf")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    one, two = (f"transformer.layer.1.{name}" for name in swap)
    tensors[one], tensors[two] = tensors[two], tensors[one]
    huggingface.write_tensors(tmp_path, tensors, as_bin=False)
    distances = verify.against_pytorch(epath.Path(tmp_path), model)
    assert distances["hidden states"] > 1e-3


def test_transposed_kernels_show(tmp_path):
    model = examples.pretrained(head="classification")
    writing.write(tmp_path, model, "hf")
    flat = examples.flatten(model.params)
    flat["summary/projection/kernel"] = flat["summary/projection/kernel"].T
    turned = traverse_util.unflatten_dict(flat, sep="/")
    other = examples.pretrained(head="classification").__class__(
        **{**vars(model), "params": turned}
    )
    distances = verify.against_pytorch(epath.Path(tmp_path), other)
    assert distances["logits of the head"] > 1e-3
    assert distances["hidden states"] < 1e-5


@pytest.mark.parametrize("head", [None, "span_qa"])
def test_models_that_pytorch_saved(tmp_path, head):
    """The other way round: random weights of PyTorch, converted by the command's own function."""
    config = transformers.XLNetConfig(
        vocab_size=2000, d_model=8, n_layer=2, n_head=2, d_inner=8, ff_activation="gelu_new",
        num_labels=1 if head == "regression" else 3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[head])(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(tmp_path / "hf")
    lines = []
    job = Conversion(str(tmp_path / "hf"), str(tmp_path / "jax"), "hf", "jax", verify=True)
    convert(job, lines.append)
    assert any(line.startswith("verify: hidden states with memory: ") for line in lines)
    assert load_pretrained(tmp_path / "jax").head == head


def test_bin_and_safetensors_are_the_same(tmp_path):
    writing.write(tmp_path / "safe", examples.pretrained(head="tagging"), "hf")
    job = Conversion(
        str(tmp_path / "safe"), str(tmp_path / "bin"), "hf", "hf", as_bin=True, verify=True
    )
    convert(job, lambda line: None)
    assert (tmp_path / "bin" / "pytorch_model.bin").exists()
    assert not (tmp_path / "bin" / "model.safetensors").exists()
    got, wanted = load_pretrained(tmp_path / "bin"), load_pretrained(tmp_path / "safe")
    examples.assert_equal(got.params, wanted.params)
    path = tmp_path / "bin" / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"pytorch_model\.bin cannot be read by PyTorch: "):
        load_pretrained(tmp_path / "bin")


def test_a_missing_tensor_is_no_random_one(tmp_path):
    model = examples.pretrained(head="classification")
    writing.write(tmp_path, model, "hf")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    del tensors["transformer.mask_emb"]
    tensors["more"] = np.zeros(2, np.float32)
    huggingface.write_tensors(tmp_path, tensors, as_bin=False)
    with pytest.raises(ValueError, match=r"from_pretrained\(.*mask_emb.*more"):
        verify.against_pytorch(epath.Path(tmp_path), model)


def test_verification_that_fails_leaves_nothing(tmp_path, monkeypatch):
    writing.write(tmp_path / "jax", examples.pretrained(), "jax")
    true = huggingface.write_tensors

    def swapped(folder, tensors, *, as_bin):
        one, two = (f"transformer.layer.0.rel_attn.{name}" for name in "qk")
        true(folder, {**tensors, one: tensors[two], two: tensors[one]}, as_bin=as_bin)

    monkeypatch.setattr(huggingface, "write_tensors", swapped)
    job = Conversion(str(tmp_path / "jax"), str(tmp_path / "hf"), "jax", "hf", verify=True)
    with pytest.raises(
        FloatingPointError, match=r"xlnet/layers/attention/[qk] differs by .* nothing"
    ):
        convert(job, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["jax"]
