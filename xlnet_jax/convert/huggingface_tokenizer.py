"""Tokenizer files for folders of transformers, and what such files say of the clean-up.

With the original's clean-up, `XLNetTokenizer` reads spiece.model itself. It knows no other
clean-up, so for those a `tokenizer.json` is written, which `AutoTokenizer` takes as it stands.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from etils import epath

from xlnet_jax.convert.model_files import VOCABULARY_NAME
from xlnet_jax.data.normalization import Normalization
from xlnet_jax.data.storage import read_object
from xlnet_jax.data.tokenizer import WORD_MARK, Tokenizer

CONFIG_NAME = "tokenizer_config.json"
_NO_LIMIT = int(1e30)  # what transformers writes for a model without a longest length
_UNIGRAM = 1  # TrainerSpec.ModelType


def read_normalization(folder: epath.Path) -> Normalization:
    """The original's clean-up, with lower-casing if the tokenizer's config says so."""
    path = folder / CONFIG_NAME
    values = read_object(path) if path.exists() else {}
    return Normalization(form="reference", lower=bool(values.get("do_lower_case", False)))


def write(folder: epath.Path, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Writes the tokenizer's files; returns what a user of transformers should know."""
    from sentencepiece import sentencepiece_model_pb2

    normalization = tokenizer.normalization
    model = tokenizer.model_path.read_bytes()
    (folder / VOCABULARY_NAME).write_bytes(model)
    symbols = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": tokenizer.processor.IdToPiece(tokenizer.special.unk),
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "cls_token": "<cls>",
        "mask_token": "<mask>",
    }
    if tokenizer.special.bos < 0:
        del symbols["bos_token"]
    if tokenizer.special.eos < 0:
        del symbols["eos_token"]
    more = [
        s for s in ("<eop>", "<eod>") if tokenizer.processor.PieceToId(s) != tokenizer.special.unk
    ]
    values: dict[str, Any] = {
        "tokenizer_class": "XLNetTokenizer",
        "do_lower_case": normalization.lower,
        "keep_accents": bool(normalization.keep_accents),
        "remove_space": normalization.collapse_whitespace,
        "padding_side": "left",
        "model_max_length": _NO_LIMIT,
        # Said, for else every symbol of the vocabulary is taken for a special token.
        "additional_special_tokens": more,
        **symbols,
    }
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    note = "transformers does not cut pieces such as '1,' before the comma, the original does"
    if proto.trainer_spec.model_type != _UNIGRAM:
        return (
            "no tokenizer was written: transformers cannot read a vocabulary that is not unigram;"
            " cut text with this package",
        )
    if normalization.form != "reference" or normalization.keep_accents:
        note = _write_json(folder, tokenizer, proto)
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n")
    special = {**symbols, "additional_special_tokens": more}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return (note,)


def _write_json(folder: epath.Path, tokenizer: Tokenizer, proto: Any) -> str:
    """Writes tokenizer.json: a unigram model with the clean-up that XLNetTokenizer lacks."""
    special = tokenizer.special
    added = [i for i in dict.fromkeys(vars(special).values()) if i >= 0]
    values = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, tokenizer.pieces[i], special.mask) for i in sorted(added)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": _normalizers(tokenizer.normalization, proto.normalizer_spec),
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, _metaspace()],
        },
        "post_processor": _template(special.sep, special.cls),
        "decoder": _metaspace(),
        "model": {
            "type": "Unigram",
            "unk_id": special.unk,
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": proto.trainer_spec.byte_fallback,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False) + "\n")
    return (
        f"text clean-up {tokenizer.normalization.form!r} is in tokenizer.json: use AutoTokenizer;"
        " XLNetTokenizer would drop accents"
    )


def _normalizers(normalization: Normalization, spec: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if normalization.form == "reference":
        quotes = ({"String": "``"}, {"String": "''"})
        parts += [{"type": "Replace", "pattern": mark, "content": '"'} for mark in quotes]
        parts += [{"type": "NFKD"}]
        parts += [] if normalization.keep_accents else [{"type": "StripAccents"}]
    elif normalization.form != "none":
        parts += [{"type": normalization.form.upper()}]
    if normalization.lower:
        parts += [{"type": "Lowercase"}]
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        parts += [{"type": "Precompiled", "precompiled_charsmap": charsmap}]
    return parts


def _added(number: int, piece: str, mask: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": piece,
        "single_word": False,
        "lstrip": number == mask,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _metaspace() -> dict[str, Any]:
    return {
        "type": "Metaspace",
        "replacement": WORD_MARK,
        "prepend_scheme": "always",
        "split": True,
    }


def _template(sep: int, cls: int) -> dict[str, Any]:
    """A <sep> <cls>, or A <sep> B <sep> <cls>."""

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    def symbol(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    single = [text("A", 0), symbol("<sep>", 0)]
    pair = [*single, text("B", 1), symbol("<sep>", 1), symbol("<cls>", 2)]
    ids = {"<sep>": sep, "<cls>": cls}
    return {
        "type": "TemplateProcessing",
        "single": [*single, symbol("<cls>", 2)],
        "pair": pair,
        "special_tokens": {k: {"id": k, "ids": [i], "tokens": [k]} for k, i in ids.items()},
    }
