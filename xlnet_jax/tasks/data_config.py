"""Settings of the pretraining examples, and whether they fit each other."""

import dataclasses
from typing import Literal

import numpy as np

_SEPARATORS = 3  # <sep> behind A, <sep> behind B, <cls>


@dataclasses.dataclass(frozen=True)
class PretrainingDataConfig:
    """How examples are cut and what is predicted; lengths in tokens.

    `num_predict` None predicts every token that the spans give and has a query at every position.
    `spans`: "words" (fixed) or "pieces" (reference), see `tasks/spans.py`. `reset_memory`: "never"
    (reference) or "document": the memory is dropped where a document ended in the tokens that
    entered it last, and at the first step of an epoch, whose memory is of text from elsewhere.
    """

    seq_len: int = 512
    reuse_len: int = 256
    num_predict: int | None = 85
    perm_size: int = 256
    mask_alpha: int = 6
    mask_beta: int = 1
    max_gram: int = 5
    spans: Literal["words", "pieces"] = "words"
    bi_data: bool = True
    seed: int = 0
    reset_memory: Literal["never", "document"] = "never"

    @property
    def pair_len(self) -> int:
        """Tokens of A and B together."""
        return self.seq_len - self.reuse_len - _SEPARATORS

    @property
    def goals(self) -> tuple[int | None, int | None]:
        """Tokens to predict in the reuse part and in the rest; the odd one falls to the first."""
        if self.num_predict is None:
            return None, None
        return self.num_predict - self.num_predict // 2, self.num_predict // 2

    def validate(self) -> None:
        """Raises one ValueError that names every value that does not fit, and what would."""
        problems = [*self._wrong_kinds()]
        if not problems:
            problems = [*self._wrong_lengths()]
        if problems:
            raise ValueError("; ".join(problems))

    def _wrong_kinds(self) -> list[str]:
        smallest = {"seq_len": 6, "reuse_len": 1, "perm_size": 1, "mask_beta": 1, "mask_alpha": 1}
        smallest |= {"max_gram": 1, "seed": 0}
        if self.num_predict is not None:
            smallest["num_predict"] = 1
        problems = []
        for key, least in smallest.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                problems.append(
                    f"config.data.{key} is {value!r}; it must be a whole number of at least {least}"
                )
        choices: dict[str, tuple[object, ...]] = {
            "bi_data": (True, False),
            "spans": ("words", "pieces"),
            "reset_memory": ("never", "document"),
        }
        for key, allowed in choices.items():
            value = getattr(self, key)
            if type(value) is not type(allowed[0]) or value not in allowed:
                problems.append(
                    f"config.data.{key} is {value!r}; it must be {allowed[0]!r} or {allowed[1]!r}"
                )
        return problems

    def _wrong_lengths(self) -> list[str]:
        problems = []
        if self.pair_len < 2:
            return [
                f"config.data.reuse_len is {self.reuse_len}; with config.data.seq_len "
                f"{self.seq_len} it must be at most {self.seq_len - _SEPARATORS - 2} "
                "(two <sep>, one <cls> and a token each of A and B must fit)"
            ]
        part = min(self.reuse_len, self.seq_len - self.reuse_len)
        if self.perm_size > part:
            problems.append(
                f"config.data.perm_size is {self.perm_size}; it must be at most {part}, the "
                f"shorter part of config.data.seq_len {self.seq_len} with config.data.reuse_len "
                f"{self.reuse_len}"
            )
        if self.mask_alpha < self.mask_beta:
            problems.append(
                f"config.data.mask_alpha is {self.mask_alpha}; it must be at least "
                f"config.data.mask_beta, {self.mask_beta}"
            )
        room = self.pair_len if self.spans == "words" else self.pair_len + _SEPARATORS
        first, second = self.goals
        if first is not None and second is not None and (first > self.reuse_len or second > room):
            most = min(2 * self.reuse_len, 2 * room + 1)
            problems.append(
                f"config.data.num_predict is {self.num_predict}; it must be at most {most}, for it "
                f"puts {first} in the first part and {second} in the second, which have "
                f"{self.reuse_len} and {room} tokens to choose from"
            )
        return problems
