"""What transformers makes of the tokenizer files, beside our own tokenizer."""

import json

import pytest
import transformers
from etils import epath

from tests.convert import examples
from xlnet_jax.convert import huggingface_tokenizer
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import Tokenizer

TEXTS = [
    "Héllo (x) world. - a_b £5",
    "``quoted'' text, and   spaces\tof all\nkinds",
    "日本語が й ½ ﬁ Ångström",
    "ALL CAPS Ünï",
    'The quick, brown fox. (It) said - "no" – 20€.',
    "",
]
REFERENCE = Normalization(form="reference")


def write(folder, normalization):
    (folder / "config.json").write_text(json.dumps({"model_type": "xlnet"}))
    tokenizer = Tokenizer(examples.SPIECE_MODEL, normalization)
    return tokenizer, huggingface_tokenizer.write(epath.Path(folder), tokenizer)


@pytest.mark.parametrize("loader", [transformers.AutoTokenizer, transformers.XLNetTokenizer])
@pytest.mark.parametrize("lower", [False, True])
def test_the_clean_up_of_the_original(tmp_path, loader, lower):
    ours, _ = write(tmp_path, Normalization(form="reference", lower=lower))
    theirs = loader.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(theirs, transformers.XLNetTokenizer)
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text), text
    assert (tmp_path / "tokenizer.json").exists() is False


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(form="nfc"),
        Normalization(form="nfkc", lower=True),
        Normalization(form="none"),
        Normalization(form="reference", keep_accents=True),
    ],
    ids=["nfc", "nfkc lower", "none", "accents"],
)
def test_other_clean_ups_through_auto_tokenizer(tmp_path, normalization):
    ours, notes = write(tmp_path, normalization)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text), text
    assert "use AutoTokenizer" in notes[0]


@pytest.mark.parametrize(
    "normalization", [REFERENCE, Normalization(form="nfc")], ids=["ref", "nfc"]
)
def test_special_tokens_and_layout(tmp_path, normalization):
    ours, _ = write(tmp_path, normalization)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    one, two = ours.encode("a cat"), ours.encode("the dog")
    sep, cls = ours.special.sep, ours.special.cls
    pair = theirs("a cat", "the dog", return_token_type_ids=True)
    assert pair["input_ids"] == [*one, sep, *two, sep, cls]
    assert pair["token_type_ids"] == [0] * (len(one) + 1) + [1] * (len(two) + 1) + [2]
    assert theirs("a cat")["input_ids"] == [*one, sep, cls]
    assert theirs.padding_side == "left"
    assert len(theirs) == ours.vocab_size
    special = {"<s>", "</s>", "<unk>", "<sep>", "<pad>", "<cls>", "<mask>", "<eop>", "<eod>"}
    assert set(theirs.all_special_tokens) == special
    text = "A dog (not a cat)."
    assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == text
    assert theirs.mask_token_id == ours.special.mask


def test_a_vocabulary_that_transformers_cannot_read(tmp_path):
    from xlnet_jax.data.vocabulary import VocabularyConfig, train_vocabulary

    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"number {i} of the words" for i in range(300)))
    train_vocabulary(
        VocabularyConfig(
            input=(str(text),), output_prefix=str(tmp_path / "bpe"), vocab_size=60,
            model_type="bpe", num_threads=1, progress=False,
        ),
        report=lambda line: None,
    )  # fmt: skip
    for normalization in (REFERENCE, Normalization(form="nfc")):
        tokenizer = Tokenizer(tmp_path / "bpe.model", normalization)
        (note,) = huggingface_tokenizer.write(epath.Path(tmp_path), tokenizer)
        assert "no tokenizer was written" in note
    assert not (tmp_path / "tokenizer.json").exists()
    assert not (tmp_path / "tokenizer_config.json").exists()


def test_a_tokenizer_config_that_is_no_json(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not JSON"):
        huggingface_tokenizer.read_normalization(epath.Path(tmp_path))
