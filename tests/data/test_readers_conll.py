import pytest

from xlnet_jax.data.readers_conll import has_tags, read_conll, read_word_lines
from xlnet_jax.data.readers_rows import Oddities

CONLL_2003 = """\
-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
York NNP I-NP B-PER
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "some.txt"
        path.write_text(text)
        return path

    return write


def read(path, **options):
    oddities = options.pop("oddities", Oddities())
    return list(read_conll(path, "dev", oddities=oddities, **options))


def test_iob1_becomes_bio(write):
    oddities, path = Oddities(), write(CONLL_2003)
    first, second = read(path, oddities=oddities)
    assert (first.words, first.tags) == (("EU", "rejects"), ("B-ORG", "O"))
    assert second.tags == ("B-PER", "I-PER", "B-PER")
    assert [(s.guid, s.line) for s in (first, second)] == [("dev-0", 3), ("dev-1", 6)]
    assert oddities.lines() == [f"{path}: 2 entities that began with I-, read as B- (line 3, 6)"]


def test_bio_stays_as_it_is(write):
    tags = ("B-A", "I-A", "I-B", "O", "B-B", "B-B", "I-B")
    text = "".join(f"w\t{tag}\n" for tag in tags)
    (sentence,) = read(write(text))
    assert sentence.tags == ("B-A", "I-A", "B-B", "O", "B-B", "B-B", "I-B")


def test_columns(write):
    path = write("0\tEU\tO\tx\n1\tis\tO\tx\n")
    (sentence,) = read(path, word_column=1, tag_column=2)
    assert (sentence.words, sentence.tags) == (("EU", "is"), ("O", "O"))
    (sentence,) = read(path, word_column=1, tag_column=None)
    assert (sentence.words, sentence.tags) == (("EU", "is"), None)


def test_a_word_may_hold_a_blank_where_tabs_separate(write):
    (sentence,) = read(write("New York\tB-LOC\n\t\n"))
    assert sentence.words == ("New York",)


def test_short_lines_are_counted(write):
    oddities, path = Oddities(), write("a O\nb\nc O\n")
    (sentence,) = read(path, oddities=oddities)
    assert sentence.words == ("a", "c")
    assert oddities.lines() == [f"{path}: 1 lines dropped, fewer than 2 columns (line 2)"]


@pytest.mark.parametrize("tag", ["PER", "B-", "X-PER", "I", "E-PER"])
def test_other_tags_are_refused(write, tag):
    with pytest.raises(ValueError, match=rf"some.txt:2: the tag is '{tag}', wanted O, B-X or I-X"):
        read(write(f"a O\nb {tag}\n"))


def test_files_without_sentences(write):
    for text in ("", "\n\n", "-DOCSTART- O\n"):
        with pytest.raises(ValueError, match="holds no sentences"):
            read(write(text))
    with pytest.raises(ValueError, match="holds no sentences"):
        list(read_word_lines(write("\n \n"), "test"))


def test_sentences_as_lines(write):
    first, second = read_word_lines(write("EU rejects\n\n  German call \n"), "test")
    assert (first.words, first.tags, first.guid) == (("EU", "rejects"), None, "test-0")
    assert (second.words, second.line) == (("German", "call"), 3)


def test_has_tags(write):
    assert has_tags(write("\na O\n"))
    assert not has_tags(write("\na\nb\n"))
    assert has_tags(write(""))
