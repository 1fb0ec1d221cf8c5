"""Published classification data sets as they are distributed: file names, columns, labels.

Columns and file names of MNLI, STS-B, IMDB, Yelp-5, XNLI, ChnSentiCorp and the fork's csv are those
of the processors in run_classifier.py of the original and of the Chinese fork; the others are those
of the GLUE archives and of the csv files by Zhang et al. (2015).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from xlnet_jax.data.readers import Columns, Label, TextExample, read_examples, read_folders
from xlnet_jax.data.readers_rows import Oddities, Row

_NLI = ("contradiction", "entailment", "neutral")
_BINARY = ("0", "1")
_FIRST = Columns((0,))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """How one data set lies in its folder.

    Attributes:
        files: split -> file or folder. The original evaluates on the published test files of IMDB
            and of the csv sets and calls them "dev"; "test" is for splits without known labels,
            except in the Chinese sets.
        labels: classes in the order of their numbers; () for regression.
        columns: of the splits with labels.
        other_columns: split -> columns where they differ; no label column for hidden labels.
        form: one of `readers_rows.FORMS`, or "folders".
        clean_text: what the original does to a text first.
        synonyms: other spellings of a label.
        unnamed_rows: see `read_examples`.
    """

    files: Mapping[str, str]
    labels: tuple[str, ...] = _BINARY
    columns: Columns = _FIRST
    other_columns: Mapping[str, Columns] = dataclasses.field(default_factory=dict)
    form: str = "tsv"
    clean_text: Callable[[str], str] = str
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unnamed_rows: bool = False

    def _columns(self, split: str) -> Columns:
        return self.other_columns.get(split, self.columns)

    def read(
        self,
        name: str,
        folder: epath.PathLike,
        split: str,
        oddities: Oddities,
        path: epath.PathLike | None = None,
    ) -> Iterator[TextExample]:
        """The examples of a split, from its published file or from another one, `path`.

        Raises FileNotFoundError or ValueError naming the split, the file or the line.
        """
        if split not in self.files:
            raise ValueError(
                f"the data set {name!r} has no split {split!r}, it has {', '.join(self.files)}"
            )
        path = path or epath.Path(folder) / self.files[split]
        if self.form == "folders":
            return read_folders(path, self.labels, clean_text=self.clean_text)
        language = name.partition("/")[2] if "/" in name else None
        return read_examples(
            path,
            split,
            self._columns(split),
            form=self.form,
            oddities=oddities,
            read_label=self._read_label,
            clean_text=self.clean_text,
            keep=functools.partial(_is_of, language) if language and split != "train" else None,
            unnamed_rows=self.unnamed_rows,
        )

    def _read_label(self, value: Any) -> Label:
        if self.labels:
            return self.synonyms.get(value, value)
        return read_number(value)


def read_number(value: Any) -> float:
    """A regression target; raises ValueError for anything but a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ValueError(f"the label is {value!r}, wanted a number")
    return number


def _is_of(language: str, row: Row) -> bool:
    return bool(row.values) and row.values[0] == language


def _glue(
    a: int, b: int | None, label: int, *, test: tuple[int, ...] | None = None, **more: Any
) -> DataSet:
    """A GLUE set: column `a`, maybe `b`; those of the test file where they differ."""
    columns = Columns((a,), () if b is None else (b,), label, header=more.pop("header", True))
    first, *second = test if test is not None else (a, *(() if b is None else (b,)))
    hidden = {"test": Columns((first,), tuple(second))}
    files = more.pop("files", {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"})
    if "test_mismatched" in files:
        hidden["test_mismatched"] = hidden["test"]
    return DataSet(files, columns=columns, other_columns=hidden, **more)


def _mnli(*kinds: str) -> DataSet:
    """MNLI with the matched or the mismatched files, or with the latter as further splits."""
    files = {"train": "train.tsv"}
    for kind in kinds:
        more = f"_{kind}" if len(files) > 1 else ""
        files |= {f"dev{more}": f"dev_{kind}.tsv", f"test{more}": f"test_{kind}.tsv"}
    return _glue(8, 9, -1, labels=_NLI, files=files)


def _csv(classes: int, texts: int) -> DataSet:
    """The csv files by Zhang et al.: class counted from 1, then title (if any) and text."""
    return DataSet(
        {"train": "train.csv", "dev": "test.csv"},
        tuple(str(number + 1) for number in range(classes)),
        Columns(tuple(range(1, texts + 1)), label=0, header=False),
        form="csv",
        clean_text=_unescape,
        unnamed_rows=True,
    )


def _unescape(text: str) -> str:
    """Doubled and escaped quotes to plain ones, as `Yelp5Processor` does."""
    return text.replace('""', '"').replace('\\"', '"')


def _imdb_text(text: str) -> str:
    return text.strip().replace("<br />", " ")


def _without_blanks(text: str) -> str:
    return text.replace(" ", "")


def _xnli(language: str) -> DataSet:
    """XNLI: machine-translated training text of a language, dev and test in all languages."""
    return DataSet(
        {
            "train": f"multinli/multinli.train.{language}.tsv",
            "dev": "xnli.dev.tsv",
            "test": "xnli.test.tsv",
        },
        _NLI,
        Columns((6,), (7,), 1),
        {"train": Columns((0,), (1,), 2)},
        clean_text=_without_blanks if language == "zh" else str,
        synonyms={"contradictory": "contradiction"},
    )


_XNLI_LANGUAGES = (
    "ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh",
)  # fmt: skip

DATA_SETS: dict[str, DataSet] = {
    "cola": _glue(3, None, 1, test=(1,), header=False),
    "sst-2": _glue(0, None, 1, test=(1,)),
    "mrpc": _glue(3, 4, 0),
    "qqp": _glue(3, 4, 5, test=(1, 2)),
    "sts-b": _glue(7, 8, 9, labels=()),
    "mnli": _mnli("matched", "mismatched"),
    "mnli_matched": _mnli("matched"),
    "mnli_mismatched": _mnli("mismatched"),
    "qnli": _glue(1, 2, 3, labels=("entailment", "not_entailment")),
    "rte": _glue(1, 2, 3, labels=("entailment", "not_entailment")),
    "wnli": _glue(1, 2, 3),
    "imdb": DataSet(
        {"train": "train", "dev": "test"}, ("neg", "pos"), form="folders", clean_text=_imdb_text
    ),
    "yelp2": _csv(2, 1),
    "yelp5": _csv(5, 1),
    "dbpedia": _csv(14, 2),
    "ag": _csv(4, 2),
    "amazon2": _csv(2, 2),
    "amazon5": _csv(5, 2),
    **{f"xnli/{language}": _xnli(language) for language in _XNLI_LANGUAGES},
    "chnsenticorp": DataSet(
        {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}, columns=Columns((1,), (), 0)
    ),
    # The fork's third reader: text, label; quoted.
    "csv": DataSet(
        {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"},
        columns=Columns((0,), (), 1),
        form="csv",
    ),
}


def find(name: str) -> DataSet:
    """The data set of a name; raises ValueError with the names there are."""
    if name not in DATA_SETS:
        raise ValueError(
            f"config.data.name is {name!r}, wanted one of {', '.join(DATA_SETS)}, tfds:NAME, or"
            ' "" for files of your own'
        )
    return DATA_SETS[name]
