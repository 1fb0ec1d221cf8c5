"""The original's own reading of MNLI, STS-B and the like is compared in tests/parity."""

import pytest

from xlnet_jax.data.readers_published import DATA_SETS, find
from xlnet_jax.data.readers_rows import Oddities


def read(folder, name, split):
    found = find(name).read(name, folder, split, Oddities())
    return [(e.text_a, e.text_b, e.label) for e in found]


# Two lines of each GLUE set in the form of the published archives.
GLUE = {
    ("cola", "dev"): ("gj04\t1\t\tSome text.\n", [("Some text.", None, "1")]),
    ("cola", "test"): ("index\tsentence\n0\tSome text.\n", [("Some text.", None, None)]),
    ("sst-2", "dev"): ("sentence\tlabel\nfine film\t1\n", [("fine film", None, "1")]),
    ("sst-2", "test"): ("index\tsentence\n0\tfine film\n", [("fine film", None, None)]),
    ("mrpc", "dev"): (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tOne \"quote\tTwo\n",
        [('One "quote', "Two", "1")],
    ),
    ("mrpc", "test"): (
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tOne\tTwo\n", [("One", "Two", None)],
    ),
    ("qqp", "dev"): (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy?\tWho?\t0\n",
        [("Why?", "Who?", "0")],
    ),
    ("qqp", "test"): ("id\tquestion1\tquestion2\n0\tWhy?\tWho?\n", [("Why?", "Who?", None)]),
    ("qnli", "dev"): (
        "index\tquestion\tsentence\tlabel\n0\tWhy?\tSo.\tnot_entailment\n",
        [("Why?", "So.", "not_entailment")],
    ),
    ("rte", "train"): (
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n", [("A", "B", "entailment")],
    ),
    ("wnli", "test"): ("index\tsentence1\tsentence2\n0\tA\tB\n", [("A", "B", None)]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), GLUE)
def test_glue(tmp_path, name, split):
    text, wanted = GLUE[name, split]
    (tmp_path / f"{split}.tsv").write_text(text)
    assert read(tmp_path, name, split) == wanted


def test_mnli_has_both_development_sets(tmp_path):
    line = "\t".join([*"01234567", "A", "B", "x", "neutral"])
    for file in ("dev_matched", "dev_mismatched"):
        (tmp_path / f"{file}.tsv").write_text(f"header\n{line}{file}\n")
    assert read(tmp_path, "mnli", "dev")[0][2] == "neutraldev_matched"
    assert read(tmp_path, "mnli", "dev_mismatched")[0][2] == "neutraldev_mismatched"
    assert list(find("mnli").files) == [
        "train", "dev", "test", "dev_mismatched", "test_mismatched",
    ]  # fmt: skip
    assert find("mnli").other_columns["test_mismatched"].label is None


@pytest.mark.parametrize("name", ["yelp2", "yelp5", "dbpedia", "ag", "amazon2", "amazon5"])
def test_csv_files_of_zhang(tmp_path, name):
    titled = name[:4] not in ("yelp",)
    (tmp_path / "test.csv").write_text('"2",' + '"A title",' * titled + '"said ""\\""so"""\n')
    wanted = 'A title said "so"' if titled else 'said "so"'
    # The csv module leaves one quote of each pair, and a backslash before one of them.
    assert read(tmp_path, name, "dev") == [(wanted.replace('"s', '""s', 1), None, "2")]
    assert find(name).labels == tuple(str(i + 1) for i in range(len(find(name).labels)))


def test_xnli_of_another_language(tmp_path):
    header = "language\tgold_label\t2\t3\t4\t5\tsentence1\tsentence2\n"
    rows = [f"{language}\tneutral\t\t\t\t\ta b {language}\tc d\n" for language in ("de", "zh")]
    (tmp_path / "xnli.dev.tsv").write_text(header + "".join(rows))
    assert read(tmp_path, "xnli/de", "dev") == [("a b de", "c d", "neutral")]
    assert read(tmp_path, "xnli/zh", "dev") == [("abzh", "cd", "neutral")]


def test_regression_labels_are_numbers(tmp_path):
    def write(score):
        (tmp_path / "dev.tsv").write_text("header\n" + "\t".join([*"0123456", "A", "B", score]))

    write("3.25")
    assert read(tmp_path, "sts-b", "dev") == [("A", "B", 3.25)]
    for wrong in ("nan", "five"):
        write(wrong)
        with pytest.raises(ValueError, match=rf"dev.tsv:2: the label is '{wrong}', wanted a numb"):
            read(tmp_path, "sts-b", "dev")


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(ValueError, match=r"config.data.name is 'glue', wanted one of cola, sst-2"):
        find("glue")
    with pytest.raises(ValueError, match="'imdb' has no split 'test', it has train, dev"):
        read(tmp_path, "imdb", "test")
    with pytest.raises(FileNotFoundError, match=r"no file .*train.tsv"):
        read(tmp_path, "rte", "train")


def test_every_set_says_its_columns():
    for name, found in DATA_SETS.items():
        for split in ("train", "dev"):
            columns = found.other_columns.get(split, found.columns)
            assert found.form == "folders" or columns.label is not None, name
