"""Flags of the verbs: the settings they build, and their defaults."""

import dataclasses
import shlex

from tests.parsers import verb_parsers
from xlnet_jax import cli


def flat_defaults(settings):
    """Field -> default of a settings dataclass, with its nested settings laid out flat.

    The form of the clean-up is the flag --normalization.
    """
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not dataclasses.is_dataclass(value):
            found[field.name] = list(value) if isinstance(value, tuple) else value
        elif field.name == "normalization":
            inner = flat_defaults(value)
            found |= {"normalization": inner.pop("form"), **inner}
        else:
            found |= flat_defaults(value)
    return found


def flags_and_defaults(verb):
    shared = ("help", "debug")
    return {a.dest: a.default for a in verb_parsers()[verb]._actions if a.dest not in shared}


def check_flags_mirror(verb, settings):
    flags, fields = flags_and_defaults(verb), flat_defaults(settings)
    assert flags.keys() == fields.keys()
    required = {action.dest for action in verb_parsers()[verb]._actions if action.required}
    chosen_later = {"keep_accents"}  # its default depends on the form
    for name in flags.keys() - required - chosen_later:
        assert flags[name] == fields[name], name


def test_flags_of_corpus_are_the_fields_of_its_settings():
    from xlnet_jax.data.corpus import CorpusConfig

    check_flags_mirror("corpus", CorpusConfig())


def test_flags_of_vocab_are_the_fields_of_its_settings():
    from xlnet_jax.data.vocabulary import VocabularyConfig

    check_flags_mirror("vocab", VocabularyConfig())


def test_choices_are_those_of_the_library():
    from xlnet_jax.data import line_rules, normalization, text_blocks

    choices = {action.dest: action.choices for action in verb_parsers()["corpus"]._actions}
    assert choices["normalization"] == list(normalization.FORMS)
    assert choices["text_format"] == list(text_blocks.FORMATS)
    assert choices["line_rules"] == ["auto", *line_rules.LINE_RULES]


def test_corpus_flags_reach_the_settings(monkeypatch):
    from xlnet_jax.data import corpus as library
    from xlnet_jax.data.normalization import Normalization
    from xlnet_jax.data.text_blocks import TextOptions

    seen = []
    monkeypatch.setattr(library, "build_corpus", seen.append)
    line = (
        "corpus --input a b --input c --output_dir d --spiece_model m --text_format jsonl"
        " --text_field body --max_line_bytes 5 --skip_empty_files --invalid_utf8 replace"
        " --tfds_data_dir t --normalization reference --lower --keep_accents"
        " --no-collapse_whitespace --no-use_eod --line_rules fixed --heldout_every 9"
        " --unit_bytes 2048 --num_workers 3 --overwrite --no-progress"
    )
    assert cli.main(shlex.split(line)) == 0
    assert seen == [
        library.CorpusConfig(
            input=("a", "b", "c"),
            output_dir="d",
            spiece_model="m",
            normalization=Normalization("reference", True, True, False),
            use_eod=False,
            line_rules="fixed",
            text=TextOptions("jsonl", "body", 5, True, "replace", "t"),
            heldout_every=9,
            unit_bytes=2048,
            num_workers=3,
            overwrite=True,
            progress=False,
        )
    ]


def test_vocab_flags_reach_the_settings(monkeypatch):
    from xlnet_jax.data import vocabulary
    from xlnet_jax.data.normalization import Normalization
    from xlnet_jax.data.text_blocks import TextOptions

    seen = []
    monkeypatch.setattr(vocabulary, "train_vocabulary", seen.append)
    line = (
        "vocab --input a --output_prefix p --tfds n:s --text_format ids --text_field body"
        " --max_line_bytes 5 --skip_empty_files --invalid_utf8 replace --tfds_data_dir t"
        " --normalization none --lower --no-collapse_whitespace --vocab_size 99"
        " --character_coverage 0.98 --model_type bpe --control_symbols '<cls>' '<x>'"
        " --user_defined_symbols - '\"' --input_sentence_size 7 --no-shuffle_input_sentence"
        " --max_sentence_bytes 8 --normalization_rule nfkc_cf --byte_fallback --seed 5"
        " --num_threads 2 --overwrite --no-progress"
    )
    assert cli.main(shlex.split(line)) == 0
    assert seen == [
        vocabulary.VocabularyConfig(
            input=("a",),
            output_prefix="p",
            tfds="n:s",
            normalization=Normalization("none", True, None, False),
            text=TextOptions("ids", "body", 5, True, "replace", "t"),
            vocab_size=99,
            character_coverage=0.98,
            model_type="bpe",
            control_symbols=("<cls>", "<x>"),
            user_defined_symbols=("-", '"'),
            input_sentence_size=7,
            shuffle_input_sentence=False,
            max_sentence_bytes=8,
            normalization_rule="nfkc_cf",
            byte_fallback=True,
            seed=5,
            num_threads=2,
            overwrite=True,
            progress=False,
        )
    ]
