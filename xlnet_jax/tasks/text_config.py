"""The keys that say where labelled text is and how it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlnet_jax.data import readers_published
from xlnet_jax.data.readers import Columns
from xlnet_jax.data.readers_rows import FORMS
from xlnet_jax.tasks.finetuning_config import SummaryConfig

KINDS = ("classification", "regression", "multi_label")
TFDS = "tfds:"


@dataclasses.dataclass(frozen=True)
class TextDataConfig(SummaryConfig):
    """Where labelled text is, and how it is read; see also `SummaryConfig`.

    Attributes:
        name: a published data set (see `data.readers_published`) in `folder`; "tfds:NAME[/CONFIG]"
            for a TFDS data set that is prepared in `tfds_data_dir`; "" for files of your own.
        folder: of a published data set, as unpacked.
        train, dev, test: own files, "" for none; with a published data set they take the place of
            its files; with TFDS they are its splits ("train[:90%]"). "-" is standard input:
            "lines", or a tsv whose header has the column `text_a`; its labels are not read.
        form: of own files: "tsv" (no quoting), "csv", "quoted_tsv", "jsonl", "folders" (one folder
            a label, one file a text), "lines" (a text a line, or two with a tab in between, no
            labels), or "auto": by the ending, and "folders" for a folder.
        encoding: of own files.
        header: whether own tsv and csv files begin with names of columns.
        text_a, text_b, label, id: columns of own files (or TFDS features), by name or by number
            from 0; `text_b` and `id` "" for none. A test file may lack the column of labels.
        kind: "classification", "regression" or "multi_label"; "auto" is that of the published data
            set, or classification.
        labels: of own files, in the order of their numbers; () to find them in the training data.
        label_separator: between the labels of a multi-label column.
        tfds_data_dir: "" for TFDS' own place.
        max_seq_length: tokens of a sequence; longer ones are cut.
    """

    name: str = ""
    folder: str = ""
    form: str = "auto"
    encoding: str = "utf-8"
    header: bool = True
    text_a: str = "text"
    text_b: str = ""
    label: str = "label"
    id: str = ""
    kind: str = "auto"
    labels: tuple[str, ...] = ()
    label_separator: str = ","
    tfds_data_dir: str = ""

    def validate(self) -> None:
        """Raises ValueError naming the key that does not fit."""
        super().validate()
        forms = ("auto", *FORMS, "folders", "lines")
        for key, allowed in (("form", forms), ("kind", ("auto", *KINDS))):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"config.data.{key} is {getattr(self, key)!r}, wanted one of"
                    f" {', '.join(allowed)}"
                )
        if not isinstance(self.labels, tuple | list) or not all(
            isinstance(label, str) for label in self.labels
        ):
            raise ValueError(f"config.data.labels is {self.labels!r}, wanted a tuple of texts")
        if len(set(self.labels)) != len(self.labels) or len(self.labels) == 1:
            raise ValueError(
                f"config.data.labels is {self.labels!r}, wanted at least two, each once; () finds"
                " them in the training data"
            )
        if self.max_seq_length < 4:
            raise ValueError(
                f"config.data.max_seq_length is {self.max_seq_length}, wanted at least 4"
            )
        self._validate_source()

    def _validate_source(self) -> None:
        if self.is_published:
            published = readers_published.find(self.name)
            if not self.folder:
                raise ValueError(
                    f"config.data.folder is empty; give the folder of {self.name!r}, with"
                    f" {', '.join(published.files.values())}"
                )
            if self.kind != "auto" or self.labels:
                raise ValueError(
                    f"config.data.kind and config.data.labels are those of {self.name!r}; leave"
                    f" them at 'auto' and (), got {self.kind!r} and {self.labels!r}"
                )
        elif not self.text_a:
            raise ValueError("config.data.text_a is empty; give the column of the text")
        elif self.kind == "multi_label" and not self.label_separator:
            raise ValueError("config.data.label_separator is empty, wanted for example ','")

    @classmethod
    def without_data(cls, values: Mapping[str, Any], length: int | None) -> dict[str, Any]:
        """See `FineTuningConfig`; a published data set knows its labels."""
        unknown = {"labels": values["labels"] or ("O", "X")}
        known = {"folder": values["folder"] or "planned"}
        return super().without_data(values, length) | (known if values["name"] else unknown)

    @property
    def is_tfds(self) -> bool:
        """Whether the data come from TFDS."""
        return self.name.startswith(TFDS)

    @property
    def is_published(self) -> bool:
        """Whether they are a published data set."""
        return bool(self.name) and not self.is_tfds

    @property
    def resolved_kind(self) -> str:
        """`kind`, with "auto" answered."""
        if self.kind != "auto":
            return self.kind
        if self.is_published and not readers_published.find(self.name).labels:
            return "regression"
        return "classification"

    @property
    def columns(self) -> Columns:
        """Those of own files."""
        return Columns(
            (self.text_a,),
            (self.text_b,) if self.text_b else (),
            self.label or None,
            self.id or None,
            self.header,
        )
