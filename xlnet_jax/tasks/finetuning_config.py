"""The keys of section `data` that fine-tuning tasks share. Light to import: configs do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from xlnet_jax.model.config import SUMMARY_TYPES


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
    """The keys of section `data` that every fine-tuning task has.

    Attributes:
        train, dev, test: files (or what else the task reads); "" for none.
        spiece_model: SentencePiece model, where neither weights nor run bring one.
        max_seq_length: tokens of a sequence.
        pad_to_multiple: sequences of a batch are padded to a multiple of this; 0 pads all to
            `max_seq_length`.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "dev", "test")

    train: str = ""
    dev: str = ""
    test: str = ""
    spiece_model: str = ""
    max_seq_length: int = 128
    pad_to_multiple: int = 16

    def validate(self) -> None:
        """Raises ValueError naming the key that does not fit."""
        if self.pad_to_multiple < 0:
            raise ValueError(
                f"config.data.pad_to_multiple is {self.pad_to_multiple}, wanted at least 0"
            )

    @classmethod
    def without_data(cls, values: Mapping[str, Any], length: int | None) -> dict[str, Any]:
        """The keys as they may be where there are no data, and `length` for their own."""
        longest = values["max_seq_length"] if length is None else length
        return {**values, "train": "planned.tsv", "dev": "", "max_seq_length": longest}

    def own(self, split: str) -> str:
        """What the config gives for a split, "" for nothing; raises ValueError if it is none."""
        if split not in self.SPLITS:
            raise ValueError(f"there is no split {split!r}, wanted one of {', '.join(self.SPLITS)}")
        return getattr(self, split)

    def file(self, split: str) -> str:
        """The same; raises ValueError if that is nothing, too."""
        if path := self.own(split):
            return path
        raise ValueError(f"config.data.{split} is empty; set --config.data.{split}=FILE")


@dataclasses.dataclass(frozen=True)
class SummaryConfig(FineTuningConfig):
    """The keys of tasks that make one vector of a sequence.

    Attributes:
        summary_type: "last", "first", "mean" or "attn"; see `model.summary`.
        use_projection: dense and tanh behind the summary.
        count_padding: whether padding counts in the summaries "first" and "mean", as in the
            original; needs `pad_to_multiple` 0. False takes them over the text alone.
    """

    summary_type: str = "last"
    use_projection: bool = True
    count_padding: bool = False

    def validate(self) -> None:
        """Raises ValueError naming the key that does not fit."""
        super().validate()
        if self.summary_type not in SUMMARY_TYPES:
            raise ValueError(
                f"config.data.summary_type is {self.summary_type!r}, wanted one of"
                f" {', '.join(SUMMARY_TYPES)}"
            )
        if self.count_padding and self.summary_type in ("first", "mean") and self.pad_to_multiple:
            raise ValueError(
                f"config.data.count_padding=True makes summary_type {self.summary_type!r} depend"
                " on the padded length: wanted config.data.pad_to_multiple 0, got"
                f" {self.pad_to_multiple}"
            )
