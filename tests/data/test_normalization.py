import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlnet_jax.data.normalization import FORMS, Normalization, changed_code_points

SETTINGS = [Normalization(form, lower=lower) for form in FORMS for lower in (False, True)] + [
    Normalization("reference", keep_accents=True),
    Normalization("reference", collapse_whitespace=False),
    Normalization("nfkc", collapse_whitespace=False),
]
# Marks out of order, jamo that compose, vowel signs without a combining class, ligatures, sigmas.
DIFFICULT = [*"aΣσİıéé가ᄀ각ᅡᆨᄀﾡￂがか゛゙ଂ㌔ﷺﬁ½`'▁1,., \t\u00a0\u2028\u0323\u0301\u0b47\u0b3e\u034f"]
TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(DIFFICULT)), max_size=24
)


@given(TEXTS)
@example("각")  # three jamo, one syllable
@example("x\u0b47\u0b3e")  # two vowel signs without a combining class that compose
@example("ﾡￂ\u0323\u0301a")
@example("\u0301")
@example("ΣΑΣ. ΑΣ")
def test_spans_tell_where_each_clean_character_came_from(text):
    for normalization in SETTINGS:
        clean, spans = normalization.clean_with_spans(text)
        assert clean == normalization.clean(text), normalization
        assert spans.shape == (len(clean), 2)
        assert (spans[:, 0] < spans[:, 1]).all()
        assert (np.diff(spans[:, 0]) >= 0).all()
        assert (np.diff(spans[:, 1]) >= 0).all()
        for character, (begin, end) in zip(clean, spans.tolist(), strict=True):
            alone = normalization.clean(text[begin:end]) or " "
            assert character in alone or character in "σς", (normalization, text[begin:end])


@given(st.lists(TEXTS.map(lambda text: text.replace("\n", " ")), max_size=4))
def test_many_lines_at_once_are_cleaned_as_one_by_one(lines):
    for normalization in SETTINGS:
        assert normalization.clean_lines(lines) == [normalization.clean(line) for line in lines]


def test_long_and_short_texts_lose_the_same_marks():
    text = "Ünḯcodé й が ぴ " * 100
    assert len(text) > 256
    assert Normalization("reference").clean(text) == " ".join(["Unicode и か ひ"] * 100)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("reference", 'й"が fi'.replace("й", "и").replace("が", "か")),
        ("nfc", "й``が ﬁ"),
        ("nfkc", "й``が fi"),
        ("none", "й``か\u3099 ﬁ"),
    ],
)
def test_forms_differ_in_the_stated_way(form, wanted):
    assert Normalization(form).clean(" й``か\u3099 \t ﬁ ") == wanted


def test_only_the_reference_form_drops_marks():
    marked = "हिन्दी が é ไทยนี้"
    for form in ("nfc", "nfkc", "none"):
        kept = unicodedata.normalize("NFKD", Normalization(form).clean(marked))
        assert kept == unicodedata.normalize("NFKD", marked)
    assert Normalization("reference", keep_accents=True).clean(marked) == marked
    assert Normalization("reference").clean(marked) != marked
    with pytest.raises(ValueError, match=r"'nfc' drops no accents.*--keep_accents"):
        Normalization("nfc", keep_accents=False)


def test_settings_survive_json_and_refuse_unknown_keys():
    for normalization in SETTINGS:
        assert Normalization.from_json(normalization.to_json()) == normalization
    with pytest.raises(ValueError, match="unknown keys: color"):
        Normalization.from_json({**SETTINGS[0].to_json(), "color": 1})
    with pytest.raises(ValueError, match=r"'nfd': wanted one of reference.*--normalization"):
        Normalization("nfd")


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("abc d", "abc d", 0),
        ("``abc''", '"abc"', 0),
        ("é\u00a0éx", "e ex", 2),
        ("ﬁn が", "fin が", 1),
        ("ééé", "é", 2),
        ("é", "", 1),
        ("", "", 0),
    ],
)
def test_changed_code_points_are_those_beyond_ascii_that_went(before, after, changed):
    assert changed_code_points(["a", before], ["a", after]) == changed
