import io
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from tests.parity import tokenization as parity
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.tokenizer import WORD_MARK, Tokenizer

GOLDENS = Path(__file__).parents[1] / "goldens"
ENGLISH = GOLDENS / "tokenization/en/spiece.model"
CHINESE = GOLDENS / "tokenization/zh/spiece.model"
REFERENCE = Tokenizer(ENGLISH, Normalization("reference"))
TOKENIZERS = [
    REFERENCE,
    Tokenizer(ENGLISH, Normalization("nfc")),
    Tokenizer(CHINESE, Normalization("reference", lower=True)),
    Tokenizer(CHINESE, Normalization("nfkc")),
]
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from([*"the and 0123456789,, .``''\t éが中国人民￥①½㌔ﷺﬁΣ\u0301\u3099\u200b▁<"]),
    ),
    max_size=40,
)
PLAIN = st.text(st.sampled_from('etaoinsr hdlu,.-()"019Ea '), max_size=60)


def train(path: Path, text: list[str], **settings) -> Path:
    """A tiny vocabulary, made by SentencePiece without help from this package."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(text), model_writer=written, minloglevel=2, hard_vocab_limit=False,
        **settings,
    )  # fmt: skip
    path.write_bytes(written.getvalue())
    return path


@pytest.mark.parametrize("case", list(parity.cases(GOLDENS)), ids=lambda case: case.name)
def test_clean_up_and_pieces_are_the_originals(case):
    assert case.run is not None, case.reason
    result = case.run()
    assert result.passed, result


def test_a_tie_may_be_cut_otherwise_but_nothing_else_may(tmp_path):
    folder = tmp_path / "tokenization"
    (folder / "en").mkdir(parents=True)
    (folder / "en/spiece.model").write_bytes(ENGLISH.read_bytes())
    wanted = {"sp_pieces": ["▁a", "x"], "pieces": ["▁a", "x"], "ids": [1, 2]}
    entry = {"id": 7, "text": "ax", "preprocess": {}, "encode": {"en/raw": wanted}}
    strange = {**entry, "encode": {"en/raw": {**wanted, "nbest": 1}, "en/shouted": wanted}}
    for tie, other, passed in ((True, [], True), (False, [], False), (False, [strange], False)):
        wanted["tie"] = tie
        wanted["pieces"] = (
            ["▁", "ax"] if REFERENCE.clean_as_pieces("ax") != ["▁", "ax"] else ["▁ax"]
        )
        (folder / "cases.json").write_text(json.dumps([entry, *other]))
        results = {case.name: case for case in parity.cases(tmp_path)}
        case = results["tokenization/en/raw/pieces"]
        parity._tokenizer.cache_clear()
        assert case.run is not None
        assert case.run().passed is passed
    assert results["tokenization/en/shouted"].run is None
    assert results["tokenization/en/raw/nbest"].run is None


@given(st.lists(TEXTS.map(lambda text: text.replace("\n", " ")), max_size=5))
@example(["in 2003, 1,500, or", "", "7, 12,345"])
def test_a_batch_is_encoded_as_one_by_one(texts):
    for tokenizer in TOKENIZERS:
        ids, lengths = tokenizer.encode_batch(texts)
        assert ids.dtype == np.int32
        rows = np.split(ids, np.cumsum(lengths)[:-1]) if texts else []
        assert [row.tolist() for row in rows] == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_texts_in_one_call_are_encoded_as_one_by_one(num_threads):
    texts = [f"In {i}, {i * 37}, é or ``{i}''" * (i % 4) for i in range(150)]
    for tokenizer in TOKENIZERS:
        ids, lengths = tokenizer.encode_batch(texts, num_threads=num_threads)
        rows = np.split(ids, np.cumsum(lengths)[:-1])
        assert [row.tolist() for row in rows] == [tokenizer.encode(text) for text in texts]


@given(TEXTS)
@example("in 2003, 1,500, or 7, 12,345")
def test_ids_are_those_of_the_pieces(text):
    for tokenizer in TOKENIZERS:
        pieces = tokenizer.encode_as_pieces(text)
        assert tokenizer.encode(text) == [tokenizer.piece_to_id(piece) for piece in pieces]


@given(TEXTS)
def test_offsets_cover_what_the_pieces_say(text):
    for tokenizer in TOKENIZERS:
        ids, spans = tokenizer.encode_with_offsets(text)
        assert ids == tokenizer.encode(text)
        assert spans.shape == (len(ids), 2)
        assert (np.diff(spans[:, 0]) >= 0).all()
        assert (spans[:, 0] <= spans[:, 1]).all()
        assert (spans[:, 1] <= len(text)).all()
        pieces = tokenizer.encode_as_pieces(text)
        for piece, (begin, end) in zip(pieces, spans.tolist(), strict=True):
            content = piece.replace(WORD_MARK, "")
            assert (begin < end) == bool(content), (piece, begin, end)
            there = tokenizer.processor.Normalize(tokenizer.normalization.clean(text[begin:end]))
            assert content.replace("ς", "σ") in there.replace("ς", "σ").replace(WORD_MARK, "")


@pytest.mark.parametrize("num_threads", [1, 2])
def test_offsets_of_many_texts_are_those_of_each(num_threads):
    texts = [f"in {i}, {i * 37},\né or ``½ が{i}''" * (i % 4) for i in range(90)]
    for tokenizer in TOKENIZERS:
        for some in (texts, texts[:7], []):
            ids, spans, lengths = tokenizer.encode_batch_with_offsets(some, num_threads=num_threads)
            wanted = [tokenizer.encode_with_offsets(text) for text in some]
            assert (ids.dtype, spans.dtype, spans.shape) == (np.int32, np.int64, (len(ids), 2))
            assert lengths.tolist() == [len(row) for row, _ in wanted]
            assert ids.tolist() == [i for row, _ in wanted for i in row]
            assert spans.tolist() == [span for _, found in wanted for span in found.tolist()]


@given(PLAIN)
@example("in 2003, 1,500, or 7, 12,345")
def test_offsets_of_plain_text_spell_the_pieces(text):
    """Where clean-up only touches blanks, the slices are the pieces and leave out nothing else."""
    _ids, spans = REFERENCE.encode_with_offsets(text)
    slices = [text[begin:end] for begin, end in spans.tolist()]
    assert slices == [piece.replace(WORD_MARK, "") for piece in REFERENCE.encode_as_pieces(text)]
    assert "".join(slices) == "".join(text.split())


def test_offsets_go_through_clean_up_and_digit_commas():
    tokenizer = Tokenizer(ENGLISH, Normalization("reference"))
    text = "  ``Café''\tin 2003, ½ of\u00a0it"
    (commas,) = [p for p in tokenizer.processor.EncodeAsPieces("in 2003,") if p.endswith("3,")]
    assert len(commas) > 1  # so SentencePiece alone glues the comma to a digit here
    _ids, spans = tokenizer.encode_with_offsets(text)
    found = {
        (piece.replace(WORD_MARK, ""), text[begin:end])
        for piece, (begin, end) in zip(
            tokenizer.encode_as_pieces(text), spans.tolist(), strict=True
        )
    }
    assert {('"', "``"), ('"', "''"), (",", ","), ("1", "½")} <= found
    assert all(clean == there or there in ("``", "''", "½", "é", "fé", "afé", "Café")
               for clean, there in found if clean)  # fmt: skip


def test_every_byte_of_a_character_has_its_span(tmp_path):
    path = train(
        tmp_path / "bytes.model", ["words and words"] * 9, vocab_size=300, byte_fallback=True,
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
    )  # fmt: skip
    tokenizer = Tokenizer(path)
    ids, spans = tokenizer.encode_with_offsets(" 日b word")
    assert ids == tokenizer.encode("日b word")
    assert spans.tolist()[:5] == [[1, 1], [1, 2], [1, 2], [1, 2], [2, 3]]
    assert spans.tolist()[-1][1] == 8


def test_the_digit_comma_rule_is_the_only_difference_of_the_reference_on_plain_text():
    other = Tokenizer(ENGLISH, Normalization("nfc"))
    text = "In 2003, 1,500 came."
    assert any(p[-1] == "," and p[-2:-1].isdigit() for p in other.encode_as_pieces(text))
    assert not any(p[-1] == "," and len(p) > 1 for p in REFERENCE.encode_as_pieces(text))
    assert REFERENCE.decode(REFERENCE.encode(text)) == other.decode(other.encode(text)) == text


@pytest.fixture(scope="module")
def commas(tmp_path_factory):
    """A vocabulary full of pieces that end in digits and a comma, with and without a word mark."""
    text = [f"5837, 5837,b {i}, {i % 7}1,{i} 10, 20,{i % 3}, a{i % 9}, b1,b1, " for i in range(200)]
    path = train(
        tmp_path_factory.mktemp("commas") / "commas.model", text, vocab_size=220,
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
    )  # fmt: skip
    return Tokenizer(path, Normalization("reference"))


@given(text=st.lists(st.sampled_from([*"0123456789,,ab ", "5837,"])).map("".join))
@example(text="10, 20,5 b1,b1, 1,10, 5837,")
def test_digit_commas_are_cut_as_stated(commas, text):
    """The rule of the original's `encode_pieces`, restated piece by piece."""
    wanted = []
    for piece in commas.processor.EncodeAsPieces(text):
        if len(piece) < 2 or piece[-1] != "," or not piece[-2].isdigit():
            wanted.append(piece)
            continue
        parts = commas.processor.EncodeAsPieces(piece[:-1].replace(WORD_MARK, ""))
        if not piece.startswith(WORD_MARK):
            parts = [parts[0].replace(WORD_MARK, "", 1), *parts[1:]]
        wanted += [part for part in parts if part] + [","]
    assert commas.clean_as_pieces(text) == wanted
    ids, lengths = commas.encode_batch([text, text])
    assert ids[: lengths[0]].tolist() == [commas.piece_to_id(piece) for piece in wanted]
    plain = " ".join(text.split())
    found, spans = commas.encode_with_offsets(plain)
    assert found == commas.encode(plain)
    slices = [plain[begin:end] for begin, end in spans.tolist()]
    assert slices == [piece.replace(WORD_MARK, "") for piece in commas.encode_as_pieces(plain)]


def test_the_comma_vocabulary_has_pieces_of_both_kinds(commas):
    ends = [piece for piece in commas.pieces if piece[-1] == "," and piece[-2:-1].isdigit()]
    assert any(piece.startswith(WORD_MARK) for piece in ends)
    assert any(not piece.startswith(WORD_MARK) for piece in ends)
    assert "▁5837," in ends
    assert "▁5837" not in commas.pieces  # so that its digits take several pieces


def test_special_ids_are_read_from_the_model(tmp_path):
    assert list(vars(REFERENCE.special).values()) == list(range(9))
    path = train(
        tmp_path / "other.model", ["some words here", "and more"], vocab_size=60,
        control_symbols=["<mask>", "<pad>", "<cls>", "<eod>", "<sep>"], bos_id=-1, eos_id=-1,
    )  # fmt: skip
    special = Tokenizer(path).special
    assert (special.unk, special.mask, special.pad, special.cls, special.eod, special.sep) == (
        0, 1, 2, 3, 4, 5,
    )  # fmt: skip
    assert special.bos == special.eos == special.eop == -1


def test_a_vocabulary_without_control_symbols_is_refused(tmp_path):
    path = train(
        tmp_path / "bare.model", ["some words here"], vocab_size=40, control_symbols=["<sep>"]
    )
    with pytest.raises(
        ValueError,
        match=r"bare.model lacks the control symbols <cls>, <pad>, <mask>, <eod>: .*vocab",
    ):
        Tokenizer(path)


def test_wrong_model_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no SentencePiece model at .*absent.model.*--spie"
    ):
        Tokenizer(tmp_path / "absent.model")
    (tmp_path / "text.model").write_text("hello")
    with pytest.raises(ValueError, match=r"text.model is not a readable SentencePiece model"):
        Tokenizer(tmp_path / "text.model")


def test_word_starts_are_marks_tags_and_listed_punctuation():
    starts = REFERENCE.word_starts
    assert starts.shape == (REFERENCE.vocab_size,)
    for piece, start in zip(REFERENCE.pieces, starts.tolist(), strict=True):
        listed = len(piece) == 1 and piece in '!"#$%&()*+,-./:;?@[\\]^_`{|}~'
        assert start == (piece[0] in "▁<" or listed), piece
    by_piece = dict(zip(REFERENCE.pieces, starts.tolist(), strict=True))
    assert by_piece["<cls>"]
    assert by_piece["▁the"]
    assert by_piece[","]
    assert not by_piece["–"]


def test_unknown_pieces_that_may_end_in_a_comma_are_looked_at(tmp_path):
    """A vocabulary without a comma: the text of an unknown piece decides, not its id."""
    path = train(
        tmp_path / "letters.model", ["words and words"], vocab_size=40,
        control_symbols=["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"],
    )  # fmt: skip
    tokenizer = Tokenizer(path, Normalization("reference"))
    text = "words 12, words"
    assert tokenizer.processor.EncodeAsPieces(text).count("12,") == 1
    assert tokenizer.encode_as_pieces(text)[-4:-2] != ["12,"]
    ids, lengths = tokenizer.encode_batch([text, "words"])
    assert ids[: lengths[0]].tolist() == tokenizer.encode(text)
    assert tokenizer.encode(text).count(0) == 2
